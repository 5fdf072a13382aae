//! Arguments of `serin report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Connection, Remote, Serve};

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// Markdown.
    #[default]
    Text,
    /// One JSON document, with all verdicts and hashes.
    Json,
    /// One HTML page with pictures.
    Html,
}

/// A rollout to report on, or a report to verify.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Model name, rollout id, or the start of the id
    #[arg(required_unless_present = "verify", conflicts_with = "verify")]
    pub(crate) rollout: Option<String>,
    /// Compare this report, in any of its forms, with the audit events on the log
    #[arg(long, value_name = "FILE")]
    pub(crate) verify: Option<PathBuf>,
    /// For --verify: read the log itself instead of asking the API. Needs the report as JSON
    #[arg(long, requires = "verify")]
    pub(crate) log: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: ReportOutput,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// The time whose rollouts are counted.
#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// Only rollouts that started since then: a span before now such as 30d, or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub(crate) since: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}
