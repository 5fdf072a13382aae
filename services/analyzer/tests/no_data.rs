//! Missing data is not a pass: gates without data, checks on few answers, a warm-up with broken answers.

mod support;

use serin_schemas::{
    ids::Span,
    records::{Arm, Decision, MetricResult, NoDataReason, Phase, Segment},
};
use support::{HEALTHY, SPEC, Version, World};

/// [`SPEC`] with the score as a gate.
fn spec(more: &str) -> String {
    let gate = SPEC.replacen("\"role\": \"score\"", "\"role\": \"gate\"", 1);
    gate.replacen("\"window\"", &format!("{more}\"window\""), 1)
}

fn warm_up(world: &mut World, windows: usize) {
    world.turn(Phase::Warming, -1, 0, 0);
    for _ in 0..windows {
        world.window();
    }
}

#[test]
fn warm_up_holds_for_a_gate_that_no_answer_has_a_value_of() {
    let mut world = World::with_spec(50, &spec(""));
    world.scoreless = [1.0; 2];
    warm_up(&mut world, 12);
    let verdict = world.last();
    assert_eq!((verdict.decision, verdict.frozen.as_ref()), (Decision::Hold, None));
    assert_eq!(verdict.health[0].reason, NoDataReason::ValueMissing);
    let sentence = &verdict.sentence;
    let begin = "warm-up continues and the canary gets no traffic: score has no data: none of ";
    assert!(sentence.starts_with(begin), "{sentence}");
    assert!(
        sentence.contains(" answers of stable carried the output \"probability\"; check that `outputs` finds it"),
        "{sentence}"
    );
    let seen = |name: &str| verdict.seen.iter().find(|seen| seen.metric == name).unwrap().clone();
    assert!(seen("score").values == 0 && seen("score").answers > 20_000, "{:?}", verdict.seen);
    assert_eq!(seen("error_rate").values, seen("error_rate").answers);
    // The first values end the hold.
    world.scoreless = [0.0; 2];
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
}

#[test]
fn warm_up_names_the_missing_label() {
    let mut world = World::with_spec(51, SPEC);
    world.labelled = [0.0; 2];
    warm_up(&mut world, 20);
    assert_eq!(world.last().decision, Decision::Hold, "{}", world.last().sentence);
    let sentence = &world.last().sentence;
    assert!(
        sentence.contains("wrong has no data: none of ")
            && sentence.contains("the label \"late\"; check that `outputs` and feedback"),
        "{sentence}"
    );
}

#[test]
fn the_file_decides_what_a_gate_without_data_in_warm_up_leads_to() {
    let cases = [("warn", Decision::Promote), ("proceed", Decision::Promote), ("rollback", Decision::Rollback)];
    for (policy, decision) in cases {
        let mut world = World::with_spec(52, &spec(&format!("\"noData\": {{\"valueMissing\": \"{policy}\"}}, ")));
        world.scoreless = [1.0; 2];
        warm_up(&mut world, 12);
        assert_eq!(world.last().decision, decision, "{policy}: {}", world.last().sentence);
    }
    // A metric that only counts for the score does not hold anything up.
    let mut world = World::with_spec(52, SPEC);
    world.scoreless = [1.0; 2];
    warm_up(&mut world, 12);
    assert_eq!(world.last().decision, Decision::Promote);
    assert_eq!(world.last().health[0].policy, "warn");
}

#[test]
fn broken_answers_are_not_a_baseline() {
    for refused in [false, true] {
        let mut world = World::new(53);
        if refused {
            world.refused = [1.0; 2];
        } else {
            world.stable = Version { error: 1.0, ..HEALTHY };
        }
        warm_up(&mut world, 20);
        let verdict = world.last();
        assert_eq!((verdict.decision, verdict.warmup_events), (Decision::Hold, Some(0)));
        assert_eq!(verdict.health[0].reason, NoDataReason::NoBaseline);
        let sentence = &verdict.sentence;
        assert!(
            sentence.contains("answers of stable are bad") && sentence.contains("there is nothing to compare"),
            "{sentence}"
        );
        // The outage is over, and is forgotten sooner than it lasted.
        (world.stable, world.refused) = (HEALTHY, [0.0; 2]);
        assert!(world.until(Decision::Promote, 8).is_some(), "{}", world.last().sentence);
    }
}

