//! What will be tested: the spec, and after warm-up the list of hypotheses with their weights. Fixed before the first canary
//! request; derived from the Control records alone.

use std::collections::{BTreeMap, BTreeSet};

use serin_schemas::{
    ids::Span,
    records::{Role, Segment},
};
use serin_sketches::Summary;
use serin_spec::{Frozen, Limit, MetricKind, Mode, Require, RolloutSpec, Rules, Step, TrafficSource};
use serin_statistics::{LooksPlan, Scope, rollback_weights};

/// The segment value that stands for all values that are not judged alone.
pub(crate) const OTHER: &str = "other";

/// Longest planned rollout in windows: ten years of 10-second windows.
const MAX_HORIZON: i64 = 31_536_000;

/// What one metric needs beyond its spec.
#[derive(Clone, Debug)]
pub(crate) struct MetricPlan {
    /// Its stream.
    pub(crate) maturity: Span,
    /// Of what kind its summaries are, and with which cap.
    pub(crate) empty: Summary,
    /// Its summaries are of both answers to mirrored calls.
    pub(crate) paired: bool,
    /// It is held against numbers: control is not looked at.
    pub(crate) one_arm: bool,
    /// What units add is known by their summaries, for it compares ranks or classes; else by sums.
    pub(crate) by_unit: bool,
}

/// Metrics that count once in the score and share one part of the budget.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupPlan {
    pub(crate) name: String,
    /// Weight in the score.
    pub(crate) score_weight: f64,
    /// Those of its metrics that decide, with their weight in it.
    pub(crate) members: Vec<(usize, f64)>,
}

/// One metric in one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HypothesisPlan {
    /// Index of the metric in the spec.
    pub(crate) metric: usize,
    /// The segment.
    pub(crate) segment: Segment,
    /// Share of the false-rollback budget; 0 for `watch`.
    pub(crate) weight: f64,
}

/// The plan of one rollout.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) spec: RolloutSpec,
    /// What counts mean and when a step is taken: the one place to ask is [`Rules`].
    pub(crate) rules: Rules,
    /// Arms are assigned by a key, and no finding may rest on a handful of units.
    pub(crate) guarded: bool,
    /// Parallel to `spec.metrics`.
    pub(crate) metrics: Vec<MetricPlan>,
    /// Groups with a metric that decides.
    pub(crate) groups: Vec<GroupPlan>,
    /// What is tested, in the order of the spec; empty until warm-up has frozen the segments.
    pub(crate) hypotheses: Vec<HypothesisPlan>,
    by_name: BTreeMap<String, usize>,
    /// Parallel to `metrics`.
    by_segment: Vec<BTreeMap<Segment, usize>>,
    streams: BTreeSet<Span>,
}

/// Whether others report the calls: their windows close by a mark of their own.
pub(crate) fn is_external(spec: &RolloutSpec) -> bool {
    spec.traffic == TrafficSource::External || spec.mode == Mode::Observe
}

impl Plan {
    /// The plan of a spec, without hypotheses yet.
    pub(crate) fn new(spec: RolloutSpec, rules: Rules) -> Self {
        let metrics: Vec<MetricPlan> = spec
            .metrics
            .iter()
            .map(|metric| MetricPlan {
                maturity: metric.settles_after(spec.window).0,
                empty: metric.kind.empty(rules.count_by_value()),
                paired: metric.kind == MetricKind::Disagreement,
                one_arm: metric.limit.and_then(Limit::both).is_some(),
                by_unit: matches!(metric.kind.empty(true), Summary::Log(_) | Summary::Classes(_)),
            })
            .collect();
        let by_name = spec.metrics.iter().enumerate().map(|(index, metric)| (metric.name.clone(), index)).collect();
        // Stream 0 carries the counts of the arms, so it is always there.
        let streams = metrics.iter().map(|metric| metric.maturity).chain([Span::default()]).collect();
        let groups = groups(&spec);
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
        let shares: Vec<(Scope, f64)> = hypotheses.iter().map(|hypothesis| self.share(hypothesis)).collect();
        for (hypothesis, weight) in hypotheses.iter_mut().zip(rollback_weights(&shares)) {
            hypothesis.weight = weight;
        }
        self.by_segment = vec![BTreeMap::new(); self.metrics.len()];
        for (index, hypothesis) in hypotheses.iter().enumerate() {
            self.by_segment[hypothesis.metric].insert(hypothesis.segment.clone(), index);
        }
        self.hypotheses = hypotheses;
    }

    /// Share of the rollback budget before scaling: a gate counts double, `watch` not at all. A group has the share of its
    /// strictest member, and divides it by weight.
    fn share(&self, hypothesis: &HypothesisPlan) -> (Scope, f64) {
        let share_of = |metric: usize| match self.spec.metrics[metric].role {
            Role::Gate => 2.0,
            Role::Score => 1.0,
            Role::Watch => 0.0,
        };
        let weight_in = |group: &GroupPlan| {
            let own = group.members.iter().find(|(metric, _)| *metric == hypothesis.metric)?.1;
            let strictest = group.members.iter().map(|&(metric, _)| share_of(metric)).fold(0.0, f64::max);
            let all: f64 = group.members.iter().map(|member| member.1).sum();
            Some(if all > 0.0 { strictest * own / all } else { 0.0 })
        };
        let grouped = self.groups.iter().find_map(weight_in);
        let share = grouped.unwrap_or_else(|| share_of(hypothesis.metric));
        (if hypothesis.segment.is_all() { Scope::Overall } else { Scope::Segment }, share)
    }

