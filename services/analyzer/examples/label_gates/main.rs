//! Simulates whole rollouts through the analyzer's fold, for a property that the statistics alone do not ensure:
//! `label_gates [--short] [--output json] [--only WORD]`. Exits with 1 on a miss.

#[path = "../../../../crates/statistics/examples/gates/suite/lab.rs"]
mod lab;
#[path = "../../../../crates/statistics/examples/gates/program.rs"]
mod program;
#[path = "../../../../crates/statistics/examples/gates/suite/report.rs"]
mod report;
mod slower;
#[path = "../../tests/support/mod.rs"]
mod support;

fn main() -> std::process::ExitCode {
    program::run(&[("Equal canaries with slower labels", slower::rows)])
}
