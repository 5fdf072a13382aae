//! Missing data: a warm-up that waits, monitoring that cannot judge, a step that is over.

use serin_schemas::records::{HealthIssue, NoDataReason};

use super::*;

fn issue(reason: NoDataReason, sentence: &str) -> HealthIssue {
    HealthIssue { reason, policy: "hold".to_owned(), sentence: sentence.to_owned() }
}

#[test]
fn what_warm_up_waits_for_is_reported_once_and_also_its_end() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    let held = |world: &mut World, secs: i64, reason| {
        let mut verdict = world.verdict(secs, Decision::Hold);
        verdict.health = vec![issue(reason, "score has no data")];
        verdict.sentence = "warm-up continues: score has no data".to_owned();
        world.send(verdict)
    };
    let warned = held(&mut world, 10, NoDataReason::ValueMissing);
    assert_eq!(warned.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Warned]);
    assert!(warned.tables.is_empty() && warned.controls.is_empty());
    assert!(held(&mut world, 20, NoDataReason::ValueMissing).events.is_empty());
    let active = world.state().active.clone().unwrap();
    assert_eq!((active.phase, active.sentence.as_str()), (Phase::Warming, "warm-up continues: score has no data"));
    assert_eq!(held(&mut world, 30, NoDataReason::NoBaseline).events.len(), 1);
    let over = world.say(40, Decision::Continue);
    assert_eq!(over.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Resumed]);
    assert!(world.say(50, Decision::Continue).events.is_empty());
    world.warm(60);
    assert_eq!(world.phase(), Phase::Baking);
}

#[test]
fn a_warm_up_that_the_file_ends_has_no_finding() {
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    world.say(10, Decision::Rollback);
    let ending = world.state().ended.back().unwrap().ending.clone();
    assert_eq!((ending.outcome, ending.reasons.len()), (Outcome::NoData, 0));
}

#[test]
fn the_sentence_of_a_marginal_step_has_no_order_to_keep_baking() {
    let mut world = World::baking();
    let mut verdict = world.verdict(HOUR * 5, Decision::Continue);
    verdict.sentence = "keep baking: latency is not known".to_owned();
    world.send(verdict);
    let sentence = world.state().active.clone().unwrap().sentence;
    assert_eq!(world.phase(), Phase::Held);
    assert!(sentence.starts_with("marginal after ") && sentence.ends_with(": latency is not known"), "{sentence}");
}

#[test]
fn monitoring_does_not_end_while_nothing_can_be_judged() {
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
    // It does not wait forever.
    let mut world = World { planner: world.planner, ..other };
    assert!(world.say(47 * HOUR, Decision::Hold).is_silent());
    let over = world.say(48 * HOUR, Decision::Hold);
    assert_eq!(kinds(&over), [EventKind::Completed]);
    assert!(over.events[0].sentence.contains("though it could not be judged"), "{}", over.events[0].sentence);
}