    /// Whether a metric counts in a group rather than for itself.
    pub(crate) fn is_grouped(&self, metric: usize) -> bool {
        self.groups.iter().any(|group| group.members.iter().any(|member| member.0 == metric))
    }

    /// Index of a metric's hypothesis over all traffic.
    pub(crate) fn overall(&self, metric: usize) -> Option<usize> {
        self.hypothesis_of(metric, &Segment::all())
    }

    /// Whether others report the calls.
    pub(crate) fn is_external(&self) -> bool {
        is_external(&self.spec)
    }

    /// Whether arms are assigned by a key, so that one unit brings many answers.
    pub(crate) fn is_sticky(&self) -> bool {
        self.spec.assignment.sticky.is_some()
    }

    /// The segment values that are judged, in a fixed order: what populations are counted by.
    pub(crate) fn values(&self) -> BTreeSet<&Segment> {
        self.hypotheses.iter().map(|hypothesis| &hypothesis.segment).filter(|segment| !segment.is_all()).collect()
    }

    /// Whether some metric lives on the stream of windows with this maturity.
    pub(crate) fn has_stream(&self, maturity: Span) -> bool {
        self.streams.contains(&maturity)
    }

    /// Whether any metric waits for labels.
    pub(crate) fn needs_labels(&self) -> bool {
        self.spec.metrics.iter().any(|metric| metric.source.needs_label())
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

    /// The step in which a metric passes at planned looks over all traffic, and these.
    pub(crate) fn looks(&self, metric: usize) -> Option<(i32, LooksPlan)> {
        let (step, planned) = self.spec.planned_looks()?;
        let alpha = self.spec.decision.false_promotion;
        let plan = LooksPlan { looks: planned.looks, answers: planned.answers, alpha };
        self.spec.metrics[metric].passes_by_looks().then_some((i32::try_from(step).unwrap_or(i32::MAX), plan))
    }

    /// The looks of a hypothesis, see [`Self::looks`].
    pub(crate) fn looks_of(&self, hypothesis: usize) -> Option<(i32, LooksPlan)> {
        let HypothesisPlan { metric, segment, .. } = self.hypotheses.get(hypothesis)?;
        self.looks(*metric).filter(|_| segment.is_all())
    }

    /// The hypotheses of single values that a hypothesis over all traffic is stratified by, in their order; empty: it is not.
    pub(crate) fn strata(&self, hypothesis: usize) -> Vec<usize> {
        let HypothesisPlan { metric, segment, .. } = &self.hypotheses[hypothesis];
        let Some(dimension) = self.spec.metrics[*metric].stratify_by.as_deref().filter(|_| segment.is_all()) else {
            return Vec::new();
        };
        let own = &self.by_segment[*metric];
        own.iter().filter(|(segment, _)| segment.dimension == dimension).map(|(_, &index)| index).collect()
    }

    /// Whether what units add to a hypothesis is known per group of units instead of per bucket.
    pub(crate) fn by_group(&self, hypothesis: usize) -> bool {
        let HypothesisPlan { metric, segment, .. } = &self.hypotheses[hypothesis];
        !segment.is_all() || self.metrics[*metric].by_unit || self.spec.metrics[*metric].stratify_by.is_some()
    }

    /// The stream of a hypothesis.
    pub(crate) fn stream_of(&self, hypothesis: usize) -> Span {
        self.metrics[self.hypotheses[hypothesis].metric].maturity
    }

    /// Planned number of windows of the whole ramp that enter the comparison: what restarts are spread over.
    pub(crate) fn horizon(&self) -> u32 {
        let (window, settle) = (self.spec.window.0.0.max(1), i64::from(self.spec.settle));
        let compared = |step: &Step| (step.bake.max.0.0.max(0) / window - settle).max(0);
        let windows = self.spec.steps.iter().map(compared).fold(0, i64::saturating_add);
        windows.clamp(2, MAX_HORIZON) as u32
    }

    /// What a step needs before the next; after the ramp what the last one needed.
    pub(crate) fn require(&self, step: i32) -> Require {
        self.spec.require(usize::try_from(step).unwrap_or(0))
    }
}

/// The groups of a spec, with those of their metrics that decide.
fn groups(spec: &RolloutSpec) -> Vec<GroupPlan> {
    let members = |name: &str| {
        let metrics = spec.metrics.iter().enumerate();
        let own = metrics.filter(|(_, metric)| metric.group.as_deref() == Some(name) && metric.role != Role::Watch);
        own.map(|(index, metric)| (index, metric.score_weight)).collect::<Vec<_>>()
    };
    let group = |group: &serin_spec::GroupSpec| GroupPlan {
        name: group.name.clone(),
        score_weight: group.weight,
        members: members(&group.name),
    };
    spec.groups.iter().map(group).filter(|group| !group.members.is_empty()).collect()
}
