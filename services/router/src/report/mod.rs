//! One event per call and version: what is known of the call, what is heard of its answer, and the guard that reports it.

pub(crate) mod called;
pub(crate) mod example;
pub(crate) mod guard;
pub(crate) mod listening;
pub(crate) mod passing;
