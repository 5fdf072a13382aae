//! The verbs of the command line, besides running services and the demo.

mod compare;
mod local;
mod remote;
mod show;
mod tail;
mod topology;

pub(crate) use compare::compare;
pub(crate) use local::{lint, schema};
pub(crate) use remote::{act, apply, status, stop_all};
pub(crate) use show::{explain, get, list};
pub(crate) use tail::tail;
pub(crate) use topology::topology;
