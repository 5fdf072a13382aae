//! Law P7: the simulations of `examples/gates` in their short form, with the same bounds and fixed seeds.

#[path = "../examples/gates/suite/mod.rs"]
mod suite;

use suite::lab::Lab;
use suite::report::{Row, Unit};

#[test]
fn every_gate_is_kept() {
    let mut missed = Vec::new();
    for (heading, run) in suite::PARTS {
        println!("\n{heading}\n");
        for row in run(Lab { short: true, progress: false }) {
            println!("{row}");
            if row.passes() == Some(false) {
                missed.push(row.to_string());
            }
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn a_gate_can_miss() {
    let row = Row::new("G1", "a broken process", Unit::Share, (0.02, 0.001));
    assert_eq!(row.passes(), None);
    assert_eq!(row.clone().at_most(0.005).passes(), Some(false));
    assert_eq!(row.clone().at_least(0.05).passes(), Some(false));
    assert_eq!(row.at_least(0.01).passes(), Some(true));
    let nothing = Row::new("G1", "nothing was simulated", Unit::Share, (f64::NAN, f64::NAN));
    assert_eq!(nothing.at_most(0.005).passes(), Some(false));
}
