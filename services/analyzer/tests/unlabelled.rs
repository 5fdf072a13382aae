//! Labels that count as 0 when they are missing: a name that never arrives is not a value of 0.

mod support;

use std::cell::RefCell;

use serin_schemas::records::{Arm, Decision, MetricResult, NoDataReason, Phase, Population, Segment};
use serin_spec::Frozen;
use support::{Dice, HEALTHY, MATURITY, SPEC, Version, World};

/// [`SPEC`] with `wrong` as the label `late`, which counts as 0 if it is missing.
fn spec(more: &str) -> String {
    let source = "\"source\": {\"wrong\": {\"output\": \"probability\", \"label\": \"late\"}}";
    let filled = SPEC.replacen(source, "\"source\": {\"feedback\": \"late\"}, \"whenMissing\": \"zero\"", 1);
    filled.replacen("\"window\"", &format!("{more}\"window\""), 1)
}

fn world(seed: u64, more: &str) -> World {
    let mut world = World::with_spec(seed, &spec(more));
    // Each answer has a value, which is 0 for all of them.
    world.labelled = [1.0; 2];
    let never = Version { wrong: 0.0, ..HEALTHY };
    (world.stable, world.canary) = (never, never);
    world.turn(Phase::Warming, -1, 0, 0);
    world
}

/// Plays windows in which this many labels of an arm arrive per partition.
fn play(world: &mut World, windows: usize, labels: impl Fn(Arm) -> i64) {
    for _ in 0..windows {
        for mut part in world.draw() {
            if part.maturity == MATURITY {
                for counts in &mut part.arms {
                    counts.labelled = labels(counts.arm);
                    let segment = Segment::with_label("wrong");
                    part.population.push(Population { arm: counts.arm, segment, predictions: counts.labelled });
                }
            }
            assert_eq!(world.send(&part).poison, None);
        }
        world.close(world.now);
    }
}

/// Starts the first step after a warm-up that has ended.
fn bake(world: &mut World) {
    let frozen = world.last().frozen.clone();
    assert!(frozen.is_some(), "{}", world.last().sentence);
    world.control.frozen = frozen;
    world.turn(Phase::Baking, 0, 500, 5000);
}

fn no_data(world: &World) -> (MetricResult, Option<NoDataReason>) {
    let metric = world.metric("wrong", &Segment::all());
    (metric.result, metric.no_data)
}

#[test]
fn warm_up_waits_for_the_first_label_of_the_name() {
    let mut world = world(70, "");
    play(&mut world, 20, |_| 0);
    let verdict = world.last();
    assert_eq!(
        (verdict.decision, verdict.frozen.as_ref()),
        (Decision::Hold, None),
        "{} {:?}",
        verdict.sentence,
        verdict.seen
    );
    assert_eq!(verdict.health[0].reason, NoDataReason::ValueMissing);
    let sentence = &verdict.sentence;
    assert!(
        sentence.contains("wrong has no data: none of ") && sentence.contains("got the label \"late\""),
        "{sentence}"
    );
    let seen = verdict.seen.iter().find(|seen| seen.metric == "wrong").unwrap();
    assert!(seen.values == 0 && seen.answers > 10_000, "{seen:?}");
    // One label is enough: most answers never get one.
    play(&mut world, 1, |_| 1);
    play(&mut world, 6, |_| 0);
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
    bake(&mut world);
    play(&mut world, 12, |_| 0);
    assert_eq!(no_data(&world).1, None, "{}", world.last().sentence);
}

#[test]
fn a_gate_whose_label_never_arrived_does_not_pass() {
    let mut world = world(71, "\"noData\": {\"labelsMissing\": \"warn\"}, ");
    play(&mut world, 20, |_| 0);
    bake(&mut world);
    play(&mut world, 30, |_| 0);
    assert_eq!(no_data(&world), (MetricResult::NoData, Some(NoDataReason::ValueMissing)), "{}", world.last().sentence);
    // A label of either arm shows that the name is right.
    play(&mut world, 12, |arm| i64::from(arm == Arm::Canary));
    assert_eq!(no_data(&world), (MetricResult::Pass, None), "{}", world.last().sentence);
}

