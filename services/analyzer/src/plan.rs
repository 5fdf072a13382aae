//! What will be tested: the spec and, after warm-up, the list of hypotheses with their weights. It is fixed before the first canary
//! request and derived from Control records alone.

use std::collections::{BTreeMap, BTreeSet};

use serin_kinds::{
    Kind as _, Metric as _,
    budget::{self, Group},
};
use serin_schemas::{ids::Span, records::Segment};
use serin_sketches::Summary;
use serin_spec::{Frozen, Limit, MetricSpec, Mode, Require, RolloutSpec, Rules, TrafficSource};

use serin_statistics::{LooksPlan, Scope};

/// The segment value for all values that are not judged alone.
pub(crate) const OTHER: &str = "other";

/// What the analyzer derives for one metric from its spec.
#[derive(Clone, Debug)]
pub(crate) struct MetricPlan {
    /// The maturity, which is the metric's stream.
    pub(crate) maturity: Span,
    /// An empty summary of the metric's kind, with its cap.
    pub(crate) empty: Summary,
    /// Whether its summaries are about both answers to mirrored calls.
    pub(crate) paired: bool,
    /// Whether the metric has a limit, so that control is ignored.
    pub(crate) one_arm: bool,
    /// Whether what units add is kept as summaries, because the metric compares ranks or classes, and not as sums.
    pub(crate) by_unit: bool,
}

/// One metric in one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HypothesisPlan {
    /// Index of the metric in the spec.
    pub(crate) metric: usize,
    /// The segment in which the metric is judged.
    pub(crate) segment: Segment,
    /// Share of the false-rollback budget; 0 for `watch`.
    pub(crate) weight: f64,
}

/// The plan of one rollout.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) spec: RolloutSpec,
    /// What counts mean and when a step is taken. [`Rules`] is the only place to ask.
    pub(crate) rules: Rules,
    /// Whether a key assigns the arms, so that no finding may rest on a handful of units.
    pub(crate) guarded: bool,
    /// Parallel to `spec.metrics`.
    pub(crate) metrics: Vec<MetricPlan>,
    /// Groups with a metric that decides.
    pub(crate) groups: Vec<Group>,
    /// The hypotheses, in the order of the spec; empty until warm-up has frozen the segments.
    pub(crate) hypotheses: Vec<HypothesisPlan>,
    by_name: BTreeMap<String, usize>,
    /// Parallel to `metrics`.
    by_segment: Vec<BTreeMap<Segment, usize>>,
    streams: BTreeSet<Span>,
}

/// Whether the calls are reported from outside. Windows of such a rollout close by their own mark.
pub(crate) fn is_external(spec: &RolloutSpec) -> bool {
    spec.traffic == TrafficSource::External || spec.mode == Mode::Observe
}

impl Plan {
    /// The plan of a spec, still without hypotheses.
    pub(crate) fn new(spec: RolloutSpec, rules: Rules) -> Self {
        let metrics: Vec<MetricPlan> = spec
            .metrics
            .iter()
            .map(|metric| MetricPlan {
                maturity: metric.settles_after(spec.window).0,
                empty: metric.kind.empty(rules.count_by_value()),
                paired: metric.kind.is_paired(),
                one_arm: metric.limit.and_then(Limit::both).is_some(),
                by_unit: !metric.kind.is_sum(),
            })
            .collect();
        let by_name = spec.metrics.iter().enumerate().map(|(index, metric)| (metric.name.clone(), index)).collect();
        // Stream 0 carries the counts of the arms, so it always exists.
        let streams = metrics.iter().map(|metric| metric.maturity).chain([Span::default()]).collect();
        let groups = budget::groups(&spec);
        let guarded = spec.assignment.sticky.is_some() && rules.guard_units();
        Self { spec, rules, guarded, metrics, groups, hypotheses: Vec::new(), by_name, by_segment: Vec::new(), streams }
    }

