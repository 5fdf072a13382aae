//! The simulations that verify the statistics: goals G1 to G6, the tables on which they rest, and comparisons with other methods.
//!
//! Counts are drawn instead of events, and seeds are fixed, so each figure is the same on every machine.
//! `cargo run --release -p serin-statistics --example gates` runs them in full; the test `simulation` runs a short form with
//! the same bounds.

#![expect(clippy::expect_used, reason = "a panic is how a simulation fails")]

mod batches;
mod both;
mod clusters;
mod corrections;
mod counts;
mod detection;
mod draws;
mod ends;
mod family;
mod kayenta_bars;
pub(crate) mod lab;
mod looks;
mod naive;
mod outcomes;
mod peeking;
pub(crate) mod report;
mod returning;
mod scenarios;
mod sticky;
mod strata;

use lab::Lab;
use report::Row;

/// A part of the harness: its heading and the function that it runs.
pub(crate) type Part = (&'static str, fn(Lab) -> Vec<Row>);

/// All parts, in the order of the report.
pub(crate) const PARTS: [Part; 19] = [
    ("False rollbacks of healthy canaries (G1), and what peeking does to them (G4)", family::gates),
    ("Time to FAIL and to PASS (G2, G5)", detection::tables),
    ("False PASS at the margin (G3)", detection::false_passes),
    ("PASS by planned looks (section 7)", looks::rows),
    ("One metric at a time: tests for one look and e-processes (8.1, G4)", peeking::gates),
    ("A ramp with a drifting base rate (8.3)", peeking::drift),
    ("Stratified by segment (6.4a)", strata::rows),
    ("The built-in gates on outcomes", outcomes::rows),
    ("Clustered users (G6)", clusters::gates),
    ("Users who always answer alike (G6)", returning::gates),
    ("Equal versions with sticky users", sticky::equal),
    ("Handfuls of sticky users that try to force a rollback", sticky::handfuls),
    ("Time to FAIL with sticky users", sticky::detection),
    ("Heavy tails (G6)", corrections::heavy_tails),
    ("Events per answer in bursts", counts::rows),
    ("Correlated rows, and conditions", batches::rows),
    ("Margins that reach beyond the range", ends::rows),
    ("Margins with both parts", both::rows),
    ("Compared with Kayenta (bars 2 to 10)", kayenta_bars::bars),
];
