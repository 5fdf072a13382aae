//! Numbers of the planner that must not be confused with others: wall-clock time, the index of a step, and shares as the state contains
//! them.
//!
//! The state and the records keep plain numbers: the conversions are here.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serin_schemas::ids::EventTime;

/// A point of wall-clock time, in milliseconds since the Unix epoch. Bake, hold and monitor run in [`EventTime`] instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMs(pub i64);

impl WallMs {
    /// Milliseconds since an earlier point; negative if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same point as the time of an event.
    #[must_use]
    pub fn as_event_time(self) -> EventTime {
        EventTime(self.0.saturating_mul(1000))
    }
}

/// The index of a step of the ramp, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIndex(pub usize);

impl StepIndex {
    /// The step that a record or the state contains; `None` for -1, which is before the first step.
    pub fn of_number(number: i32) -> Option<Self> {
        usize::try_from(number).ok().map(Self)
    }

    /// The number of a step in records and in the state: -1 before the first step.
    pub fn number(step: Option<Self>) -> i32 {
        step.map_or(-1, |step| i32::try_from(step.0).unwrap_or(i32::MAX))
    }
}

/// Steps in the state.
pub(super) mod step_number {
    use super::{Deserialize as _, Deserializer, Serializer, StepIndex};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(step: &Option<StepIndex>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(StepIndex::number(*step))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StepIndex>, D::Error> {
        i32::deserialize(from).map(StepIndex::of_number)
    }
}

/// Shares in the state: in 1/10000.
pub(super) mod share_number {
    use serin_spec::Share;

    use super::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(share: &Share, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(share.0)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
        i32::deserialize(from).map(Share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbers_on_the_wire() {
        assert_eq!([None, Some(StepIndex(0)), Some(StepIndex(3))].map(StepIndex::number), [-1, 0, 3]);
        assert_eq!([-5, -1, 0, 3].map(StepIndex::of_number), [None, None, Some(StepIndex(0)), Some(StepIndex(3))]);
        assert_eq!(serde_json::to_string(&WallMs(7)).unwrap(), "7");
        assert_eq!(
            (WallMs(i64::MIN).since(WallMs(1)), WallMs(i64::MAX).as_event_time()),
            (i64::MIN, EventTime(i64::MAX))
        );
    }
}