#[test]
fn a_gate_that_loses_its_values_in_both_arms_stops_a_step_that_requires_no_failure() {
    let lax = spec("").replacen("\"require\": \"pass\"", "\"require\": \"no_fail\"", 1);
    let mut world = World::with_spec(54, &lax);
    world.bake();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
    world.scoreless = [1.0; 2];
    world.turn(Phase::Baking, 1, 2500, 7500);
    world.window();
    let verdict = world.last();
    assert_eq!(verdict.decision, Decision::Hold, "{}", verdict.sentence);
    assert!(verdict.sentence.starts_with("hold: score has no data: none of "), "{}", verdict.sentence);
    let metric = world.metric("score", &Segment::all());
    assert_eq!((metric.result, metric.no_data), (MetricResult::NoData, Some(NoDataReason::ValueMissing)));
    // The other metrics are still judged.
    assert_ne!(world.metric("error_rate", &Segment::all()).result, MetricResult::NoData);
    world.scoreless = [0.0; 2];
    world.window();
    assert_ne!(world.last().decision, Decision::Hold);
}

#[test]
fn a_gate_without_data_is_named_if_the_file_lets_it_pass() {
    let mut world = World::with_spec(55, &spec("\"noData\": {\"valueMissing\": \"warn\"}, "));
    world.scoreless = [1.0; 2];
    world.bake();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
    let sentence = &world.last().sentence;
    assert!(sentence.starts_with("nothing has failed in ") && sentence.contains("; not judged: score ("), "{sentence}");
    // A step that requires a pass waits for it, unless the file says to proceed.
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert_eq!(world.until(Decision::Promote, 60), None);
    let mut world = World::with_spec(55, &spec("\"noData\": {\"valueMissing\": \"proceed\"}, "));
    world.scoreless = [1.0; 2];
    world.bake();
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert!(world.until(Decision::Promote, 100).is_some(), "{}", world.last().sentence);
    assert!(world.last().sentence.contains("; not judged: score ("), "{}", world.last().sentence);
}

#[test]
fn a_check_needs_a_number_of_answers_of_each_arm() {
    let steps = |least: &str| {
        let mut world = World::with_spec(56, &spec(least));
        world.bake();
        world.traffic = 100;
        let windows = world.until(Decision::Promote, 30);
        (windows.unwrap(), world)
    };
    // Five answers of the canary in a window.
    let (windows, world) = steps("");
    assert!((4..=12).contains(&windows), "{windows}");
    let waiting = &world.verdicts[world.verdicts.len() - 2];
    let sentence = &waiting.sentence;
    assert!(
        sentence.contains("answers of the canary and ") && sentence.contains("needs at least 30 of each"),
        "{sentence}"
    );
    let metric = waiting.metrics.iter().find(|metric| metric.metric == "error_rate").unwrap();
    assert_eq!(metric.no_data, Some(NoDataReason::FewAnswers));
    assert_eq!(steps("\"decision\": {\"minAnswers\": 1}, ").0, 1);
    // Control needs them as well, if the canary has the larger part.
    let mut world = World::with_spec(59, &spec(""));
    world.bake();
    world.traffic = 100;
    world.turn(Phase::Baking, 0, 9000, 500);
    let windows = world.until(Decision::Promote, 30).unwrap();
    assert!((4..=12).contains(&windows), "{windows}");
}

/// An arm with fewer answers than a check needs has not lost its values.
#[test]
fn an_arm_with_few_answers_is_not_blank() {
    for (canary, control) in [(9000, 100), (100, 9000)] {
        let mut world = World::with_spec(61, &spec("\"decision\": {\"minAnswers\": 200}, "));
        world.bake();
        world.traffic = 300;
        world.turn(Phase::Baking, 0, canary, control);
        world.scoreless = if canary > control { [0.0, 1.0] } else { [1.0, 0.0] };
        let blank = |world: &World| world.last().health.iter().any(|issue| issue.reason == NoDataReason::ValueMissing);
        for _ in 0..5 {
            world.window();
            assert!(!blank(&world), "{canary} {control}: {:?}", world.last().health);
        }
        // The same arm with enough answers.
        world.traffic = 30_000;
        world.window();
        assert!(blank(&world), "{canary} {control}: {:?}", world.last().health);
    }
}

#[test]
fn labels_that_arrive_after_the_step_are_named_and_not_waited_for() {
    let mut world = World::new(57);
    world.bake();
    world.window();
    assert_eq!(world.last().decision, Decision::Promote);
    let sentence = &world.last().sentence;
    assert!(sentence.ends_with("; not judged: wrong (its labels have not matured yet)"), "{sentence}");
}

