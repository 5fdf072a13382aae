//! Rollouts are played through the real folds, event by event, and their logs are replayed.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serin_rollout::Outcome;
use serin_schemas::{
    ids::EventTime,
    records::{Arm, Assignment, Heartbeat, Origin, Prediction, Writer},
};
use serin_stream::{record::Outgoing, sim::SimLog};

use super::*;
use crate::in_process::InProcess;

const POLICY: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: shop
stable: {version: '1'}
canary: {version: '2'}
warmup: {minEvents: 2000}
steps:
  - {weight: 20%, bake: {min: 2m, max: 30m}}
  - {weight: 50%, bake: {min: 2m, max: 30m}, require: no_fail}
metrics:
  - {name: error_rate, kind: rate, source: error, margin: {absolute: 0.01}}
  - {name: latency_p99, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.2}}
";

/// The log of a rollout in which the canary has these error rates, 100 requests/s.
fn log_of(errors: f64) -> Vec<Outgoing> {
    let spec = serin_rollout::parse_yaml(POLICY).unwrap().normalized();
    let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
    folds.apply(&spec).unwrap();
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    let (mut now, mut seq) = (EventTime::from_secs(1_700_000_000), 0);
    while folds.state().unwrap().ending.is_none() {
        for _ in 0..1000 {
            seq += 1;
            now = now.plus(serin_schemas::ids::Span(10_000));
            let prediction = answer(&folds, seq, now, errors, &mut dice);
            folds.event(&seq.to_string(), &prediction).unwrap();
        }
        let heartbeat = Heartbeat {
            writer: writer(seq),
            low_watermark: now,
            drops: vec![],
            leaving: false,
            sent_at: None,
            relay: false,
        };
        folds.event("", &heartbeat).unwrap();
        folds.run_until_quiet().unwrap();
        assert!(seq < 2_000_000, "the rollout never ends");
    }
    folds.tape
}

fn writer(seq: i64) -> Writer {
    Writer { name: "router".to_owned(), incarnation: 1, seq }
}

fn answer(folds: &InProcess, seq: i64, now: EventTime, errors: f64, dice: &mut ChaCha8Rng) -> Prediction {
    let table = folds.table().unwrap();
    let mut bucket = dice.random_range(0..10_000);
    let route = table.routes.iter().rev().find(|route| {
        bucket -= route.share;
        bucket < 0
    });
    let route = route.unwrap();
    let error = dice.random::<f64>() < if route.arm == Arm::Canary { errors } else { 0.01 };
    Prediction {
        request_id: seq.to_string().into(),
        model: table.model.clone(),
        version: route.version.clone(),
        arm: route.arm,
        assignment: Assignment::Random,
        origin: Origin::Router,
        rollout: table.rollout.clone(),
        generation: table.generation,
        completed_at: now,
        latency_us: Some(dice.random_range(10_000..100_000)),
        status: Some(if error { 500 } else { 200 }),
        error: None,
        invalid_output: None,
        outcome: None,
        unread: None,
        batch: None,
        unit: None,
        outputs: [].into(),
        classes: [].into(),
        segments: [].into(),
        writer: writer(seq),
    }
}

/// A log with these records.
fn written(records: &[Outgoing]) -> (SimLog, Settings) {
    let mut settings = Settings::default();
    settings.topology.partitions = 1;
    let log = SimLog::new();
    log.create(&settings.topology.topics()).unwrap();
    log.transactional("test").unwrap().commit(records, &[], None).unwrap();
    (log, settings)
}

fn what_if(log: &SimLog, settings: &Settings, policy: &str, from_events: bool) -> anyhow::Result<Vec<String>> {
    let spec = serin_rollout::parse_yaml(policy).unwrap();
    let stories = WhatIf { log, settings, from_events }.stories(&spec, None)?;
    Ok(stories.iter().flat_map(|story| super::lines(story, "other")).collect())
}

#[test]
fn recorded_verdicts_are_recomputed_to_the_same_bytes_and_a_changed_one_is_found() {
    let mut tape = log_of(0.06);
    let verdicts = tape.iter().filter(|record| record.topic == VERDICTS).count() as u64;
    let (log, settings) = written(&tape);
    let (found, field) = recomputed(&log, &settings).unwrap();
    assert!(found.holds() && field.is_none(), "{found:?}");
    assert_eq!((found.equal, found.not_recomputed), (verdicts, 0));
    assert!(verdicts > 2);

    let place = tape.iter().rposition(|record| record.topic == VERDICTS).unwrap();
    let mut verdict: Verdict = codec::read(&tape[place].headers, tape[place].value.as_ref().unwrap()).unwrap();
    verdict.metrics[0].canary.n += 1;
    tape[place].value = Some(codec::encode(&verdict).unwrap().into());
    let (log, settings) = written(&tape);
    let (found, field) = recomputed(&log, &settings).unwrap();
    assert_eq!((found.equal, found.different), (verdicts - 1, 1));
    assert_eq!(field.as_ref().unwrap().field, "metrics[0].canary.n");
    assert!(!found.holds());
    let text = summary(&found, field.as_ref()).join("\n");
    assert!(text.contains("1 differ") && text.contains("metrics[0].canary.n: recorded "), "{text}");
}

