//! Who may ask for what: secrets, bearer tokens, writers of evidence, and the guard against other sites' web pages.
//!
//! The router, the controller and the binary share it, so that every port has the same rules and none has a copy of its own.
//! [`docs/trust.md`](../../../docs/trust.md) lists every port, who is believed there, and for what.
//!
//! Invariants:
//! - secrets are compared in constant time and never shown ([`Secret`]);
//! - a port that asks for no token answers this machine only, and no web page of another origin ([`check_local`]);
//! - a writer of evidence is bound to models ([`Writers`]).

mod request;
mod secret;
mod writers;

pub use request::{Refused, bearer, check_local, check_origin, is_loopback};
pub use secret::{Secret, TOKEN_MIN, short_token};
pub use writers::{Door, Writer, WriterConfig, WriterList, Writers};
