//! Ranges of values, and whether harm can exceed a margin within them.

use serin_spec::{Direction, Margin};

use crate::usual::allowed;

/// Values from `min` to `max`; either end may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl Range {
    /// Any number.
    pub const ALL: Self = Self { min: f64::NEG_INFINITY, max: f64::INFINITY };
    /// All numbers from 0 up.
    pub const POSITIVE: Self = Self { min: 0.0, max: f64::INFINITY };
    /// All shares.
    pub const SHARES: Self = Self { min: 0.0, max: 1.0 };

    /// The intersection of both ranges; `None` if it is empty or a single value.
    #[must_use]
    pub fn within(self, other: Self) -> Option<Self> {
        let common = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        (common.min < common.max).then_some(common)
    }

    /// Whether a canary can be worse than the margin allows while control's value is `control`. With an absolute and a
    /// relative margin, harm must exceed both.
    pub fn can_fail_at(self, direction: Direction, margin: Margin, control: f64) -> bool {
        let allowed = allowed(control, margin);
        match direction {
            Direction::LowerIsBetter => control + allowed < self.max,
            Direction::HigherIsBetter => control - allowed > self.min,
        }
    }

    /// Whether there is any value of control at which a canary can be worse than the margin allows. Control at the good end
    /// leaves the most room.
    pub fn can_fail(self, direction: Direction, margin: Margin) -> bool {
        let best = if direction == Direction::LowerIsBetter { self.min } else { self.max };
        if best.is_finite() {
            return self.can_fail_at(direction, margin, best);
        }
        direction == Direction::LowerIsBetter || margin.relative.unwrap_or(0.0) < 1.0 || self.min < 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serin_spec::MetricKind;

    use super::*;
    use crate::Kind as _;
    use Direction::{HigherIsBetter, LowerIsBetter};

    fn margin(absolute: Option<f64>, relative: Option<f64>) -> Margin {
        Margin { absolute, relative }
    }

    #[test]
    fn a_margin_is_exceeded_by_a_value_that_exists() {
        let at = |control, direction| MetricKind::Rate.can_fail_at(direction, margin(Some(0.02), None), control);
        assert_eq!([0.01, 0.02, 0.03, 0.0].map(|control| at(control, HigherIsBetter)), [false, false, true, false]);
        assert_eq!([0.97, 0.98, 0.99, 1.0].map(|control| at(control, LowerIsBetter)), [true, false, false, false]);
        // With an absolute and a relative margin, harm must exceed both.
        assert!(!Range::SHARES.can_fail_at(LowerIsBetter, margin(Some(0.02), Some(2.0)), 0.4));
        assert!(Range::SHARES.can_fail_at(LowerIsBetter, margin(Some(0.02), Some(2.0)), 0.3));
        let scores = Range { min: 5.0, max: 10.0 };
        for (absolute, relative, direction, can) in [
            (Some(4.9), None, LowerIsBetter, true),
            (Some(5.0), None, LowerIsBetter, false),
            (None, Some(0.9), LowerIsBetter, true),
            (None, Some(1.0), LowerIsBetter, false),
            (None, Some(0.4), HigherIsBetter, true),
            (None, Some(0.5), HigherIsBetter, false),
        ] {
            assert_eq!(scores.can_fail(direction, margin(absolute, relative)), can, "{absolute:?} {relative:?}");
        }
        assert!(Range::POSITIVE.can_fail(LowerIsBetter, margin(Some(1e9), Some(3.0))));
        assert!(Range::POSITIVE.can_fail(HigherIsBetter, margin(Some(1e9), Some(0.5))));
        assert!(!Range::POSITIVE.can_fail(HigherIsBetter, margin(None, Some(1.0))));
        let apart =
            |kind: MetricKind, absolute| kind.can_fail(Range::SHARES, LowerIsBetter, margin(Some(absolute), None));
        assert_eq!([0.97, 0.98].map(|most| apart(MetricKind::Distribution, most)), [true, false]);
        assert_eq!([0.99, 1.0].map(|most| apart(MetricKind::Classes, most)), [true, false]);
    }

    proptest! {
        #[test]
        fn no_control_leaves_more_room_than_the_good_end(
            min in 0.0..5.0_f64, width in 0.1..9.0_f64, place in 0.0..1.0_f64,
            absolute in proptest::option::of(0.0..9.0_f64), relative in proptest::option::of(0.0..0.99_f64),
            lower: bool,
        ) {
            let (range, margin) = (Range { min, max: min + width }, margin(absolute, relative));
            let direction = if lower { LowerIsBetter } else { HigherIsBetter };
            let control = min + place * width;
            prop_assert!(!range.can_fail_at(direction, margin, control) || range.can_fail(direction, margin));
        }
    }
}
