//! The single rule that divides the false-rollback budget among metrics, over all traffic and in their segments.
//!
//! A gate counts double, and a `watch` metric gets no share. A group gets the share of its strictest member and divides it
//! among its members by weight. If there are segments, they get half of the budget ([`rollback_weights`]).

use serin_schemas::records::Role;
use serin_spec::{GroupSpec, RolloutSpec};
use serin_statistics::{Scope, rollback_weights};

/// Metrics that count once in the score and share one part of the budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The group's name.
    pub name: String,
    /// The group's weight in the score.
    pub score_weight: f64,
    /// The group's deciding metrics: the index of each in the rollout file, and its weight within the group.
    pub members: Vec<(usize, f64)>,
}

/// The groups of a rollout file that contain at least one deciding metric.
pub fn groups(spec: &RolloutSpec) -> Vec<Group> {
    let members = |name: &str| {
        let metrics = spec.metrics.iter().enumerate();
        let own = metrics.filter(|(_, metric)| metric.group.as_deref() == Some(name) && metric.role != Role::Watch);
        own.map(|(index, metric)| (index, metric.score_weight)).collect::<Vec<_>>()
    };
    let group = |group: &GroupSpec| Group {
        name: group.name.clone(),
        score_weight: group.weight,
        members: members(&group.name),
    };
    spec.groups.iter().map(group).filter(|group| !group.members.is_empty()).collect()
}

/// Each hypothesis's share of the budget. `hypotheses`: the index of the metric in the file, and whether the hypothesis
/// covers all traffic.
pub fn shares(spec: &RolloutSpec, hypotheses: &[(usize, Scope)]) -> Vec<f64> {
    let groups = groups(spec);
    let own = |&(metric, scope): &(usize, Scope)| (scope, before_scaling(spec, &groups, metric));
    rollback_weights(&hypotheses.iter().map(own).collect::<Vec<_>>())
}

/// The hypotheses to expect from a rollout file if every segment dimension fills up: its `top` values and one for the
/// others. The hypotheses over all traffic come first, one per metric.
pub fn expected(spec: &RolloutSpec) -> Vec<(usize, Scope)> {
    let mut all: Vec<(usize, Scope)> = (0..spec.metrics.len()).map(|metric| (metric, Scope::Overall)).collect();
    for (index, metric) in spec.metrics.iter().enumerate() {
        let own = spec.segments.iter().filter(|dimension| metric.segments.contains(&dimension.name));
        let values: usize = own.map(|dimension| dimension.top + 1).sum();
        all.extend(std::iter::repeat_n((index, Scope::Segment), values));
    }
    all
}

fn before_scaling(spec: &RolloutSpec, groups: &[Group], metric: usize) -> f64 {
    let alone = |metric: usize| match spec.metrics[metric].role {
        Role::Gate => 2.0,
        Role::Score => 1.0,
        Role::Watch => 0.0,
    };
    let weight_in = |group: &Group| {
        let own = group.members.iter().find(|(member, _)| *member == metric)?.1;
        let strictest = group.members.iter().map(|&(member, _)| alone(member)).fold(0.0, f64::max);
        let all: f64 = group.members.iter().map(|member| member.1).sum();
        Some(if all > 0.0 { strictest * own / all } else { 0.0 })
    };
    groups.iter().find_map(weight_in).unwrap_or_else(|| alone(metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_share_of_its_strictest_member_and_divides_it() {
        let spec: RolloutSpec = serde_json::from_str(
            r#"{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "m", "stable": {"version": "1"}, "canary": {"version": "2"},
            "steps": [{"weight": "5%"}], "groups": [{"name": "speed"}, {"name": "empty"}],
            "segments": [{"name": "origin", "source": {"input": "origin"}, "top": 1}],
            "metrics": [
                {"name": "p50", "kind": {"quantile": {"level": 0.5}}, "source": "latency", "group": "speed", "role": "score"},
                {"name": "p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency", "group": "speed", "scoreWeight": 3},
                {"name": "seen", "kind": "rate", "source": "refused", "group": "empty", "role": "watch"},
                {"name": "failed", "kind": "rate", "source": "failed", "segments": ["origin"]}]}"#,
        )
        .unwrap();
        assert_eq!(groups(&spec).len(), 1);
        let overall: Vec<(usize, Scope)> = (0..4).map(|metric| (metric, Scope::Overall)).collect();
        assert_eq!(shares(&spec, &overall), [0.125, 0.375, 0.0, 0.5]);
        let all = expected(&spec);
        assert_eq!(all[..4], overall);
        assert_eq!(all[4..], [(3, Scope::Segment), (3, Scope::Segment)]);
        assert_eq!(shares(&spec, &all), [0.0625, 0.1875, 0.0, 0.25, 0.25, 0.25]);
    }
}
