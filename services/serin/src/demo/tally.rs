//! Counts the answers of the demo, and those that are worse than stable's.

use super::{data::FlightRecord, model::Models, replay::Answer, servers::is_slow};

/// Smallest probability that means "late".
const CUT: f64 = 0.5;

/// Counts of the answers of one rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Total number of requests.
    pub(super) requests: u64,
    /// Requests that the canary answered.
    pub(super) canary: u64,
    /// Requests of the canary that got a worse answer than stable would have given: a wrong one although stable's model is
    /// right, or the slow path.
    pub(super) hurt: u64,
}

impl Tally {
    /// Counts the answers of one window.
    pub(super) fn add(&mut self, answers: &[Answer], models: &Models, stable: &str) {
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
