//! Turns a metric into a hypothesis. [`Hypothesis::new`](serin_statistics::Hypothesis::new) reports why a metric cannot become one.

use serin_spec::{Limit, MetricSpec, RolloutSpec, Step};
use serin_statistics::{Against, HypothesisSpec};

use crate::{Metric as _, Tested as _};

/// Longest planned rollout in windows: ten years of 10-second windows.
const MAX_HORIZON: i64 = 31_536_000;

pub(crate) fn of(metric: &MetricSpec, by_value: bool, horizon: u32, interval_alpha: f64) -> HypothesisSpec {
    let against = match metric.limit.and_then(Limit::both) {
        Some((pass, fail)) => Against::Limit { pass, fail },
        None => Against::Control(margin(metric.margin_or_default())),
    };
    let (measure, direction) = (metric.kind.measure(by_value), direction(metric.direction));
    HypothesisSpec { measure, direction, against, horizon, interval_alpha }
}

/// Planned number of windows in the whole ramp that enter the comparison. Restarts are spread over them.
pub fn horizon(spec: &RolloutSpec) -> u32 {
    let (window, settle) = (spec.window.0.0.max(1), i64::from(spec.settle));
    let compared = |step: &Step| (step.bake.max.0.0.max(0) / window - settle).max(0);
    let windows = spec.steps.iter().map(compared).fold(0, i64::saturating_add);
    windows.clamp(2, MAX_HORIZON) as u32
}

/// Converts a direction to the type of the statistics crate.
pub fn direction(direction: serin_spec::Direction) -> serin_statistics::Direction {
    match direction {
        serin_spec::Direction::LowerIsBetter => serin_statistics::Direction::LowerIsBetter,
        serin_spec::Direction::HigherIsBetter => serin_statistics::Direction::HigherIsBetter,
    }
}

/// Converts a margin to the type of the statistics crate.
pub fn margin(margin: serin_spec::Margin) -> serin_statistics::Margin {
    serin_statistics::Margin { absolute: margin.absolute, relative: margin.relative }
}
