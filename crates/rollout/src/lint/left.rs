//! The values that the conditions of a metric leave.

use serin_kinds::Range;
use serin_spec::{Filter, FilterSubject, FilterTest, MetricSpec};

/// The values of one output, label or segment that all conditions of a metric leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    /// The numbers: `at_least <= x < below`.
    at_least: f64,
    below: f64,
    /// The only number.
    number: Option<f64>,
    /// The only class or segment value.
    pub(super) class: Option<&'a str>,
    /// Whether one condition leaves out what another one asks for.
    contradicts: bool,
}

impl<'a> Left<'a> {
    /// What the conditions on this subject leave.
    pub(super) fn of(metric: &'a MetricSpec, subject: FilterSubject<'_>) -> Self {
        let mut left =
            Self { at_least: f64::NEG_INFINITY, below: f64::INFINITY, number: None, class: None, contradicts: false };
        for filter in metric.filters.iter().filter(|filter| filter.subject() == Some(subject)) {
            match filter.test() {
                Some(FilterTest::Class(class)) => {
                    left.contradicts |= left.class.is_some_and(|other| other != class);
                    left.class = Some(class);
                }
                Some(FilterTest::Number(number)) => {
                    left.contradicts |= left.number.is_some_and(|other| other.total_cmp(&number).is_ne());
                    left.number = Some(number);
                }
                Some(FilterTest::Range { at_least, below }) => {
                    (left.at_least, left.below) = (left.at_least.max(at_least), left.below.min(below));
                }
                None => {}
            }
        }
        left.contradicts |= left.at_least >= left.below || left.number.is_some_and(|number| !left.takes(number));
        left
    }

    /// Whether a number meets the conditions with `above` and `below`.
    pub(super) fn takes(&self, number: f64) -> bool {
        (self.at_least..self.below).contains(&number)
    }

    /// The numbers as a range. Its upper end may be the first number that is left out.
    pub(super) fn range(&self) -> Range {
        let (min, max) = self.number.map_or((self.at_least, self.below), |number| (number, number));
        Range { min, max }
    }

    /// Whether all numbers that are left within `range` reach a threshold (`true`) or none does (`false`); `None` if some do.
    pub(super) fn reach(&self, threshold: f64, range: Range) -> Option<bool> {
        let own = self.range();
        if own.min.max(range.min) >= threshold {
            Some(true)
        } else if self.number.is_some() || self.below <= threshold || range.max < threshold {
            Some(false)
        } else {
            None
        }
    }
}

/// The first condition on an output, label or segment of which the conditions together leave no value.
pub(super) fn contradicting(metric: &MetricSpec) -> Option<&Filter> {
    let contradicts = |filter: &&Filter| filter.subject().is_some_and(|subject| Left::of(metric, subject).contradicts);
    metric.filters.iter().find(contradicts)
}