/// Changes the recorded verdicts of a tape.
fn change_verdicts(tape: &mut [Outgoing], change: impl Fn(&mut Verdict)) {
    for record in tape.iter_mut().filter(|record| record.topic == VERDICTS) {
        let mut verdict: Verdict = codec::read(&record.headers, record.value.as_ref().unwrap()).unwrap();
        change(&mut verdict);
        record.value = Some(codec::encode(&verdict).unwrap().into());
    }
}

#[test]
fn sentences_of_another_build_may_differ_but_evidence_may_not() {
    let mut tape = log_of(0.06);
    let verdicts = tape.iter().filter(|record| record.topic == VERDICTS).count() as u64;
    change_verdicts(&mut tape, |verdict| {
        verdict.build = "0.0.1".to_owned();
        verdict.id = format!("old {}", verdict.id);
        verdict.sentence.push_str(", in other words");
        verdict.metrics.iter_mut().for_each(|metric| metric.sentence.push('!'));
        verdict.reasons.iter_mut().for_each(|reason| reason.sentence.push('!'));
        verdict.health.iter_mut().for_each(|issue| issue.sentence.push('!'));
    });
    let (log, settings) = written(&tape);
    let (found, field) = recomputed(&log, &settings).unwrap();
    assert_eq!((found.equal, found.without_sentences, found.different), (verdicts, verdicts, 0), "{field:?}");
    let text = summary(&found, None).join("\n");
    assert!(text.contains("all equal") && text.contains("compared without their sentences"), "{text}");

    // A different sentence of this build is a difference.
    let mut own = log_of(0.06);
    change_verdicts(&mut own, |verdict| verdict.sentence.push_str(", in other words"));
    let (log, settings) = written(&own);
    assert_eq!(recomputed(&log, &settings).unwrap().1.unwrap().field, "sentence");

    // Evidence is compared with every build.
    change_verdicts(&mut tape, |verdict| verdict.ln_e_rollback += 1e-9);
    let (log, settings) = written(&tape);
    assert_eq!(recomputed(&log, &settings).unwrap().1.unwrap().field, "ln_e_rollback");
}

#[test]
fn rollouts_of_unknown_rules_are_named_and_not_compared() {
    let mut tape = log_of(0.06);
    for record in tape.iter_mut().filter(|record| record.topic == WINDOWS || record.topic == EVENTS) {
        let body = record.value.as_ref().unwrap();
        if let Ok(mut control) = codec::read::<serin_schemas::records::Control>(&record.headers, body) {
            control.rules = 1000;
            record.value = Some(codec::encode(&control).unwrap().into());
        }
    }
    let (log, settings) = written(&tape);
    let (found, _) = recomputed(&log, &settings).unwrap();
    assert!(found.holds() && found.equal == 0 && found.other_rules.len() == 1, "{found:?}");
    let text = summary(&found, None).join("\n");
    assert!(text.contains("because this build knows rules"), "{text}");
}

#[test]
fn a_log_without_its_beginning_is_not_taken_for_a_difference() {
    let mut tape = log_of(0.06);
    let first = tape.iter().position(|record| record.topic == WINDOWS).unwrap();
    tape.remove(first);
    let (log, settings) = written(&tape);
    let (found, _) = recomputed(&log, &settings).unwrap();
    assert_eq!((found.different, found.cut_off.len()), (0, 1), "{found:?}");
    assert!(found.not_recomputed > 0);
    let error = what_if(&log, &settings, POLICY, false).unwrap_err().to_string();
    assert!(error.contains("the start of any rollout of model shop"), "{error}");
}

#[test]
fn another_policy_is_shown_next_to_the_recorded_one() {
    let (log, settings) = written(&log_of(0.06));
    let same = what_if(&log, &settings, POLICY, false).unwrap().join("\n");
    let lax = POLICY.replace("absolute: 0.01", "absolute: 0.2");
    let lax = what_if(&log, &settings, &lax, false).unwrap().join("\n");
    insta::assert_snapshot!(format!("the same policy:\n{same}\n\na laxer margin:\n{lax}"));
    // The events give the same result as the recorded windows.
    assert_eq!(what_if(&log, &settings, POLICY, true).unwrap().join("\n"), same);
}

#[test]
fn metrics_that_were_not_recorded_are_folded_again_from_the_events() {
    let (log, settings) = written(&log_of(0.01));
    let more = format!(
        "{POLICY}  - {{name: latency_mean, kind: {{mean: {{min: 0, max: 1000}}}}, source: latency, margin: {{relative: 0.1}}}}\n"
    );
    let error = what_if(&log, &settings, &more, false).unwrap_err().to_string();
    assert!(error.contains("metric \"latency_mean\" was not recorded") && error.contains("--events"), "{error}");
    let text = what_if(&log, &settings, &more, true).unwrap().join("\n");
    assert!(text.contains("other: next step after 2m 0s: nothing has failed in 5 checks"), "{text}");
}

#[test]
fn a_bad_canary_is_rolled_back_and_a_good_one_promoted() {
    let ends = |errors| {
        let tape = log_of(errors);
        let last = tape.iter().rev().find(|record| record.topic == serin_topology::AUDIT).unwrap();
        let event: serin_schemas::records::RolloutEvent =
            codec::read(&last.headers, last.value.as_ref().unwrap()).unwrap();
        let state: serin_rollout::RolloutState = serde_json::from_str(&event.state.unwrap()).unwrap();
        state.ending.unwrap().outcome
    };
    assert_eq!((ends(0.06), ends(0.01)), (Outcome::Evidence, Outcome::Promoted));
}
