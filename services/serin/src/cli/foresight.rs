//! Arguments of `plan`, `simulate` and `replay`: the verbs that forecast or repeat rollouts without any service.

use std::path::PathBuf;

use clap::{Args, value_parser};

use super::{Output, Serve};

/// What `serin plan` forecasts.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "this is the text of --help")]
pub(crate) struct Plan {
    /// The rollout file; - for standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Request rate of the model, all versions together: 50/s, 10000/min, 2000000/d
    #[arg(long, value_name = "RATE")]
    pub(crate) traffic: String,
    /// Stable's value of a metric, such as failed=1% or latency_p99=250ms; can be repeated. Default: 1 % failed and
    /// 1 % refused calls, 0.1 % unusable answers, 5 % for other rates, the middle of a mean's range, 100 for a quantile
    #[arg(long, value_name = "METRIC=VALUE")]
    pub(crate) base: Vec<String>,
    /// Share of the answers that a metric with conditions (`where`) counts, such as recall=2%; required for each such metric
    #[arg(long, value_name = "METRIC=SHARE")]
    pub(crate) counted: Vec<String>,
    /// A regression to forecast the time to `fail` for, as in `serin simulate`. Default: twice what is acceptable, per metric
    #[arg(long = "regression", value_name = "TEXT")]
    pub(crate) regressions: Vec<String>,
    /// Time from the close of a window to the canary's last request: grace, decision and drain
    #[arg(long, value_name = "SPAN", default_value = "2s")]
    pub(crate) react: String,
    /// Compare the file's own ramp with the named schedules, and name the cheapest that is as good
    #[arg(long)]
    pub(crate) cheapest: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What `serin simulate` plays.
#[expect(clippy::doc_markdown, reason = "this is the text of --help")]
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The rollout file; - for standard input
    #[arg(long, short, value_name = "FILE", required_unless_present_any = ["scenario", "list"])]
    pub(crate) file: Option<PathBuf>,
    /// A scenario: a name from --list, or the path of a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) scenario: Option<String>,
    /// List the scenarios that ship with Serin
    #[arg(long)]
    pub(crate) list: bool,
    /// Request rate of the model, all versions together: 50/s, 10000/min, 2000000/d
    #[arg(long, value_name = "RATE")]
    pub(crate) traffic: Option<String>,
    /// A regression of the canary; can be repeated. Default: the canary is equal to stable
    #[arg(long = "regression", value_name = "TEXT")]
    pub(crate) regressions: Vec<String>,
    /// A rate that drifts in both arms over the ramp, such as 'failed 0.5%->3%'
    #[arg(long = "drift", value_name = "TEXT")]
    pub(crate) drifts: Vec<String>,
    /// Stable's value of a metric, such as failed=1% or latency_p99=250ms; can be repeated. Default: 1 % failed and
    /// 1 % refused calls, 0.1 % unusable answers, 5 % for other rates, the middle of a mean's range, 100 for a quantile
    #[arg(long, value_name = "METRIC=VALUE")]
    pub(crate) base: Vec<String>,
    /// Share of the answers that a metric with conditions (`where`) counts, such as recall=2%; required for each such metric
    #[arg(long, value_name = "METRIC=SHARE")]
    pub(crate) counted: Vec<String>,
    /// Share of a segment value, such as origin=LGA:10%; can be repeated. The rest is split evenly
    #[arg(long = "share", value_name = "SEGMENT:SHARE")]
    pub(crate) shares: Vec<String>,
    /// Number of rollouts. Default: the scenario's number, or 1000
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) runs: Option<u32>,
    /// Seed of all random numbers. The same seed gives the same report with any --jobs
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// End a run this long after the canary's first request. Default: the ramp at its longest
    #[arg(long, value_name = "SPAN")]
    pub(crate) until: Option<String>,
    /// Number of rollouts that run in parallel. Default: one per core
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What `serin replay` judges again.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A data directory of `serin up`, or the topic `windows` or `events` of the configured log. Default: windows
    #[arg(long, value_name = "DIR|TOPIC")]
    pub(crate) from: Option<String>,
    /// Another policy: a rollout file of the same model. Default: the recorded policy, whose verdicts must come out equal
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Fold the events again instead of using the recorded windows, for metrics, segments or windows that were not recorded
    #[arg(long, requires = "file")]
    pub(crate) events: bool,
    /// Judge only this rollout: its id, or the start of it
    #[arg(long, value_name = "ID", requires = "file")]
    pub(crate) rollout: Option<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) serve: Serve,
}