/// `say` returns the kinds and sentences of the events that a verdict leads to.
#[test]
fn an_observed_warm_up_that_would_be_ended_is_warned_about_once() {
    let mut world = World::new();
    world.apply_spec("r1", &RolloutSpec { mode: serin_spec::Mode::Observe, ..spec() });
    let say = |world: &mut World, secs: i64, decision, policy: &str| {
        let mut verdict = world.verdict(secs, decision);
        let issue = HealthIssue { policy: policy.to_owned(), ..issue(NoDataReason::NoBaseline, "all answers are bad") };
        verdict.health = if policy.is_empty() { Vec::new() } else { vec![issue] };
        verdict.sentence = "end the rollout, as the spec asks when there is no data: all answers are bad".to_owned();
        let effects = world.send(verdict);
        effects.events.iter().map(|event| (event.kind, event.sentence.clone())).collect::<Vec<_>>()
    };
    let events = say(&mut world, 10, Decision::Rollback, "rollback");
    let [(kind, sentence)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(*kind, EventKind::Warned);
    assert!(sentence.starts_with("observed only, would end the rollout, as the spec asks"), "{sentence}");
    assert_eq!(say(&mut world, 20, Decision::Rollback, "rollback"), []);
    assert_eq!(world.phase(), Phase::Warming);
    let over = say(&mut world, 30, Decision::Continue, "");
    assert_eq!(over.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [EventKind::Resumed]);
    // After a hold it is reported again, and does not end the rollout.
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
fn a_resume_acknowledges_what_the_last_verdict_held_for() {
    let mut world = World::baking();
    let seen = holding(&world, 100, &[NoDataReason::ValueMissing, NoDataReason::Outage]);
    world.send(seen);
    let effects = world.command(Action::Resume);
    assert_eq!(
        effects.events[0].sentence,
        "resumed by ada: because; acknowledged, so that only a new or worse issue holds it again: ValueMissing is wrong; it is held \
         again while this lasts: Outage is wrong"
    );
    assert_eq!(effects.controls[0].acknowledged, Some(EventTime::from_secs(100)));
    assert!(effects.events[0].state.as_ref().unwrap().contains("\"acknowledged\":100000000"));
    // It stays for the whole rollout: each control record contains it.
    assert_eq!(world.command(Action::Pause).controls[0].acknowledged, Some(EventTime::from_secs(100)));
    // A pause is resumed in the same way.
    let seen = holding(&world, 200, &[NoDataReason::LabelDelay]);
    world.send(seen);
    let effects = world.command(Action::Resume);
    assert!(effects.events[0].sentence.ends_with("LabelDelay is wrong"), "{}", effects.events[0].sentence);
    assert_eq!(effects.controls[0].acknowledged, Some(EventTime::from_secs(200)));
    // A state that ends by itself is not acknowledged, and without issues there is nothing to acknowledge.
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
fn similar_names_of_missing_values_are_suggested() {
    let seen = |values: i64| serin_schemas::records::Seen { metric: "wrong".to_owned(), answers: 1200, values };
    let waits = |world: &mut World, secs: i64| {
        let mut verdict = world.verdict(secs, Decision::Hold);
        verdict.health = vec![issue(NoDataReason::ValueMissing, "wrong has no data")];
        (verdict.seen, verdict.sentence) = (vec![seen(0)], "warm-up continues: wrong has no data".to_owned());
        let effects = world.send(verdict);
        effects.events.into_iter().map(|event| event.sentence).collect::<Vec<_>>()
    };
    let report = |world: &mut World, outputs: &[&str], labels: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        world.report(|status| {
            let outputs = serin_schemas::records::SeenOutputs { model: "flights".into(), names: names(outputs) };
            (status.seen_outputs, status.seen_labels) = (vec![outputs], names(labels));
        });
    };
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    assert_eq!(waits(&mut world, 10), ["warm-up continues: wrong has no data"]);
    // A router reports the names later: then they are added, once.
    report(&mut world, &["probabilities", "x"], &["lated", "reward"]);
    assert_eq!(
        waits(&mut world, 20),
        [
            "warm-up continues: wrong has no data; answers carry \"probabilities\": did you mean that instead of \"probability\"?; \
          feedback carries \"lated\": did you mean that instead of \"late\"?"
        ]
    );
    assert!(waits(&mut world, 30).is_empty());
    // A value under its own name needs no suggestion, and names that are not similar are listed.
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    report(&mut world, &["probability"], &["reward", "clicked"]);
    assert_eq!(
        waits(&mut world, 10),
        ["warm-up continues: wrong has no data; feedback carries \"clicked\", \"reward\", but no \"late\""]
    );
    // Labels that no verdict is about yet, and that were due long ago.
    let mut world = World::new();
    world.apply_spec("r1", &spec());
    report(&mut world, &[], &["lated"]);
    let mut verdict = world.verdict(5 * HOUR, Decision::Continue);
    verdict.warmup_events = Some(1_000_000);
    let effects = world.send(verdict);
    assert!(effects.events[0].sentence.ends_with("feedback carries \"lated\": did you mean that instead of \"late\"?"));
}

#[test]
fn a_warm_up_that_the_analyzer_refuses_is_reported_and_ends() {
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
        assert_eq!(sentence, "the canary gets no traffic: the analyzer cannot judge this rollout: too fine");
        // The record is repeated, and no event claims that services do not run.
        let again = world.tick(10 * MINUTE * 1000);
        assert_eq!((kinds(&again), again.controls.len()), (Vec::new(), 1));
        assert!(kinds(&refuse(&mut world, 20)).is_empty());

        // Another release of the analyzer accepts it.
        let mut other = World { planner: world.planner.clone(), ..world };
        let taken = other.say(30, Decision::Continue);
        assert_eq!(kinds(&taken), [EventKind::Resumed]);
        assert_eq!(other.state().active.clone().unwrap().sentence, "the analyzer says Continue");

        // No release accepts it.
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

#[test]
fn missing_labels_are_reported_once() {
    let mut world = World::new();
    let seen = |world: &mut World, secs: i64, events: i64| {
        let mut verdict = world.verdict(secs, Decision::Continue);
        verdict.warmup_events = Some(events);
        let effects = world.send(verdict);
        effects.events.into_iter().map(|event| event.sentence).collect::<Vec<_>>()
    };
    let twelve_hours = 12 * 3600;
    let mut slow = spec();
    slow.metrics[0].maturity = serin_spec::units::Duration::from_secs(twelve_hours);
    world.apply_spec("r1", &slow);
    assert_eq!(seen(&mut world, 60, 5000), [""; 0], "labels need their time");
    assert_eq!(seen(&mut world, twelve_hours + 60, 5000), [""; 0]);
    assert_eq!(seen(&mut world, twelve_hours + 700, 10), [""; 0], "too few answers are a different problem");
    let sentences = seen(&mut world, twelve_hours + 760, 5000);
    assert!(sentences.len() == 1 && sentences[0].contains("waits for the first labels of wrong"), "{sentences:?}");
    assert_eq!(seen(&mut world, twelve_hours + 820, 5000), [""; 0], "once");
}
