//! A stage refuses to start on topics that it cannot work with: the tasks of one stage read the same-numbered partitions of
//! all its topics, and its state needs a compacted changelog.

use std::time::Duration;

use serin_topology::{APPEND_TIME, Cleanup, DEAD_LETTERS};

use crate::{
    fold::FoldFactory,
    log::{Log, LogError},
    task::{TaskOptions, changelog_of},
};

/// Topics are missing or not as a stage needs them.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// All that is wrong.
    #[error("{stage} cannot start on these topics:\n  {}\n`serin topology ensure` creates what is missing; `serin topology check` shows all", .problems.join("\n  "))]
    Wrong {
        /// The stage.
        stage: &'static str,
        /// One sentence each.
        problems: Vec<String>,
    },
    /// The topics could not be looked at.
    #[error("looking at the topics: {0}")]
    Log(#[from] LogError),
}

/// Looks at the topics of a stage and names each problem.
pub(super) fn check(log: &dyn Log, factory: &dyn FoldFactory, options: &TaskOptions) -> Result<(), TopologyError> {
    let (stage, inputs) = (factory.stage(), factory.inputs());
    let changelog = changelog_of(stage);
    let mut wanted = inputs.to_vec();
    wanted.extend([changelog, DEAD_LETTERS]);
    let found = log.describe(&wanted)?;
    let mut problems = Vec::new();
    let first = inputs.first().and_then(|input| found.iter().find(|spec| spec.name == *input));
    for name in wanted {
        let full = log.full_name(name);
        let Some(spec) = found.iter().find(|spec| spec.name == name) else {
            problems.push(format!("topic {full:?} does not exist"));
            continue;
        };
        if let Some(first) = first
            && name != DEAD_LETTERS
            && spec.partitions != first.partitions
        {
            let (has, other, wants) = (spec.partitions, log.full_name(&first.name), first.partitions);
            problems.push(format!("topic {full:?} has {has} partitions, {other:?} has {wants}; they must be equal"));
        }
        let stamps =
            spec.settings.iter().find(|(setting, _)| setting == APPEND_TIME.0).map(|(_, value)| value.as_str());
        if factory.append_times().contains(&name)
            && let Some(stamps) = stamps.filter(|stamps| *stamps != APPEND_TIME.1)
        {
            problems.push(format!(
                "topic {full:?} has {}={stamps}; it must be {}, or a producer's wrong clock decides who is waited for: set it with \
                 `kafka-configs --alter --topic {full} --add-config {}={}`",
                APPEND_TIME.0, APPEND_TIME.1, APPEND_TIME.0, APPEND_TIME.1
            ));
        }
        if name == changelog && spec.cleanup != Cleanup::Compact {
            problems.push(format!("topic {full:?} must have cleanup.policy=compact, or state is lost with time"));
        }
        let kept = spec.settings.iter().find(|(setting, _)| setting == "delete.retention.ms");
        let kept = kept.and_then(|(_, ms)| ms.parse().ok()).map(Duration::from_millis);
        if name == changelog && kept.is_some_and(|kept| kept < options.tombstones_kept) {
            let least = options.tombstones_kept.as_millis();
            problems.push(format!(
                "topic {full:?} must have delete.retention.ms of at least {least}, or rows that were deleted come back"
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(TopologyError::Wrong { stage, problems }) }
}
