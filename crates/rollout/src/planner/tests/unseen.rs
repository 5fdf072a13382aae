//! What was not seen: a warm-up that waits, a monitor that cannot judge, a step that is over.

use serin_schemas::records::{HealthIssue, NoDataReason};

use super::*;

fn issue(reason: NoDataReason, sentence: &str) -> HealthIssue {
    HealthIssue { reason, policy: "hold".to_owned(), sentence: sentence.to_owned() }
}

#[test]
fn what_warm_up_waits_for_is_told_once_and_that_it_is_over_too() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let held = |world: &mut World, secs: i64, reason| {
        let mut verdict = world.verdict(secs, Decision::Hold);
        verdict.health = vec![issue(reason, "score has no data")];
        verdict.sentence = "warm-up goes on: score has no data".to_owned();
        world.send(verdict)
    };
    let told = held(&mut world, 10, NoDataReason::ValueMissing);
    assert_eq!(told.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Warned]);
    assert!(told.tables.is_empty() && told.controls.is_empty());
    assert!(held(&mut world, 20, NoDataReason::ValueMissing).events.is_empty());
    let active = world.state().active.clone().unwrap();
    assert_eq!((active.phase, active.sentence.as_str()), (Phase::Warming, "warm-up goes on: score has no data"));
    assert_eq!(held(&mut world, 30, NoDataReason::NoBaseline).events.len(), 1);
    let over = world.say(40, Decision::Continue);
    assert_eq!(over.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Resumed]);
    assert!(world.say(50, Decision::Continue).events.is_empty());
    world.warm(60);
    assert_eq!(world.phase(), Phase::Baking);
}

#[test]
fn a_warm_up_that_the_file_ends_is_no_finding() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    world.say(10, Decision::Rollback);
    let ending = world.state().ended.back().unwrap().ending.clone();
    assert_eq!((ending.outcome, ending.reasons.len()), (Outcome::NoData, 0));
}

#[test]
fn a_marginal_step_is_not_told_to_keep_baking() {
    let mut world = World::baking();
    let mut verdict = world.verdict(HOUR * 5, Decision::Continue);
    verdict.sentence = "keep baking: latency is not known".to_owned();
    world.send(verdict);
    let sentence = world.state().active.clone().unwrap().sentence;
    assert_eq!(world.phase(), Phase::Held);
    assert!(sentence.starts_with("marginal after ") && sentence.ends_with(": latency is not known"), "{sentence}");
}

#[test]
fn a_monitor_is_not_over_while_nothing_can_be_judged() {
    let mut monitored = spec();
    monitored.promotion.monitor = crate::units::Duration::from_secs(24 * HOUR);
    let mut world = World::new();
    world.apply_spec("r1", &monitored);
    world.warm(0);
    world.command(Action::PromoteFull);
    let kinds = |effects: &Effects| effects.events.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&world.say(24 * HOUR, Decision::Hold)), [EventKind::Warned]);
    assert_eq!(world.phase(), Phase::Promoted);
    let mut other = World { planner: world.planner.clone(), ..world };
    assert_eq!(kinds(&other.say(25 * HOUR, Decision::Continue)), [EventKind::Completed]);
    // It is not waited for without an end.
    let mut world = World { planner: world.planner, ..other };
    assert!(world.say(47 * HOUR, Decision::Hold).is_silent());
    let over = world.say(48 * HOUR, Decision::Hold);
    assert_eq!(kinds(&over), [EventKind::Completed]);
    assert!(over.events[0].sentence.contains("though it could not be judged"), "{}", over.events[0].sentence);
}
