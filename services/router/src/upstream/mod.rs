//! Connections to model servers, and the causes of failures.

pub(crate) mod cause;
pub(crate) mod clients;
pub(crate) mod flights;
pub(crate) mod headers;
pub(crate) mod outgoing;
pub(crate) mod pool;
pub(crate) mod servers;
pub(crate) mod tls;
