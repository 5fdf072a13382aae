//! Counts what the demo's callers got, and what it cost them.

use super::{data::FlightRecord, model::Models, replay::Answer, servers::is_slow};

/// From here on a probability means "late".
const CUT: f64 = 0.5;

/// What the callers of one rollout got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests in all.
    pub(crate) requests: u64,
    /// Requests that the canary answered.
    pub(crate) canary: u64,
    /// Of these, requests that got something worse than stable would have given: a wrong answer where stable's model is
    /// right, or the slow path.
    pub(crate) hurt: u64,
}

impl Tally {
    /// Counts the answers of one window.
    pub(crate) fn add(&mut self, answers: &[Answer], models: &Models, stable: &str) {
        for answer in answers {
            self.requests += 1;
            if answer.arm != "canary" {
                continue;
            }
            self.canary += 1;
            self.hurt += u64::from(is_worse(answer, models, stable));
        }
    }
}

/// Whether the canary's answer was worse than stable's would have been.
fn is_worse(answer: &Answer, models: &Models, stable: &str) -> bool {
    if is_slow(&answer.version, &answer.id) {
        return true;
    }
    let right = |probability: f64, flight: &FlightRecord| (probability >= CUT) == flight.arrived_late();
    let Some(probability) = answer.probability else { return true };
    let stable_is_right =
        models.get(stable).is_some_and(|model| right(model.predict(&answer.flight.features()), &answer.flight));
    stable_is_right && !right(probability, &answer.flight)
}