/// In a step that requires no pass, and after a warm-up that was too short for the labels.
#[test]
fn a_step_holds_for_a_gate_whose_label_never_arrived() {
    let mut world = world(72, "\"noData\": {\"labelsMissing\": \"hold\"}, ");
    play(&mut world, 6, |_| 0);
    let frozen =
        Frozen { segments: [("origin".to_owned(), vec!["JFK".into(), "LGA".into()])].into(), warmup_events: 3000 };
    world.control.frozen = Some(serde_json::to_string(&frozen).unwrap());
    world.turn(Phase::Baking, 0, 500, 5000);
    play(&mut world, 12, |_| 0);
    let verdict = world.last();
    assert_eq!(verdict.decision, Decision::Hold, "{}", verdict.sentence);
    assert!(verdict.sentence.contains("answers so far got the label \"late\""), "{}", verdict.sentence);
}

/// Windows of an older build do not tell labels from values that stand for missing ones.
#[test]
fn windows_without_counts_of_labels_are_judged_as_before() {
    let mut world = world(73, "");
    for _ in 0..10 {
        world.window();
    }
    assert_eq!(world.last().decision, Decision::Promote, "{}", world.last().sentence);
}

/// An older build stored the zeros that stand for missing labels as values. They do not count after the upgrade.
#[test]
fn zeros_that_an_older_build_stored_do_not_make_a_gate_pass() {
    for (format, passes) in [(4, false), (5, true)] {
        let mut world = world(75, "\"noData\": {\"labelsMissing\": \"warn\"}, ");
        for _ in 0..10 {
            world.window();
        }
        bake(&mut world);
        world.commit();
        let mut rows = world.harness.rows();
        let guards = rows.iter_mut().filter(|(key, _)| key.ends_with(b"\0g"));
        for (_, row) in guards {
            *row = [&[format], &row[1..]].concat().into();
        }
        world.harness.reset(rows).unwrap();
        play(&mut world, 30, |_| 0);
        let found = no_data(&world);
        let expected = if passes { None } else { Some(NoDataReason::ValueMissing) };
        assert_eq!(found.1.filter(|reason| *reason == NoDataReason::ValueMissing), expected, "{found:?}");
    }
}

/// Gaps between rare labels are long by chance. With a fixed bound on one gap, several of these thousands would be findings.
#[test]
fn rare_labels_of_equal_versions_hold_nothing() {
    let mut world = world(76, "");
    world.traffic = 40;
    play(&mut world, 80, |_| 1);
    bake(&mut world);
    let dice = RefCell::new(Dice(77));
    for _ in 0..6000 {
        play(&mut world, 1, |_| i64::from(dice.borrow_mut().chance(0.1)));
        let missing = world.last().health.iter().find(|issue| issue.reason == NoDataReason::LabelsMissing);
        assert_eq!(missing, None);
    }
    play(&mut world, 200, |_| 0);
    assert_eq!(no_data(&world).1, Some(NoDataReason::LabelsMissing), "{}", world.last().sentence);
}

#[test]
fn labels_that_stop_for_stable_too_hold() {
    let mut world = world(74, "");
    play(&mut world, 10, |_| 20);
    bake(&mut world);
    play(&mut world, 12, |arm| if arm == Arm::Canary { 0 } else { 20 });
    assert_eq!(no_data(&world).1, None, "the canary may bring fewer: {}", world.last().sentence);
    play(&mut world, 12, |_| 0);
    assert_eq!(no_data(&world).1, Some(NoDataReason::LabelsMissing), "{}", world.last().sentence);
    assert!(world.last().sentence.contains("have matured without any label"), "{}", world.last().sentence);
}
