//! What will be tested: the spec, and after warm-up the list of hypotheses with their weights. Fixed before the first canary
//! request; derived from the Control records alone.

use std::collections::{BTreeMap, BTreeSet};

use serin_rollout::{Frozen, Require, RolloutSpec};
use serin_schemas::{
    ids::Span,
    records::{Role, Segment},
};
use serin_sketches::SummaryKind;
use serin_statistics::{Scope, rollback_weights};

use crate::window::summary_kind;

/// The segment value that stands for all values that are not judged alone.
pub(crate) const OTHER: &str = "other";

/// Longest planned rollout in windows: ten years of 10-second windows.
const MAX_HORIZON: i64 = 31_536_000;

/// What one metric needs beyond its spec.
#[derive(Clone, Debug)]
pub(crate) struct MetricPlan {
    /// Its stream.
    pub(crate) maturity: Span,
    /// The kind of its summaries.
    pub(crate) summary: SummaryKind,
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
    /// Parallel to `spec.metrics`.
    pub(crate) metrics: Vec<MetricPlan>,
    /// What is tested, in the order of the spec; empty until warm-up has frozen the segments.
    pub(crate) hypotheses: Vec<HypothesisPlan>,
    by_name: BTreeMap<String, usize>,
    /// Parallel to `metrics`.
    by_segment: Vec<BTreeMap<Segment, usize>>,
    streams: BTreeSet<Span>,
}

impl Plan {
    /// The plan of a spec, without hypotheses yet.
    pub(crate) fn new(spec: RolloutSpec) -> Self {
        let metrics: Vec<MetricPlan> = spec
            .metrics
            .iter()
            .map(|metric| MetricPlan {
                maturity: if metric.source.needs_label() { metric.maturity.0 } else { Span::default() },
                summary: summary_kind(&metric.kind),
            })
            .collect();
        let by_name = spec.metrics.iter().enumerate().map(|(index, metric)| (metric.name.clone(), index)).collect();
        // Stream 0 carries the counts of the arms, so it is always there.
        let streams = metrics.iter().map(|metric| metric.maturity).chain([Span::default()]).collect();
        Self { spec, metrics, hypotheses: Vec::new(), by_name, by_segment: Vec::new(), streams }
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

    /// Share of the rollback budget before scaling: a gate counts double, `watch` not at all.
    fn share(&self, hypothesis: &HypothesisPlan) -> (Scope, f64) {
        let share = match self.spec.metrics[hypothesis.metric].role {
            Role::Gate => 2.0,
            Role::Score => 1.0,
            Role::Watch => 0.0,
        };
        (if hypothesis.segment.is_all() { Scope::Overall } else { Scope::Segment }, share)
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

    /// The stream of a hypothesis.
    pub(crate) fn stream_of(&self, hypothesis: usize) -> Span {
        self.metrics[self.hypotheses[hypothesis].metric].maturity
    }

    /// Planned number of windows of the whole ramp: what restarts are spread over.
    pub(crate) fn horizon(&self) -> u32 {
        let window = self.spec.window.0.0.max(1);
        let windows: i64 =
            self.spec.steps.iter().map(|step| step.bake.max.0.0.max(0) / window).fold(0, i64::saturating_add);
        windows.clamp(2, MAX_HORIZON) as u32
    }

    /// What a step needs before the next; after the ramp what the last one needed.
    pub(crate) fn require(&self, step: i32) -> Require {
        let index = usize::try_from(step).unwrap_or(0);
        self.spec.steps.get(index).or(self.spec.steps.last()).map_or(Require::default(), |step| step.require)
    }
}