    /// Fixes the hypotheses: each metric over all traffic, and in each frozen value and `other` of its dimensions.
    pub(crate) fn freeze(&mut self, frozen: &Frozen) {
        let mut hypotheses = Vec::new();
        for (metric, spec) in self.spec.metrics.iter().enumerate() {
            hypotheses.push(HypothesisPlan { metric, segment: Segment::all(), weight: 0.0 });
            for dimension in &spec.segments {
                let values = frozen.segments.get(dimension).map_or(&[][..], Vec::as_slice);
                let values = values.iter().map(String::as_str).filter(|&value| value != OTHER).chain([OTHER]);
                let segments = values.map(|value| Segment::of(dimension.as_str(), value));
                hypotheses.extend(segments.map(|segment| HypothesisPlan { metric, segment, weight: 0.0 }));
            }
        }
        let scope = |hypothesis: &HypothesisPlan| {
            (hypothesis.metric, if hypothesis.segment.is_all() { Scope::Overall } else { Scope::Segment })
        };
        let scopes: Vec<(usize, Scope)> = hypotheses.iter().map(scope).collect();
        for (hypothesis, weight) in hypotheses.iter_mut().zip(budget::shares(&self.spec, &scopes)) {
            hypothesis.weight = weight;
        }
        self.by_segment = vec![BTreeMap::new(); self.metrics.len()];
        for (index, hypothesis) in hypotheses.iter().enumerate() {
            self.by_segment[hypothesis.metric].insert(hypothesis.segment.clone(), index);
        }
        self.hypotheses = hypotheses;
    }

    /// Whether a metric counts as part of a group instead of on its own.
    pub(crate) fn is_grouped(&self, metric: usize) -> bool {
        self.groups.iter().any(|group| group.members.iter().any(|member| member.0 == metric))
    }

    /// Index of a metric's hypothesis over all traffic.
    pub(crate) fn overall(&self, metric: usize) -> Option<usize> {
        self.hypothesis_of(metric, &Segment::all())
    }

    /// Whether the calls are reported from outside.
    pub(crate) fn is_external(&self) -> bool {
        is_external(&self.spec)
    }

    /// Whether arms are assigned by a key, so that one unit brings many answers.
    pub(crate) fn is_sticky(&self) -> bool {
        self.spec.assignment.sticky.is_some()
    }

    /// The segment values that are judged, in a fixed order. Populations are counted by them.
    pub(crate) fn values(&self) -> BTreeSet<&Segment> {
        self.hypotheses.iter().map(|hypothesis| &hypothesis.segment).filter(|segment| !segment.is_all()).collect()
    }

    /// Whether some metric uses the stream of windows with this maturity.
    pub(crate) fn has_stream(&self, maturity: Span) -> bool {
        self.streams.contains(&maturity)
    }

    /// Whether any metric waits for labels.
    pub(crate) fn needs_labels(&self) -> bool {
        self.spec.metrics.iter().any(MetricSpec::needs_label)
    }

    /// Index of a metric by its name.
    pub(crate) fn metric_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The hypothesis that a cell belongs to: its own segment's, else `other` of the dimension.
    pub(crate) fn hypothesis_of(&self, metric: usize, segment: &Segment) -> Option<usize> {
        let own = self.by_segment.get(metric)?;
        own.get(segment).or_else(|| own.get(&Segment::of(segment.dimension.as_str(), OTHER))).copied()
    }

    /// The step in which a metric passes at planned looks over all traffic, and the plan of these looks.
    pub(crate) fn looks(&self, metric: usize) -> Option<(i32, LooksPlan)> {
        let (step, planned) = self.spec.planned_looks()?;
        let alpha = self.spec.decision.false_promotion;
        let plan = LooksPlan { looks: planned.looks, answers: planned.answers, alpha };
        self.spec.metrics[metric].passes_by_looks().then_some((i32::try_from(step).unwrap_or(i32::MAX), plan))
    }

    /// The looks of a hypothesis; see [`Self::looks`].
    pub(crate) fn looks_of(&self, hypothesis: usize) -> Option<(i32, LooksPlan)> {
        let HypothesisPlan { metric, segment, .. } = self.hypotheses.get(hypothesis)?;
        self.looks(*metric).filter(|_| segment.is_all())
    }

