//! Access control: secrets, bearer tokens, writers of evidence, and the protection against web pages of other sites.
//!
//! The router, the controller and the binary share this crate, so that every port enforces the same rules.
//! [`docs/trust.md`](../../../docs/trust.md) lists every port, which callers it trusts, and for what.
//!
//! Invariants:
//! - secrets are compared in constant time and never printed ([`Secret`]);
//! - a port without a token answers only this machine and refuses web pages of other origins ([`check_local`]);
//! - a writer of evidence is bound to models ([`Writers`]).

mod request;
mod secret;
mod writers;

pub use request::{Refused, bearer, check_local, check_origin, is_loopback};
pub use secret::{Secret, TOKEN_MIN, looks_like_secret, short_token};
pub use writers::{Door, Writer, WriterConfig, WriterList, Writers};
