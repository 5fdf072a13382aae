//! What the router's benchmark and tests of the binary measure alike.

pub mod publish;
