//! Arguments of the verbs that step in: weights, approvals, freezes, undo, retry.

use clap::{Args, ValueEnum};
use serin_spec::Share;

use super::{Act, Remote};

/// A weight to set.
#[derive(Debug, Args)]
pub(crate) struct SetWeight {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// The canary's new weight, such as 10% or 0.5%
    #[arg(value_name = "PERCENT", value_parser = percent)]
    pub(crate) weight: Share,
    /// Allow a weight beyond the steps of the rollout file
    #[arg(long)]
    pub(crate) force: bool,
    /// The reason, for the audit log
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

fn percent(text: &str) -> Result<Share, String> {
    let text = text.trim();
    Share::parse(&if text.ends_with('%') { text.to_owned() } else { format!("{text}%") })
}

/// How a version is judged afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Was {
    /// It was good.
    Good,
    /// It was bad.
    Bad,
}

/// An ended rollout to judge.
#[derive(Debug, Args)]
pub(crate) struct Mark {
    /// Model name, rollout id, or the start of the id
    pub(crate) rollout: String,
    /// Whether the new version was good or bad
    #[arg(long, value_enum)]
    pub(crate) was: Was,
    /// The reason, for the audit log
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// A rollout to try again.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) act: Act,
    /// Start with this step after warm-up, counted from 1. Default: the first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) from_step: Option<u32>,
}

/// What to freeze.
#[derive(Debug, Args)]
pub(crate) struct Freeze {
    /// Model name, or a pattern of names: * matches any characters. Without it, the present freezes are listed
    pub(crate) models: Option<String>,
    /// Freeze every model
    #[arg(long, conflicts_with = "models")]
    pub(crate) all: bool,
    /// End the freeze by itself after this time, such as 12h or 3d. Default: it lasts until `serin unfreeze`
    #[arg(long = "for", value_name = "SPAN", value_parser = serin_spec::units::Duration::parse)]
    pub(crate) span: Option<serin_spec::units::Duration>,
    /// The reason, for the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What to unfreeze.
#[derive(Debug, Args)]
pub(crate) struct Unfreeze {
    /// Model name or pattern, exactly as it was frozen
    #[arg(required_unless_present = "all")]
    pub(crate) models: Option<String>,
    /// End the freeze of every model
    #[arg(long, conflicts_with = "models")]
    all: bool,
    /// The reason, for the audit log
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_may_be_written_with_or_without_its_sign() {
        assert_eq!((percent("10%"), percent("10"), percent("0.5")), (Ok(Share(1000)), Ok(Share(1000)), Ok(Share(50))));
        assert!(percent("ten").is_err() && percent("101").is_err());
    }
}
