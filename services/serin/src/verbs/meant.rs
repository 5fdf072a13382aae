//! The metric that a user means.

use std::collections::BTreeSet;

use serin_spec::RolloutSpec;

/// The metric that a user means by a name, or an error that lists the metrics.
pub(super) fn meant<'a>(metric: &'a str, spec: &RolloutSpec) -> anyhow::Result<&'a str> {
    // In warm-up the verdict has no metrics yet.
    let names: BTreeSet<&str> = spec.metrics.iter().map(|known| known.name.as_str()).collect();
    let meant = if names.contains(metric) { metric } else { serin_spec::built_in_name(metric) };
    anyhow::ensure!(
        names.contains(meant),
        "the rollout has no metric {metric:?}; it has {}",
        names.into_iter().collect::<Vec<_>>().join(", ")
    );
    Ok(meant)
}
