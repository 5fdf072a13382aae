//! Events of calls: the data of a call, the content of its answer, and the guard that reports it.

pub(crate) mod called;
pub(crate) mod example;
pub(crate) mod guard;
pub(crate) mod listening;
pub(crate) mod passing;
pub(crate) mod trace;
