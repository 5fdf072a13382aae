//! What several kinds are expected to show where nothing is known of them, and refuse in the same words.

use serin_spec::{Margin, MetricSource};
#[cfg(feature = "statistics")]
use serin_statistics::planning::Expected;

use crate::{Gives, Refusal};

/// Standard deviation of the logarithm of a positive quantity.
pub(crate) const SIGMA: f64 = 0.5;

/// The smallest share, or number of events per answer, that is planned with: what never happens is planned as what hardly ever does.
pub(crate) const RAREST: f64 = 1e-6;

/// The part of a margin that counts where control's number is `value`: with both, harm must exceed both.
pub(crate) fn allowed(value: f64, margin: Margin) -> f64 {
    margin.absolute.unwrap_or(0.0).max(margin.relative.unwrap_or(0.0) * value.abs())
}

/// Of a positive quantity: a tenth of the maturity (in seconds) for the delay of labels, else 100, as for latencies.
pub(crate) fn positive(source: &MetricSource, maturity: f64) -> f64 {
    if source.is_delay() { maturity / 10.0 } else { 100.0 }
}

pub(crate) fn no_share(value: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&value)).then(|| format!("{value} is not a share: it must lie between 0 and 1"))
}

pub(crate) fn not_positive(value: f64) -> Option<String> {
    (value <= 0.0).then(|| format!("{value} is not possible: it must be above 0"))
}

/// Kinds of positive quantities refuse what is none.
pub(crate) fn no_quantity(gives: Gives) -> Option<Refusal> {
    match gives {
        Gives::YesNo | Gives::Reason => Some(Refusal::new("a yes or no has no quantile", "use `rate`")),
        Gives::Class => Some(Refusal::class()),
        Gives::Quantity | Gives::Number => None,
    }
}

impl Refusal {
    /// A class where a number is needed.
    pub(crate) fn class() -> Self {
        Self::new("its source is a class, not a number", "use `classes`, or name one class with `is`")
    }
}

/// The formulas need some of both.
#[cfg(feature = "statistics")]
pub(crate) fn expected_share(value: f64) -> Expected {
    Expected::Rate { control: value.clamp(RAREST, 1.0 - RAREST) }
}

#[cfg(test)]
mod tests {
    use serin_spec::MetricKind;

    use crate::Kind as _;

    #[test]
    fn spreads_are_those_of_the_laws() {
        let spread = |kind: MetricKind, value| kind.usual_spread(value).unwrap_or(f64::NAN);
        let mean = spread(MetricKind::Mean { min: 0.0, max: 10.0 }, 8.0);
        assert!((mean - 10.0 * (0.16_f64 / 11.0).sqrt()).abs() < 1e-12);
        assert!((spread(MetricKind::Count, 0.25) - 0.5).abs() < 1e-12);
        assert_eq!(MetricKind::Classes.usual_spread(0.2), None);
    }
}
