//! Simulates whole rollouts and checks the promises: `gates [--short] [--output json] [--only WORD]`. Exits with 1 on a miss.

mod program;
mod suite;

use suite::{lab, report};

fn main() -> std::process::ExitCode {
    program::run(&suite::PARTS)
}
