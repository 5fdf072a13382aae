//! A metric as a file has it: a kind with source, margin or limit.

use serin_spec::{Margin, MetricSource, MetricSpec, WhenMissing, units::Duration};
#[cfg(feature = "statistics")]
use serin_statistics::HypothesisSpec;

use crate::Kind as _;

/// What follows for a metric from its kind.
pub trait Metric {
    /// The margin against control: as written, else that of the kind, else none. Not for a metric with a limit.
    fn margin_or_default(&self) -> Margin;

    /// Whether it can pass at planned looks ([`serin_spec::GroupSequential`]): its effect is one difference that is normal in the
    /// large, and each answer counts in it, so that the planned answers come. All others keep their e-process, and so does
    /// `refused`: files that plan looks were written without it, and its margin may need more answers than they plan.
    fn passes_by_looks(&self) -> bool;

    /// What stable's number is expected to be where nothing is known of it.
    fn usual_value(&self) -> f64;

    /// Why no canary can fail it while stable's number is `stable`, if so. It then passes once stable's answers show that.
    fn cannot_fail_at(&self, stable: f64) -> Option<String>;

    /// How long after its end a window of this metric is complete: what it needs of a request comes within that. Labels come
    /// within their maturity, the other answer to a mirrored call within one more window.
    fn settles_after(&self, window: Duration) -> Duration;

    /// The hypothesis that it becomes. `horizon`: planned windows of the whole rollout; `interval_alpha`: error rate of the interval of
    /// the effect; `by_value`: see [`Kind::empty`](crate::Kind::empty).
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
        let complete = !self.source.needs_label() || self.when_missing == WhenMissing::Zero;
        one_line && self.kind.is_one_mean() && complete && self.source != MetricSource::Refused
    }

    fn usual_value(&self) -> f64 {
        self.kind.usual_value(&self.source, self.maturity.0.as_secs_f64())
    }

    fn cannot_fail_at(&self, stable: f64) -> Option<String> {
        let can = self.limit.is_some() || self.kind.can_fail_at(self.direction, self.margin_or_default(), stable);
        let name = &self.name;
        (!can).then(|| {
            format!("the margin of {name} reaches beyond its range: while stable is at {stable}, no canary can fail it")
        })
    }

    fn settles_after(&self, window: Duration) -> Duration {
        if self.source.needs_label() {
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
