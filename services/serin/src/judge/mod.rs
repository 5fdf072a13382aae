//! `serin judge`: what a fixed-sample canary check would have reported about recorded values. Serin decides nothing by it.
//!
//! Two forms of input: a request of Kayenta's remote judge, judged as Kayenta judges it ([`kayenta`]), and a list of metrics with
//! margins, judged by a shifted Mann-Whitney test ([`report`]).

mod judgement;
mod kayenta;
mod report;

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use judgement::Meaning;

use crate::{
    cli::{Judge, Output},
    exit, output,
    verbs::read,
};

/// Judges a file and prints the result.
pub(crate) fn run(args: &Judge) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let text = read(&args.file)?;
    let input: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
    let judged = if input.get("metricSetPairList").is_some() { kayenta::judge(&input) } else { report::judge(&input) };
    let judged = judged.map_err(|problems| anyhow::anyhow!("{name}:\n  {}", problems.join("\n  ")))?;
    match args.output {
        Output::Json => output::json(&judged.json)?,
        Output::Text => judged.lines.iter().for_each(output::text),
    }
    Ok(exit::with(match judged.meaning {
        Meaning::Good => exit::DONE,
        Meaning::Open => exit::NOT_DONE,
        Meaning::Bad => exit::WORSE,
    }))
}
