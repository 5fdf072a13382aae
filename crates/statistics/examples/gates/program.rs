//! The command line of a harness: `[--short] [--output json] [--only PART OF A HEADING]`. Exits with 1 if a gate is missed.

use std::process::ExitCode;

use crate::{lab::Lab, report::Row};

/// A heading and the function that it runs.
type Part = (&'static str, fn(Lab) -> Vec<Row>);

const USAGE: &str = "usage: [--short] [--output json] [--only PART OF A HEADING]";

struct Args {
    short: bool,
    json: bool,
    only: String,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut args = Self { short: false, json: false, only: String::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--short" => args.short = true,
                "--output" => args.json = words.next()? == "json",
                "--only" => args.only = words.next()?,
                _ => return None,
            }
        }
        Some(args)
    }
}

/// Runs the parts whose heading matches the command line, and prints their rows.
#[expect(clippy::print_stdout, reason = "the report is the output")]
pub(crate) fn run(parts: &[Part]) -> ExitCode {
    let Some(args) = Args::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let lab = Lab { short: args.short, progress: true };
    let mut rows: Vec<Row> = Vec::new();
    for (heading, run) in parts.iter().filter(|part| part.0.contains(&args.only)) {
        let part = run(lab);
        if !args.json {
            println!("\n{heading}\n");
            for row in &part {
                println!("{row}");
            }
        }
        rows.extend(part);
    }
    let gated = rows.iter().filter_map(Row::passes);
    let (kept, missed) =
        gated.fold((0, 0), |(kept, missed), pass| if pass { (kept + 1, missed) } else { (kept, missed + 1) });
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).expect("rows are plain"));
    } else {
        println!("\n{kept} gates kept, {missed} missed, {} rows for comparison", rows.len() - kept - missed);
    }
    ExitCode::from(u8::from(missed > 0))
}
