//! Exposures: which version each unit saw, from the predictions of `events`, for an analysis by other tools.
//!
//! The columns are those of `GrowthBook`'s experiment assignment query: a column per type of identifier, `timestamp`, `experiment_id`,
//! `variation_id`, and further columns as dimensions.

use std::collections::BTreeMap;

use serde::Serialize;
use serin_schemas::{
    ids::{EventTime, RolloutId},
    records::{Arm, Prediction},
};

/// Names of the columns, in order.
pub const COLUMNS: [&str; 7] = ["user_id", "request_id", "timestamp", "experiment_id", "variation_id", "model", "arm"];

/// Most units of which it is remembered that they are in the export. Beyond it, a unit may occur again.
pub const MOST_UNITS: usize = 4_000_000;

/// A unit that saw a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// The sticky key's hash, as 16 hexadecimal digits. Empty if calls are split at random.
    pub user_id: String,
    /// Id of the call.
    pub request_id: String,
    /// When the answer was complete: RFC 3339, UTC.
    pub timestamp: String,
    /// The rollout's id.
    pub experiment_id: String,
    /// The version.
    pub variation_id: String,
    /// The model.
    pub model: String,
    /// The arm: `canary`, `control` or `stable`.
    pub arm: String,
}

/// Turns predictions into exposures. A unit's answer in an arm is an exposure if it is earlier than all that were read before. So the
/// earliest one is always among them, in whatever order partitions are read.
#[derive(Debug, Default)]
pub struct Exposures {
    rollouts: BTreeMap<RolloutId, u32>,
    earliest: BTreeMap<(u32, i64, Arm), EventTime>,
    /// Predictions that are not exposures, because the split did not assign their arm: pinned, targeted, fallback and the like.
    pub not_assigned: u64,
    /// Predictions without a rollout.
    pub without_rollout: u64,
    /// Whether the number of remembered units has reached [`MOST_UNITS`].
    pub full: bool,
}

impl Exposures {
    /// The exposure that a prediction shows, if it shows a new one.
    pub fn of(&mut self, prediction: &Prediction) -> Option<Exposure> {
        if prediction.arm == Arm::Shadow {
            // Callers do not see its answers.
            return None;
        }
        let Some(rollout) = &prediction.rollout else {
            self.without_rollout += 1;
            return None;
        };
        if !prediction.assignment.is_compared() {
            self.not_assigned += 1;
            return None;
        }
        if let Some(unit) = prediction.unit {
            let next = self.rollouts.len() as u32;
            let number = *self.rollouts.entry(rollout.clone()).or_insert(next);
            let key = (number, unit, prediction.arm);
            let room = self.earliest.len() < MOST_UNITS;
            match self.earliest.get_mut(&key) {
                Some(earliest) if *earliest <= prediction.completed_at => return None,
                Some(earliest) => *earliest = prediction.completed_at,
                None if room => drop(self.earliest.insert(key, prediction.completed_at)),
                None => self.full = true,
            }
        }
        Some(Exposure {
            user_id: prediction.unit.map_or_else(String::new, |unit| format!("{:016x}", unit as u64)),
            request_id: prediction.request_id.0.clone(),
            timestamp: prediction.completed_at.to_rfc3339()?,
            experiment_id: rollout.0.clone(),
            variation_id: prediction.version.0.clone(),
            model: prediction.model.0.clone(),
            arm: prediction.arm.as_str().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prediction(id: &str, unit: Option<i64>, arm: &str, assignment: &str) -> Prediction {
        serde_json::from_value(json!({
            "request_id": id, "model": "m", "version": "v2", "arm": arm, "assignment": assignment, "origin": "router",
            "rollout": "r", "generation": 1, "completed_at": 1_000_000, "latency_us": 5, "status": 200, "error": null,
            "invalid_output": null, "unit": unit, "outputs": {}, "classes": {}, "segments": {},
            "writer": {"name": "router-0", "incarnation": 1, "seq": 1},
        }))
        .unwrap()
    }

    #[test]
    fn the_earliest_answer_in_each_arm_is_an_exposure_of_a_unit() {
        let mut exposures = Exposures::default();
        let first = exposures.of(&prediction("a", Some(-1), "stable", "sticky")).unwrap();
        assert_eq!((first.user_id.as_str(), first.timestamp.as_str()), ("ffffffffffffffff", "1970-01-01T00:00:01Z"));
        assert_eq!((first.experiment_id.as_str(), first.variation_id.as_str()), ("r", "v2"));
        assert_eq!(exposures.of(&prediction("b", Some(-1), "stable", "sticky")), None);
        assert!(exposures.of(&prediction("c", Some(-1), "canary", "sticky")).is_some());
        let earlier = Prediction { completed_at: EventTime(5), ..prediction("b", Some(-1), "stable", "sticky") };
        assert_eq!(exposures.of(&earlier).unwrap().timestamp, "1970-01-01T00:00:00.000005Z");
        // Without a unit, each call is its own.
        assert!(exposures.of(&prediction("d", None, "canary", "random")).is_some());
        assert_eq!(exposures.of(&prediction("e", None, "canary", "random")).unwrap().user_id, "");
        assert_eq!(exposures.of(&prediction("f", Some(3), "canary", "pinned")), None);
        assert_eq!(exposures.of(&prediction("g", Some(4), "shadow", "sticky")), None);
        let without = Prediction { rollout: None, ..prediction("h", Some(5), "stable", "sticky") };
        assert_eq!(exposures.of(&without), None);
        assert_eq!((exposures.not_assigned, exposures.without_rollout), (1, 1));
    }

    #[test]
    fn columns_are_the_fields_in_their_order() {
        let row = serde_json::to_string(&Exposures::default().of(&prediction("a", None, "canary", "random"))).unwrap();
        let places: Vec<_> = COLUMNS.iter().map(|name| row.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{row}");
    }
}
