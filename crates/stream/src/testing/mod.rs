//! Tools for the tests of stages: a harness for one fold, and logs and stores that fail when told to. No thread, no clock,
//! no disk.

mod faults;
mod harness;

pub use self::{
    faults::{Fault, Faults, FaultyLog, FaultyStores, Group},
    harness::{Applied, FoldHarness},
};
