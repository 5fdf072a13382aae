//! Default values and refusals that several kinds share.

use serin_spec::{Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::planning::Expected;

use crate::{Refusal, SourceType};

/// Standard deviation of the logarithm of a positive quantity.
pub(crate) const SIGMA: f64 = 0.5;

/// The smallest share, or number of events per answer, that a plan uses. Something that never happens is planned as something very rare.
pub(crate) const RAREST: f64 = 1e-6;

/// The part of a margin that applies when control's value is `value`. With an absolute and a relative margin, harm must exceed both.
pub(crate) fn allowed(value: f64, margin: Margin) -> f64 {
    margin.absolute.unwrap_or(0.0).max(margin.relative.unwrap_or(0.0) * value.abs())
}

/// The default for a positive quantity: a tenth of the maturity (in seconds) for the delay of labels, else 100, as for latencies.
pub(crate) fn positive(source: &MetricSource, maturity: f64) -> f64 {
    if source.is_delay() { maturity / 10.0 } else { 100.0 }
}

pub(crate) fn not_a_share(value: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&value)).then(|| format!("{value} is not a share: it must be between 0 and 1"))
}

pub(crate) fn not_positive(value: f64) -> Option<String> {
    (value <= 0.0).then(|| format!("{value} is not possible: it must be above 0"))
}

/// Kinds of positive quantities refuse sources that are not one.
pub(crate) fn not_a_quantity(source_type: SourceType) -> Option<Refusal> {
    match source_type {
        SourceType::YesNo | SourceType::Reason => Some(Refusal::new("a yes/no value has no quantile", "use `rate`")),
        SourceType::Class => Some(Refusal::class()),
        SourceType::Quantity | SourceType::Number => None,
    }
}

impl Refusal {
    /// Refuses a class where a number is needed.
    pub(crate) fn class() -> Self {
        Self::new("the source is a class, not a number", "use `classes`, or name one class with `is`")
    }
}

/// Moves the share away from 0 and 1, because the formulas need both outcomes.
#[cfg(feature = "statistics")]
pub(crate) fn expected_share(value: f64) -> Expected {
    Expected::Rate { control: value.clamp(RAREST, 1.0 - RAREST) }
}

#[cfg(test)]
mod tests {
    use serin_spec::MetricKind;

    use crate::Kind as _;

    #[test]
    fn spreads_are_those_of_the_distributions() {
        let spread = |kind: MetricKind, value| kind.default_spread(value).unwrap_or(f64::NAN);
        let mean = spread(MetricKind::Mean { min: 0.0, max: 10.0 }, 8.0);
        assert!((mean - 10.0 * (0.16_f64 / 11.0).sqrt()).abs() < 1e-12);
        assert!((spread(MetricKind::Count, 0.25) - 0.5).abs() < 1e-12);
        assert_eq!(MetricKind::Classes.default_spread(0.2), None);
    }
}
