//! Formats values of a metric for users. All sentences and tables use this formatter, so that the same number looks the same everywhere.

use serin_spec::{MetricKind, MetricSource};

use crate::Kind as _;

/// The unit of a metric's values or of their differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shares, such as `8.3 %`. Their differences are points.
    Percent,
    /// Milliseconds, such as `12.3 ms`.
    Milliseconds,
    /// Seconds, such as `12.3 s`.
    Seconds,
    /// Numbers without a known unit.
    Plain,
}

impl Unit {
    /// The unit of the values.
    pub fn of(kind: &MetricKind, source: &MetricSource) -> Self {
        match source {
            _ if kind.is_share() => Self::Percent,
            MetricSource::Latency => Self::Milliseconds,
            MetricSource::LabelDelay(_) => Self::Seconds,
            _ => Self::Plain,
        }
    }

    /// The unit of the difference between canary and control, and of the margin. Distributions differ by shares, whatever
    /// their values are.
    pub fn of_difference(kind: &MetricKind, source: &MetricSource) -> Self {
        if kind.differs_by_shares() { Self::Percent } else { Self::of(kind, source) }
    }

    /// Formats a value: `8.3 %`, `12.3 ms`, `0.123`.
    pub fn value(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{} %", decimals(100.0 * value)),
            Self::Milliseconds => format!("{} ms", significant(value, 3)),
            Self::Seconds => format!("{} s", significant(value, 3)),
            Self::Plain => significant(value, 3),
        }
    }

    /// Formats a value for comparison with values close to it, with one digit more: `8.26 %`, `304.8 ms`, `0.4995`.
    pub fn precise(self, value: f64) -> String {
        match self {
            Self::Percent => format!("{} %", two_decimals(100.0 * value)),
            Self::Milliseconds => format!("{} ms", significant(value, 4)),
            Self::Seconds => format!("{} s", significant(value, 4)),
            Self::Plain => significant(value, 4),
        }
    }

    /// Formats a difference or margin without its sign: `1 point`, `2.5 points`, `12 ms`.
    pub fn distance(self, value: f64) -> String {
        let number = self.number(value.abs());
        number.clone() + self.after(&number)
    }

    /// Formats a difference with its sign: `+2.5 points`.
    pub fn difference(self, value: f64) -> String {
        let number = self.signed(value);
        number.clone() + self.after(number.trim_start_matches(['+', '-']))
    }

    /// Formats an interval of differences: `-0.5 .. +2.5 points`. An end that is not bounded yet is `?`.
    pub fn interval(self, low: Option<f64>, high: Option<f64>) -> String {
        let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), |end| self.signed(end));
        format!("{} .. {}{}", end(low), end(high), self.after(""))
    }

    fn number(self, value: f64) -> String {
        significant(if self == Self::Percent { 100.0 * value } else { value }, 2)
    }

    fn signed(self, value: f64) -> String {
        let number = self.number(value);
        if value > 0.0 { format!("+{number}") } else { number }
    }

    /// The unit that follows the number of a difference or margin.
    fn after(self, number: &str) -> &'static str {
        match self {
            Self::Percent if number == "1" => " point",
            Self::Percent => " points",
            Self::Milliseconds => " ms",
            Self::Seconds => " s",
            Self::Plain => "",
        }
    }
}

/// Percentages have one decimal from 1 up, else two significant digits.
fn decimals(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1.0 { format!("{:.1}", value + 0.0) } else { significant(value, 2) }
}

/// At most two decimals; below 0.1, two significant digits.
fn two_decimals(value: f64) -> String {
    if value.abs() < 0.1 {
        return significant(value, 2);
    }
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Formats a count as a whole number with thousands separators: `57,137`.
pub fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Formats a number with `digits` significant digits and without trailing zeros. It uses an exponent only for numbers that
/// would otherwise be too long to read: from 1e15 up and below 1e-9.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{}", value + 0.0);
    }
    let magnitude = libm::floor(libm::log10(value.abs())) as i32;
    if !(-9..15).contains(&magnitude) {
        let places = (digits - 1).max(0) as usize;
        return format!("{value:.places$e}");
    }
    let places = (digits - 1 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, -0.0, 1.0, 12.345, 1234.5, 0.012_34, 100.0, 99.99].map(|value| significant(value, 3));
        assert_eq!(texts, ["0", "0", "1", "12.3", "1234", "0.0123", "100", "100"]);
        assert_eq!([0.0, 0.052, 1.0, 23.456].map(decimals), ["0.0", "0.052", "1.0", "23.5"]);
        let ends = [1e300, -2.5e18, 9.9e14, 2e-9, 1e-20, f64::NAN].map(|value| significant(value, 2));
        assert_eq!(ends, ["1.0e300", "-2.5e18", "990000000000000", "0.000000002", "1.0e-20", "NaN"]);
    }

    #[test]
    fn counts_have_separators() {
        assert_eq!([0.0, 999.6, 57_137.2, 1_681_237.0].map(count), ["0", "1,000", "57,137", "1,681,237"]);
    }

    #[test]
    fn values_that_are_compared_have_one_digit_more() {
        let shares = [0.0, 0.000_123_4, 0.0206, 0.08264, 0.1, 0.98456, 1.0].map(|share| Unit::Percent.precise(share));
        assert_eq!(shares, ["0 %", "0.012 %", "2.06 %", "8.26 %", "10 %", "98.46 %", "100 %"]);
        let others = [Unit::Milliseconds, Unit::Seconds, Unit::Plain].map(|unit| unit.precise(304.789));
        assert_eq!(others, ["304.8 ms", "304.8 s", "304.8"]);
        assert_eq!(Unit::Plain.precise(0.499_51), "0.4995");
    }

    #[test]
    fn values_and_differences_carry_their_unit() {
        let of = |unit: Unit| {
            [unit.value(0.0826), unit.distance(-0.01), unit.difference(0.025), unit.interval(Some(-0.005), Some(0.01))]
                .join(" | ")
        };
        assert_eq!(of(Unit::Percent), "8.3 % | 1 point | +2.5 points | -0.5 .. +1 points");
        assert_eq!(of(Unit::Milliseconds), "0.0826 ms | 0.01 ms | +0.025 ms | -0.005 .. +0.01 ms");
        assert_eq!(of(Unit::Seconds), "0.0826 s | 0.01 s | +0.025 s | -0.005 .. +0.01 s");
        assert_eq!(of(Unit::Plain), "0.0826 | 0.01 | +0.025 | -0.005 .. +0.01");
        assert_eq!(Unit::Milliseconds.interval(Some(-3.0), None), "-3 .. ? ms");
        assert_eq!(
            [0.0, -0.01, 0.01].map(|value| Unit::Percent.difference(value)),
            ["0 points", "-1 point", "+1 point"]
        );
    }

    #[test]
    fn a_distribution_differs_by_shares_whatever_its_values_are() {
        let (kind, source) = (MetricKind::Distribution, MetricSource::Latency);
        assert_eq!(
            (Unit::of(&kind, &source), Unit::of_difference(&kind, &source)),
            (Unit::Milliseconds, Unit::Percent)
        );
        let (kind, source) = (MetricKind::Quantile { level: 0.99 }, MetricSource::Latency);
        assert_eq!(Unit::of_difference(&kind, &source), Unit::Milliseconds);
        assert_eq!(Unit::of_difference(&MetricKind::Classes, &MetricSource::Status), Unit::Percent);
    }
}
