//! Measurements that the router's benchmark shares with tests of the binary.

pub mod publish;
