//! The counts of one arm in one window.

use serde::{Deserialize, Serialize};
use serin_schemas::{
    records::{Arm, ArmCounts, Outcome},
    view::PredictionView,
};

use crate::value::is_error;

/// The counts of one arm, as in [`ArmCounts`]. Their stored form is part of the counts row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) predictions: i64,
    pub(crate) excluded: i64,
    pub(crate) errors: i64,
    pub(crate) invalid: i64,
    pub(crate) late: i64,
    pub(crate) lost: i64,
    pub(crate) labelled: i64,
    pub(crate) refused: i64,
    pub(crate) redirected: i64,
    pub(crate) unread: i64,
    pub(crate) cancelled: i64,
    pub(crate) left: i64,
    pub(crate) contradicting: i64,
}

impl Counts {
    /// Counts a timely answer: as excluded, by its outcome, or as under rules version 1.
    pub(crate) fn add(&mut self, prediction: &PredictionView<'_>, compared: bool, by_outcome: bool) {
        if !compared {
            self.excluded += 1;
            return;
        }
        if !by_outcome {
            self.predictions += 1;
            self.errors += i64::from(is_error(prediction));
            self.invalid += i64::from(prediction.invalid_output.is_some());
            return;
        }
        let outcome = prediction.outcome();
        self.predictions += i64::from(outcome != Outcome::Cancelled);
        match outcome {
            Outcome::Ok => {}
            Outcome::Refused => self.refused += 1,
            Outcome::Redirected => self.redirected += 1,
            Outcome::Failed => self.errors += 1,
            Outcome::Unusable => self.invalid += 1,
            Outcome::Unread => self.unread += 1,
            Outcome::Cancelled => {
                self.cancelled += 1;
                self.left += i64::from(has_head(prediction));
            }
        }
    }

    pub(crate) fn of(self, arm: Arm) -> ArmCounts {
        let Self { predictions, excluded, errors, invalid, late, lost, labelled, .. } = self;
        let Self { refused, redirected, unread, cancelled, left, contradicting, .. } = self;
        ArmCounts {
            arm,
            predictions,
            excluded,
            errors,
            invalid,
            late,
            lost,
            labelled,
            refused,
            redirected,
            unread,
            cancelled,
            left,
            contradicting,
        }
    }
}

/// Whether the head of the answer had reached the caller. In a proxy's log, status 499 means that the caller left
/// before it.
fn has_head(prediction: &PredictionView<'_>) -> bool {
    prediction.status.is_some_and(|status| status != 499)
}
