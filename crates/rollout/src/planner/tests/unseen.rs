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
    monitored.promotion.monitor = serin_spec::units::Duration::from_secs(24 * HOUR);
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

/// Told and over: what each verdict of a warm-up says, by the kinds of the events that it leads to.
#[test]
fn an_observed_warm_up_that_would_be_ended_is_warned_about_once() {
    let mut world = World::new();
    world.apply_spec("r1", &RolloutSpec { mode: serin_spec::Mode::Observe, ..spec() });
    let say = |world: &mut World, secs: i64, decision, policy: &str| {
        let mut verdict = world.verdict(secs, decision);
        let told = HealthIssue { policy: policy.to_owned(), ..issue(NoDataReason::NoBaseline, "all answers are bad") };
        verdict.health = if policy.is_empty() { Vec::new() } else { vec![told] };
        verdict.sentence = "end it, as the spec asks when there is no data: all answers are bad".to_owned();
        let effects = world.send(verdict);
        effects.events.iter().map(|event| (event.kind, event.sentence.clone())).collect::<Vec<_>>()
    };
    let told = say(&mut world, 10, Decision::Rollback, "rollback");
    let [(kind, sentence)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*kind, EventKind::Warned);
    assert!(sentence.starts_with("observed only, would end it, as the spec asks"), "{sentence}");
    assert_eq!(say(&mut world, 20, Decision::Rollback, "rollback"), []);
    assert_eq!(world.phase(), Phase::Warming);
    let over = say(&mut world, 30, Decision::Continue, "");
    assert_eq!(over.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [EventKind::Resumed]);
    // After a hold it is news, and no way back.
    assert_eq!(say(&mut world, 40, Decision::Hold, "hold").len(), 1);
    world.say(45, Decision::Continue);
    assert_eq!(say(&mut world, 50, Decision::Rollback, "rollback")[0].0, EventKind::Warned);
}

/// A verdict that holds for these causes.
fn holding(world: &World, secs: i64, reasons: &[NoDataReason]) -> Verdict {
    let mut verdict = world.verdict(secs, Decision::Hold);
    verdict.health = reasons.iter().map(|reason| issue(*reason, &format!("{reason:?} is wrong"))).collect();
    verdict
}

#[test]
fn who_resumes_acknowledges_what_the_last_verdict_held_for() {
    let mut world = World::baking();
    let seen = holding(&world, 100, &[NoDataReason::ValueMissing, NoDataReason::Outage]);
    world.send(seen);
    let effects = world.command(Action::Resume);
    assert_eq!(
        effects.events[0].sentence,
        "resumed by ada: because; acknowledged, so that only something new or worse holds it again: ValueMissing is wrong; it is held \
         again while this is so: Outage is wrong"
    );
    assert_eq!(effects.controls[0].acknowledged, Some(EventTime::from_secs(100)));
    assert!(effects.events[0].state.as_ref().unwrap().contains("\"acknowledged\":100000000"));
    // It stays for the whole rollout: each control record says so.
    assert_eq!(world.command(Action::Pause).controls[0].acknowledged, Some(EventTime::from_secs(100)));
    // A pause is resumed in the same way.
    let seen = holding(&world, 200, &[NoDataReason::LabelDelay]);
    world.send(seen);
    let effects = world.command(Action::Resume);
    assert!(effects.events[0].sentence.ends_with("LabelDelay is wrong"), "{}", effects.events[0].sentence);
    assert_eq!(effects.controls[0].acknowledged, Some(EventTime::from_secs(200)));
    // What ends by itself is not acknowledged, and nothing is where nothing is held for.
    for reasons in [&[NoDataReason::Outage][..], &[]] {
        let mut world = World::baking();
        let seen = holding(&world, 100, reasons);
        world.send(seen);
        assert_eq!(world.command(Action::Resume).controls[0].acknowledged, None);
    }
}

#[test]
fn warm_up_is_resumed_when_what_it_waits_for_can_be_acknowledged() {
    for (reason, kind) in [(NoDataReason::ValueMissing, EventKind::Resumed), (NoDataReason::Outage, EventKind::Refused)]
    {
        let mut world = World::new();
        world.apply_spec("r1", &spec());
        let seen = holding(&world, 10, &[reason]);
        world.send(seen);
        let effects = world.command(Action::Resume);
        assert_eq!(effects.events[0].kind, kind, "{reason:?}");
        assert_eq!(world.phase(), Phase::Warming);
        let acknowledged = effects.controls.first().and_then(|control| control.acknowledged);
        assert_eq!(acknowledged.is_some(), kind == EventKind::Resumed);
    }
}

