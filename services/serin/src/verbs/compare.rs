//! `serin compare`.

use std::{io::IsTerminal as _, process::ExitCode};

use crate::{
    cli::{Compare, Output},
    compare::{self, Finding},
    output,
};

/// Status of "B must not replace A": that of a rollout that was rolled back.
const FAILED: u8 = 3;

/// `serin compare`.
pub(crate) fn compare(args: &Compare) -> anyhow::Result<ExitCode> {
    let report = compare::compare(args)?;
    match args.output {
        Output::Json => output::json(&report)?,
        Output::Text => compare::print(&report, std::io::stdout().is_terminal()),
    }
    Ok(match report.finding {
        Finding::Pass => ExitCode::SUCCESS,
        Finding::Fail => ExitCode::from(FAILED),
        Finding::Undecided | Finding::Shown => ExitCode::FAILURE,
    })
}
