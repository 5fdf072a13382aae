//! Checks the topics of a stage before it starts: the tasks of a stage read the same-numbered partitions of all its
//! topics, and its state needs a compacted changelog.

use std::time::Duration;

use serin_topology::{APPEND_TIME, Cleanup, DEAD_LETTERS};

use crate::{
    fold::FoldFactory,
    log::{Log, LogError},
    task::{TaskOptions, changelog_of},
};

/// Topics are missing or do not match a stage's requirements.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// At least one topic does not match.
    #[error("{stage} cannot start on these topics:\n  {}\n`serin topology ensure` creates missing topics; `serin topology check` lists all differences", .problems.join("\n  "))]
    Wrong {
        /// The stage that cannot start.
        stage: &'static str,
        /// The problems, each as a sentence.
        problems: Vec<String>,
    },
    /// The topics could not be read.
    #[error("checking the topics: {0}")]
    Log(#[from] LogError),
}

/// Checks the topics of a stage and reports each problem.
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
                "topic {full:?} has {}={stamps}; it must be {}, otherwise a producer's wrong clock would decide \
                 which writers are waited for; set it with `kafka-configs --alter --topic {full} --add-config {}={}`",
                APPEND_TIME.0, APPEND_TIME.1, APPEND_TIME.0, APPEND_TIME.1
            ));
        }
        if name == changelog && spec.cleanup != Cleanup::Compact {
            problems
                .push(format!("topic {full:?} must have cleanup.policy=compact, otherwise state is lost over time"));
        }
        let kept = spec.settings.iter().find(|(setting, _)| setting == "delete.retention.ms");
        let kept = kept.and_then(|(_, ms)| ms.parse().ok()).map(Duration::from_millis);
        if name == changelog && kept.is_some_and(|kept| kept < options.tombstones_kept) {
            let least = options.tombstones_kept.as_millis();
            problems.push(format!(
                "topic {full:?} must have delete.retention.ms of at least {least}, otherwise deleted rows can reappear"
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(TopologyError::Wrong { stage, problems }) }
}
