//! The verdict on a rollout that cannot be judged at all, because its Control record was refused.
//!
//! The record is dead-lettered. Without a verdict the rollout would warm up forever, and the controller would only know that no
//! verdict arrives. The controller repeats the record from time to time, and each refusal is reported as of a later time.

use serin_schemas::{
    ids::EventTime,
    records::{Control, Decision, Verdict},
};
use serin_sketches::hash::hash64;

/// The verdict on a rollout whose Control record was refused. `mark` is how far all partitions are closed, if that is known.
pub(crate) fn verdict(control: &Control, mark: Option<EventTime>, why: &str) -> Verdict {
    let as_of = mark.map_or(control.decided_at, |mark| mark.max(control.decided_at));
    let place = format!("{}\0{}\0{as_of}", control.rollout, control.generation);
    Verdict {
        id: format!("{:016x}", hash64(b"refused", place.as_bytes())),
        model: control.model.clone(),
        rollout: control.rollout.clone(),
        generation: control.generation,
        step: control.step,
        as_of,
        decision: Decision::Hold,
        reasons: Vec::new(),
        score_low: 0.0,
        score_high: 100.0,
        ln_e_rollback: 0.0,
        metrics: Vec::new(),
        groups: Vec::new(),
        stable_is_out_of_date: false,
        arms: Vec::new(),
        health: Vec::new(),
        warmup_events: None,
        frozen: None,
        sentence: format!(
            "hold: the analyzer cannot judge this rollout: {why}. Correct the file and apply it again; if lint accepts it, check that \
             controller and analyzer run the same release"
        ),
        build: crate::BUILD.to_owned(),
        seen: Vec::new(),
        rules: control.rules,
    }
}
