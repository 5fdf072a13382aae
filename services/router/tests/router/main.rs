//! Tests of the router from outside: real upstreams on loopback, an in-memory log, real requests.

#![expect(clippy::unwrap_used, reason = "a failing test should panic where it fails")]

mod answers;
mod batches;
mod doors;
mod early;
mod encodings;
mod events;
mod failures;
mod faults;
mod foreign;
mod harness;
mod heads;
mod leaving;
mod mirrors;
mod names;
mod outcomes;
mod promises;
mod protocols;
mod requests;
mod rows;
mod safety;
mod split;
mod tables;
mod upstreams;