#[test]
fn the_last_step_reports_that_it_required_nothing() {
    let lax = SPEC.replacen("\"require\": \"pass\"", "\"require\": \"no_fail\"", 1);
    let mut world = World::with_spec(58, &lax);
    world.bake();
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert!(world.until(Decision::Promote, 5).is_some());
    let sentence = &world.last().sentence;
    assert!(
        sentence.contains("the last step requires no more (`require: no_fail`), so nothing had to be shown"),
        "{sentence}"
    );
    // By default it requires a pass.
    let unsaid = SPEC.replacen(", \"require\": \"pass\"", "", 1);
    let mut world = World::with_spec(58, &unsaid);
    world.bake();
    world.turn(Phase::Baking, 1, 2500, 7500);
    assert_eq!(world.until(Decision::Promote, 5), None);
    assert!(world.until(Decision::Promote, 100).is_some());
    assert!(world.last().sentence.starts_with("the step's evidence is complete: all "), "{}", world.last().sentence);
}

/// Margins that reach beyond the range of a metric, given stable's values in warm-up.
#[test]
fn a_check_that_no_canary_can_fail_is_reported_at_the_end_of_warm_up() {
    let wide = |more: &str| spec(more).replacen("{\"relative\": 0.05}", "{\"absolute\": 0.9}", 1);
    let cases = [("", Decision::Promote), ("hold", Decision::Hold), ("rollback", Decision::Rollback)];
    for (policy, decision) in cases {
        let more =
            if policy.is_empty() { String::new() } else { format!("\"noData\": {{\"cannotFail\": \"{policy}\"}}, ") };
        let mut world = World::with_spec(70, &wide(&more));
        world.turn(Phase::Warming, -1, 0, 0);
        assert!(world.until(decision, 12).is_some(), "{policy}: {}", world.last().sentence);
        let issue = &world.last().health[0];
        assert_eq!(issue.reason, NoDataReason::CannotFail, "{:?}", world.last().health);
        assert!(issue.sentence.contains("the margin of score reaches beyond its range"), "{}", issue.sentence);
        // It is reported at the end, when stable's values are known.
        assert!(world.verdicts[0].health.is_empty(), "{:?}", world.verdicts[0].health);
    }
    // An operator who accepts it resumes.
    let mut world = World::with_spec(70, &wide("\"noData\": {\"cannotFail\": \"hold\"}, "));
    world.turn(Phase::Warming, -1, 0, 0);
    assert!(world.until(Decision::Hold, 12).is_some());
    world.control.acknowledged = Some(world.last().as_of);
    world.turn(Phase::Warming, -1, 0, 0);
    assert!(world.until(Decision::Promote, 3).is_some(), "{}", world.last().sentence);
    // A check that can fail causes no issue.
    let mut world = World::with_spec(70, &spec(""));
    world.turn(Phase::Warming, -1, 0, 0);
    assert!(world.until(Decision::Promote, 12).is_some());
    assert!(world.last().health.is_empty(), "{:?}", world.last().health);
}

/// An external splitter reports answers of a version that is not its arm's: they are left out, and the verdict reports that.
#[test]
fn answers_of_another_version_are_reported_as_left_out() {
    let issue_of = |traffic: &str| {
        let mut world = World::with_spec(60, &spec(traffic));
        world.bake();
        for mut part in world.draw() {
            for counts in part.arms.iter_mut().filter(|counts| counts.arm == Arm::Canary && part.maturity == Span(0)) {
                counts.excluded += 7;
            }
            assert_eq!(world.send(&part).poison, None);
        }
        world.close(world.now);
        let issue = world.last().health.iter().find(|issue| issue.reason == NoDataReason::ForeignVersion);
        issue.map(|issue| (issue.policy.clone(), issue.sentence.clone()))
    };
    let text = "21 answers reported for the canary are left out: they name another version than v2, or were not assigned at random";
    assert_eq!(issue_of("\"traffic\": \"external\", "), Some(("warn".to_owned(), text.to_owned())));
    // Serin's router assigns the arm itself: the answers that it leaves out were pinned, or fell back.
    assert_eq!(issue_of(""), None);
}

/// The canary seems silent because all its answers are left out: the headline names that.
#[test]
fn an_arm_whose_answers_are_all_left_out_is_not_only_silent() {
    let mut world = World::with_spec(61, &spec("\"traffic\": \"external\", "));
    world.bake();
    for _ in 0..6 {
        for mut part in world.draw() {
            for counts in part.arms.iter_mut().filter(|counts| counts.arm == Arm::Canary) {
                (counts.excluded, counts.predictions) = (counts.predictions, 0);
            }
            part.cells.retain(|cell| cell.arm != Arm::Canary);
            assert_eq!(world.send(&part).poison, None);
        }
        world.close(world.now);
    }
    let sentence = &world.last().sentence;
    assert!(
        sentence.starts_with("hold: the canary had no answers for ")
            && sentence.contains(" answers reported for the canary are left out"),
        "{sentence}"
    );
}
