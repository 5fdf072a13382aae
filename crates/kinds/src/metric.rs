//! A metric as the rollout file defines it: a kind with a source and a margin or limit.

use serin_spec::{Margin, MetricSource, MetricSpec, WhenMissing, units::Duration};
#[cfg(feature = "statistics")]
use serin_statistics::HypothesisSpec;

use crate::{Kind as _, Unit};

/// What a metric derives from its kind.
pub trait Metric {
    /// The margin against control: the one in the rollout file or, if that is not set, the default of the kind, if it has one. Does not
    /// apply to a metric with a limit.
    fn margin_or_default(&self) -> Margin;

    /// Whether the metric can pass at planned looks ([`serin_spec::GroupSequential`]). Its effect must be a single,
    /// asymptotically normal difference to which every answer contributes, so that the planned number of answers arrives.
    /// All other metrics pass by their e-process. So does `refused`: rollout files with planned looks were written before it
    /// existed, and its margin may need more answers than they plan.
    fn passes_by_looks(&self) -> bool;

    /// The value to assume for stable when nothing is known.
    fn default_value(&self) -> f64;

    /// Why no canary can fail this metric while stable's value is `stable`, if so. The metric then passes once stable's
    /// answers show this.
    fn cannot_fail_at(&self, stable: f64) -> Option<String>;

    /// How long after its end a window of this metric is complete. Labels arrive within their maturity, and the second
    /// answer to a mirrored call within one more window.
    fn settles_after(&self, window: Duration) -> Duration;

    /// The hypothesis of this metric. `horizon`: planned windows of the whole rollout; `interval_alpha`: error rate of the
    /// interval of the effect; `by_value`: see [`Kind::empty`](crate::Kind::empty).
    #[cfg(feature = "statistics")]
    fn hypothesis(&self, by_value: bool, horizon: u32, interval_alpha: f64) -> HypothesisSpec;
}

impl Metric for MetricSpec {
    fn margin_or_default(&self) -> Margin {
        self.margin.or(self.kind.default_margin()).unwrap_or_default()
    }

    fn passes_by_looks(&self) -> bool {
        let margin = self.margin_or_default();
        let one_line = self.limit.is_none() && (margin.absolute.is_some() != margin.relative.is_some());
        let complete = self.filters.is_empty() && (!self.needs_label() || self.when_missing == WhenMissing::Zero);
        one_line && self.kind.is_one_mean() && complete && self.source != MetricSource::Refused
    }

    fn default_value(&self) -> f64 {
        self.kind.default_value(&self.source, self.maturity.0.as_secs_f64())
    }

    fn cannot_fail_at(&self, stable: f64) -> Option<String> {
        let can = self.limit.is_some() || self.kind.can_fail_at(self.direction, self.margin_or_default(), stable);
        let name = &self.name;
        (!can).then(|| {
            let stable = Unit::of(&self.kind, &self.source).precise(stable);
            format!("the margin of {name} reaches beyond its range: while stable is at {stable}, no canary can fail it")
        })
    }

    fn settles_after(&self, window: Duration) -> Duration {
        if self.needs_label() {
            self.maturity
        } else if self.kind.is_paired() {
            window
        } else {
            Duration::default()
        }
    }

    #[cfg(feature = "statistics")]
    fn hypothesis(&self, by_value: bool, horizon: u32, interval_alpha: f64) -> HypothesisSpec {
        crate::hypothesis::of(self, by_value, horizon, interval_alpha)
    }
}