#[test]
fn the_names_that_come_instead_of_what_is_looked_for_are_suggested() {
    let seen = |values: i64| serin_schemas::records::Seen { metric: "wrong".to_owned(), answers: 1200, values };
    let waits = |world: &mut World, secs: i64| {
        let mut verdict = world.verdict(secs, Decision::Hold);
        verdict.health = vec![issue(NoDataReason::ValueMissing, "wrong has no data")];
        (verdict.seen, verdict.sentence) = (vec![seen(0)], "warm-up goes on: wrong has no data".to_owned());
        let effects = world.send(verdict);
        effects.events.into_iter().map(|event| event.sentence).collect::<Vec<_>>()
    };
    let told = |world: &mut World, outputs: &[&str], labels: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        world.report(|status| {
            let outputs = serin_schemas::records::SeenOutputs { model: "flights".into(), names: names(outputs) };
            (status.seen_outputs, status.seen_labels) = (vec![outputs], names(labels));
        });
    };
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    assert_eq!(waits(&mut world, 10), ["warm-up goes on: wrong has no data"]);
    // A router tells the names later: then they are said, once.
    told(&mut world, &["probabilities", "x"], &["lated", "reward"]);
    assert_eq!(
        waits(&mut world, 20),
        [
            "warm-up goes on: wrong has no data; answers carry \"probabilities\": was that meant by \"probability\"?; feedback \
          carries \"lated\": was that meant by \"late\"?"
        ]
    );
    assert!(waits(&mut world, 30).is_empty());
    // What comes under its name is no mistake, and names that are not near are listed.
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    told(&mut world, &["probability"], &["reward", "clicked"]);
    assert_eq!(
        waits(&mut world, 10),
        ["warm-up goes on: wrong has no data; feedback carries \"clicked\", \"reward\", and no \"late\""]
    );
    // Labels that nobody has a verdict on yet, and that were due long ago.
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    told(&mut world, &[], &["lated"]);
    let mut verdict = world.verdict(5 * HOUR, Decision::Continue);
    verdict.warmup_events = Some(1_000_000);
    let effects = world.send(verdict);
    assert!(effects.events[0].sentence.ends_with("feedback carries \"lated\": was that meant by \"late\"?"));
}

#[test]
fn a_warm_up_that_the_analyzer_refuses_says_so_and_ends() {
    for observed in [false, true] {
        let mut refused = spec();
        if observed {
            refused.mode = serin_spec::Mode::Observe;
        }
        let mut world = World::new();
        world.apply_spec("r1", &refused);
        let refuse = |world: &mut World, secs: i64| {
            let mut verdict = world.verdict(secs, Decision::Hold);
            verdict.sentence = "hold: the analyzer cannot judge this rollout: too fine".to_owned();
            world.send(verdict)
        };
        let kinds = |effects: &Effects| effects.events.iter().map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&refuse(&mut world, 10)), [EventKind::Warned]);
        let sentence = world.state().active.clone().unwrap().sentence;
        assert_eq!(sentence, "the canary gets nothing: the analyzer cannot judge this rollout: too fine");
        // The record is written again, and nothing is said of services that do not run.
        let again = world.tick(10 * MINUTE * 1000);
        assert_eq!((kinds(&again), again.controls.len()), (Vec::new(), 1));
        assert!(kinds(&refuse(&mut world, 20)).is_empty());

        // Another release of the analyzer takes it.
        let mut other = World { planner: world.planner.clone(), ..world };
        let taken = other.say(30, Decision::Continue);
        assert_eq!(kinds(&taken), [EventKind::Resumed]);
        assert_eq!(other.state().active.clone().unwrap().sentence, "the analyzer says Continue");

        // None does.
        let mut world = World { planner: other.planner, ..other };
        assert_eq!(kinds(&refuse(&mut world, 40)), [EventKind::Warned]);
        let hold_max = spec().decision.hold_max.0.as_secs_f64() as i64;
        assert!(kinds(&refuse(&mut world, 39 + hold_max)).is_empty());
        refuse(&mut world, 40 + hold_max);
        let ending = world.state().ended.back().unwrap().ending.clone();
        assert_eq!((ending.outcome, ending.reasons.len()), (Outcome::NoData, 0));
        assert!(ending.sentence.contains("too fine"), "{}", ending.sentence);
    }
}
