//! `serin compare`.

use std::process::ExitCode;

use crate::{
    cli::{Compare, Output},
    compare::{self, Finding},
    exit, output,
    terminal::Terminal,
};

/// `serin compare`.
pub(crate) fn compare(args: &Compare) -> anyhow::Result<ExitCode> {
    let report = compare::compare(args)?;
    match args.output {
        Output::Json => output::json(&report)?,
        Output::Text => compare::print(&report, Terminal::stdout()),
    }
    Ok(match report.finding {
        Finding::Pass => exit::with(exit::DONE),
        Finding::Fail => exit::with(exit::WORSE),
        Finding::Undecided | Finding::Shown => exit::with(exit::NOT_DONE),
    })
}
