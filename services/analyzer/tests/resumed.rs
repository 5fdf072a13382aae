//! A resume acknowledges what the rollout is held for: the same finding holds no more, but a new or worse one does.

mod support;

use serin_schemas::records::{Decision, MetricResult, NoDataReason, Phase, Segment};
use support::{SPEC, World};

/// [`SPEC`] with the score as a gate, and steps that do not require a pass.
fn spec() -> String {
    let gate = SPEC.replacen("\"role\": \"score\"", "\"role\": \"gate\"", 1);
    gate.replacen("\"require\": \"pass\"", "\"require\": \"no_fail\"", 1)
}

impl World {
    /// An operator who has seen the last verdict resumes.
    fn resume(&mut self, phase: Phase) {
        let (step, canary, control) = (self.control.step, self.control.canary_share, self.control.control_share);
        self.turn(Phase::Held, step, canary, control);
        self.control.acknowledged = Some(self.last().as_of);
        self.turn(phase, step, canary, control);
    }

    fn sentence(&self) -> &str {
        &self.last().sentence
    }
}

/// Baking, and held because no answer of these arms (canary, stable) carries the score.
fn held(seed: u64, scoreless: [f64; 2]) -> World {
    let mut world = World::with_spec(seed, &spec());
    world.bake();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.sentence());
    world.scoreless = scoreless;
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert!(world.until(Decision::Hold, 10).is_some(), "{}", world.sentence());
    world
}

#[test]
fn a_missing_value_holds_once() {
    let mut world = held(60, [1.0; 2]);
    world.resume(Phase::Baking);
    for _ in 0..3 {
        world.window();
        assert_eq!(world.last().decision, Decision::Promote, "{}", world.sentence());
    }
    let issue = &world.last().health[0];
    assert_eq!((issue.reason, issue.policy.as_str()), (NoDataReason::ValueMissing, "warn"));
    assert!(issue.sentence.ends_with(" (acknowledged by resume)"), "{}", issue.sentence);
    // It is not a pass, and the sentence of the promotion reports that.
    assert_eq!(world.metric("score", &Segment::all()).result, MetricResult::NoData);
    assert!(world.sentence().contains("; not judged: score"), "{}", world.sentence());
    // In the next step, the same finding is not new.
    world.turn(Phase::Baking, 2, 5000, 5000);
    world.window();
    world.window();
    assert_ne!(world.last().decision, Decision::Hold, "{}", world.sentence());
}

#[test]
fn a_worse_or_returning_finding_holds_again() {
    // First only the canary lacks the value, then both arms do.
    let mut world = held(61, [1.0, 0.0]);
    assert_eq!(world.last().health[0].reason, NoDataReason::ValueMissing, "{:?}", world.last().health);
    world.resume(Phase::Baking);
    world.window();
    assert_ne!(world.last().decision, Decision::Hold, "{}", world.sentence());
    world.scoreless = [1.0; 2];
    world.turn(Phase::Baking, 2, 5000, 5000);
    assert!(world.until(Decision::Hold, 10).is_some(), "{}", world.sentence());
    // The finding was over, and returns.
    let mut world = held(62, [1.0; 2]);
    world.resume(Phase::Baking);
    world.window();
    world.scoreless = [0.0; 2];
    world.window();
    world.scoreless = [1.0; 2];
    world.turn(Phase::Baking, 2, 5000, 5000);
    assert!(world.until(Decision::Hold, 10).is_some(), "{}", world.sentence());
}

#[test]
fn warm_up_continues_without_a_value_that_was_acknowledged_as_missing() {
    let mut world = World::with_spec(63, &spec());
    world.scoreless = [1.0; 2];
    world.turn(Phase::Warming, -1, 0, 0);
    assert!(world.until(Decision::Hold, 12).is_some(), "{}", world.sentence());
    world.control.acknowledged = Some(world.last().as_of);
    world.turn(Phase::Warming, -1, 0, 0);
    assert!(world.until(Decision::Promote, 8).is_some(), "{}", world.sentence());
    assert_eq!(world.last().health[0].policy, "warn");
}

#[test]
fn a_finding_after_the_verdict_that_was_seen_is_not_acknowledged() {
    let mut world = held(64, [1.0; 2]);
    // The operator had seen the verdict before.
    let before = world.verdicts[world.verdicts.len() - 2].as_of;
    world.turn(Phase::Held, 1, 2500, 7500);
    world.control.acknowledged = Some(before);
    world.turn(Phase::Baking, 1, 2500, 7500);
    world.window();
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.sentence());
}

#[test]
fn a_restart_remembers_what_was_acknowledged() {
    let mut world = held(65, [1.0; 2]);
    world.resume(Phase::Baking);
    world.window();
    world.commit();
    let rows = world.harness.rows();
    world.harness.reset(rows).unwrap();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.sentence());
}
