//! `serin compare`.

use std::process::ExitCode;

use crate::{
    cli::{Compare, Output},
    compare::{self, Finding},
    output,
    terminal::Terminal,
};

/// Status of "B must not replace A": that of a rollout that was rolled back.
const FAILED: u8 = 3;

/// `serin compare`.
pub(crate) fn compare(args: &Compare) -> anyhow::Result<ExitCode> {
    let report = compare::compare(args)?;
    match args.output {
        Output::Json => output::json(&report)?,
        Output::Text => compare::print(&report, Terminal::stdout()),
    }
    Ok(match report.finding {
        Finding::Pass => ExitCode::SUCCESS,
        Finding::Fail => ExitCode::from(FAILED),
        Finding::Undecided | Finding::Shown => ExitCode::FAILURE,
    })
}
