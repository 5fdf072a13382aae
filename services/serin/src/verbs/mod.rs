//! The verbs of the command line, except those that run services and the demo.

mod compare;
mod contrasts;
mod deadline;
mod diff;
mod examples;
mod explain;
mod export;
mod get;
mod history;
mod list;
mod local;
mod plan;
mod profile;
mod progress;
mod remote;
mod replay;
mod simulate;
mod switch;
mod tail;
mod topology;

pub(crate) use compare::compare;
pub(crate) use diff::diff;
pub(crate) use explain::explain;
pub(crate) use export::export;
pub(crate) use get::get;
pub(crate) use history::{events, history};
pub(crate) use list::list;
pub(crate) use local::{lint, print_problems, rate, schema};
pub(crate) use plan::plan;
pub(crate) use profile::profile;
pub(crate) use remote::{act, apply, status, stop_all};
pub(crate) use replay::replay;
pub(crate) use simulate::simulate;
pub(crate) use switch::switch;
pub(crate) use tail::tail;
pub(crate) use topology::topology;
