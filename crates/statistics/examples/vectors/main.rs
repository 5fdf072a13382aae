//! Checks a file of reference vectors: `cargo run --release -p serin-statistics --example vectors -- FILE.json`.
//!
//! The file is a JSON object whose `cases` are `{id, kind, input, expected, rtol, atol}`. Prints every miss and then
//! `N passed, N failed`. The exit code is 1 if a case failed, 2 if the file cannot be read.

mod runner;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(path), None) = (args.next(), args.next()) else {
        return refuse("usage: vectors FILE.json");
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return refuse(&format!("{path}: {error}")),
    };
    let report = match runner::check_file(&text) {
        Ok(report) => report,
        Err(error) => return refuse(&format!("{path}: {error}")),
    };
    // A closed pipe is not an error of the vectors.
    let _ = writeln!(std::io::stdout(), "{report}");
    if report.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn refuse(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(2)
}
