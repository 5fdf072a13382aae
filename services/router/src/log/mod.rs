//! Follows the routing log, stores its tables, and reports on `router-status`.

pub(crate) mod consumer;
mod keeper;
mod namesakes;
pub(crate) mod status;
