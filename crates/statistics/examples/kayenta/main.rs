//! Checks a file of cases for Kayenta's judge: `cargo run --release -p serin-statistics --example kayenta -- FILE.json`. Prints each miss
//! and then `N passed, N failed, N skipped`. The exit code is 1 if a case failed, 2 if the file cannot be read.

#![expect(clippy::print_stdout, reason = "the report is the output")]

mod cases;
mod compare;

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: cargo run --release -p serin-statistics --example kayenta -- FILE.json");
        return ExitCode::from(2);
    };
    let report = std::fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|text| cases::check(&text));
    match report {
        Err(error) => {
            eprintln!("error: {path}: {error}");
            ExitCode::from(2)
        }
        Ok(report) => {
            for miss in &report.misses {
                println!("{miss}");
            }
            println!("{} passed, {} failed, {} skipped", report.passed, report.failed, report.skipped);
            ExitCode::from(u8::from(report.failed > 0))
        }
    }
}
