//! Simulates whole rollouts and checks the guarantees: `gates [--short] [--output json] [--only WORD]`. Exits with 1 if a gate is missed.

mod program;
mod suite;

use suite::{lab, report};

fn main() -> std::process::ExitCode {
    program::run(&suite::PARTS)
}