    /// The hypotheses of the single values that stratify a hypothesis over all traffic, in order; empty if it is not stratified.
    pub(crate) fn strata(&self, hypothesis: usize) -> Vec<usize> {
        let HypothesisPlan { metric, segment, .. } = &self.hypotheses[hypothesis];
        let Some(dimension) = self.spec.metrics[*metric].stratify_by.as_deref().filter(|_| segment.is_all()) else {
            return Vec::new();
        };
        let own = &self.by_segment[*metric];
        own.iter().filter(|(segment, _)| segment.dimension == dimension).map(|(_, &index)| index).collect()
    }

    /// Whether what units add to a hypothesis is known per group of units and not per bucket.
    pub(crate) fn by_group(&self, hypothesis: usize) -> bool {
        let HypothesisPlan { metric, segment, .. } = &self.hypotheses[hypothesis];
        !segment.is_all() || self.metrics[*metric].by_unit || self.spec.metrics[*metric].stratify_by.is_some()
    }

    /// The stream of a hypothesis.
    pub(crate) fn stream_of(&self, hypothesis: usize) -> Span {
        self.metrics[self.hypotheses[hypothesis].metric].maturity
    }

    /// Planned number of windows of the whole ramp that enter the comparison.
    pub(crate) fn horizon(&self) -> u32 {
        serin_kinds::horizon(&self.spec)
    }

    /// What a step requires before the next one. After the ramp, this is what the last step required.
    pub(crate) fn require(&self, step: i32) -> Require {
        self.spec.require(usize::try_from(step).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};
    use serin_schemas::records::Role;

    use super::*;

    const SPEC: &str = r#"{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
        "stable": {"version": "v1"}, "canary": {"version": "v2"}, "steps": [{"weight": "5%"}],
        "segments": [{"name": "origin", "source": {"input": "origin"}, "top": 2}, {"name": "tier", "source": {"input": "tier"}, "top": 1}],
        "groups": [{"name": "a"}, {"name": "b", "weight": 3}],
        "metrics": [{"name": "m", "kind": "rate", "source": "failed", "margin": {"absolute": 0.01}}]}"#;

    proptest! {
        /// The shares in a plan before the rollout are those that the analyzer uses during it.
        #[test]
        fn a_metric_has_one_share_of_the_budget(
            metrics in proptest::collection::vec((
                select(vec![Role::Gate, Role::Score, Role::Watch]), select(vec![None, Some("a"), Some("b")]),
                select(vec![&[][..], &["origin"], &["tier", "origin"]]), 0.0..4.0_f64,
            ), 1..7),
        ) {
            let mut spec: RolloutSpec = serde_json::from_str(SPEC).unwrap();
            let template = spec.metrics.remove(0);
            for (index, (role, group, segments, weight)) in metrics.into_iter().enumerate() {
                let mut metric = template.clone();
                metric.name = format!("m{index}");
                (metric.role, metric.group, metric.score_weight) = (role, group.map(str::to_owned), weight);
                metric.segments = segments.iter().map(|&name| name.to_owned()).collect();
                spec.metrics.push(metric);
            }
            let planned = budget::shares(&spec, &budget::expected(&spec));
            let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
            let segments = [("origin".to_owned(), values(&["JFK", "LGA"])), ("tier".to_owned(), values(&["gold"]))];
            let mut plan = Plan::new(spec.clone(), Rules::CURRENT);
            plan.freeze(&Frozen { segments: segments.into_iter().collect(), warmup_events: 1 });
            prop_assert_eq!(plan.hypotheses.len(), planned.len());
            for (metric, planned) in planned.iter().take(spec.metrics.len()).enumerate() {
                let own = plan.overall(metric).map(|index| plan.hypotheses[index].weight).unwrap_or_default();
                prop_assert!((own - planned).abs() < 1e-12, "{metric}: {own} {planned}");
            }
            let all: f64 = plan.hypotheses.iter().map(|hypothesis| hypothesis.weight).sum();
            prop_assert!(all < 1.0 + 1e-12);
        }
    }
}
