//! Tests the effect of each outcome: calls go through the folds of aggregator, analyzer and controller until the rollout ends.
//!
//! The rollout has no gate and no rule for an output, so only the built-in gates and the checks of the evidence can end it.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serin_rollout::planner::{Ending, Outcome as End};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{
        Arm, Assignment, Decision, Heartbeat, MetricResult, NoDataReason, Origin, Outcome, Phase, Prediction, Verdict,
        Writer,
    },
};

use crate::in_process::InProcess;

const SPEC: &str = "
apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {version: v1}
canary: {version: v2}
window: 1s
warmup: {minEvents: 500}
steps:
  - {weight: 30%, bake: {min: 5s, max: 10m}, require: pass}
  - {weight: 50%, bake: {min: 5s, max: 10m}, require: pass}
outputs:
  - {name: score, source: {tensor: p}}
metrics:
  - {name: score, kind: {mean: {min: 0, max: 1}}, source: {output: score}, margin: {absolute: 0.1}}
  - {name: latency_p99, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.5}}
";

/// Calls per second.
const RATE: i64 = 1000;
/// Number of seconds after which a rollout counts as waiting for an operator.
const LONGEST: usize = 300;

/// Changes the outcome of one call, as a router reports it.
type Answer = fn(Prediction) -> Prediction;

fn refused(one: Prediction) -> Prediction {
    Prediction { status: Some(422), outcome: Some(Outcome::Refused), outputs: [].into(), ..one }
}

fn redirected(one: Prediction) -> Prediction {
    Prediction { status: Some(302), outcome: Some(Outcome::Redirected), outputs: [].into(), ..one }
}

/// A stream with a good status that contained an error.
fn error_inside(one: Prediction) -> Prediction {
    let error = Some("error_message".to_owned());
    Prediction { outcome: Some(Outcome::Failed), error, outputs: [].into(), ..one }
}

fn unusable(one: Prediction) -> Prediction {
    let invalid_output = Some("nan".to_owned());
    Prediction { outcome: Some(Outcome::Unusable), invalid_output, outputs: [].into(), ..one }
}

fn unread(one: Prediction) -> Prediction {
    let unread = Some("too_large".to_owned());
    Prediction { outcome: Some(Outcome::Unread), unread, outputs: [].into(), ..one }
}

/// Few answers can be read, and these are bad.
fn unread_or_bad(one: Prediction) -> Prediction {
    let bad = one.completed_at.0 % 20_000 == 0;
    if bad { unusable(one) } else { unread(one) }
}

/// The caller left before the head of the answer.
fn cancelled(one: Prediction) -> Prediction {
    Prediction { status: None, ..left_midway(one) }
}

/// The caller left after the head of the answer, which may contain the version.
fn left_midway(one: Prediction) -> Prediction {
    let (error, latency_us) = (Some("client_closed".to_owned()), Some(60_000_000));
    Prediction { outcome: Some(Outcome::Cancelled), error, latency_us, outputs: [].into(), ..one }
}

/// A cancelled call as an old router reports it, without an outcome.
fn left(one: Prediction) -> Prediction {
    Prediction { outcome: None, ..cancelled(one) }
}

fn without_score(one: Prediction) -> Prediction {
    Prediction { outputs: [].into(), ..one }
}

/// A rollout that has been played.
struct Played {
    ending: Option<Ending>,
    phase: Phase,
    verdicts: Vec<Verdict>,
}

impl Played {
    fn last(&self) -> &Verdict {
        self.verdicts.last().unwrap()
    }

    /// The metrics that caused the rollback.
    #[track_caller]
    fn culprits(&self) -> Vec<&str> {
        let ending = self.ending.as_ref().unwrap_or_else(|| panic!("it goes on: {:#?}", self.last()));
        assert_eq!(ending.outcome, End::Evidence, "{ending:?}");
        ending.reasons.iter().map(|reason| reason.metric.as_str()).collect()
    }

    #[track_caller]
    fn is_promoted(&self) {
        let outcome = self.ending.as_ref().map(|ending| ending.outcome);
        assert_eq!(outcome, Some(End::Promoted), "{:#?}", self.last());
    }

    /// Checks that it is held for this reason alone, and that there is no finding against the canary.
    #[track_caller]
    fn is_held(&self, reason: NoDataReason) -> &str {
        let last = self.last();
        assert_eq!((self.phase, last.decision), (Phase::Held, Decision::Hold), "{last:#?}");
        assert_eq!(last.health.iter().map(|issue| issue.reason).collect::<Vec<_>>(), [reason]);
        assert!(last.reasons.is_empty() && self.ending.is_none());
        assert!(last.metrics.iter().all(|metric| metric.result != MetricResult::Fail), "{last:#?}");
        &last.health[0].sentence
    }
}

/// Plays a rollout in which a share of each arm's calls gets another outcome.
fn play(text: &str, canary: (f64, Answer), control: (f64, Answer)) -> Played {
    let spec = serin_rollout::parse_yaml(text).unwrap().normalized();
    let mut folds = InProcess::new(spec.model.clone(), serin_aggregator::Config::default()).unwrap();
    folds.apply(&spec).unwrap();
    let mut dice = ChaCha8Rng::seed_from_u64(11);
    let (mut seq, mut verdicts) = (0, Vec::new());
    let mut now = EventTime::from_secs(1_700_000_000);
    for _ in 0..LONGEST {
        for _ in 0..RATE {
            seq += 1;
            now = now.plus(Span(1_000_000 / RATE));
            let (bucket, mut low) = (dice.random_range(0..10_000), 0);
            let table = folds.table().unwrap().clone();
            let route = table.routes.iter().rev().find(|route| {
                low += route.share;
                bucket < low
            });
            let route = route.unwrap();
            let one = Prediction {
                request_id: format!("call-{seq}").into(),
                model: spec.model.clone(),
                version: route.version.clone(),
                arm: route.arm,
                assignment: Assignment::Random,
                origin: Origin::Router,
                rollout: table.rollout.clone(),
                generation: table.generation,
                completed_at: now,
                latency_us: Some((5_000.0 - 4_000.0 * (1.0 - dice.random::<f64>()).ln()) as i64),
                status: Some(200),
                error: None,
                invalid_output: None,
                unit: None,
                outputs: [("score".to_owned(), dice.random::<f64>())].into(),
                classes: [].into(),
                segments: [].into(),
                writer: Writer { name: "router".to_owned(), incarnation: 1, seq },
                outcome: Some(Outcome::Ok),
                unread: None,
                batch: None,
            };
            let (share, answer) = if route.arm == Arm::Canary { canary } else { control };
            let one = if dice.random::<f64>() < share { answer(one) } else { one };
            folds.event(one.request_id.as_str(), &one).unwrap();
        }
        let writer = Writer { name: "router".to_owned(), incarnation: 1, seq };
        folds
            .event(
                "",
                &Heartbeat { writer, low_watermark: now, drops: vec![], leaving: false, sent_at: None, relay: false },
            )
            .unwrap();
        folds.run_until_quiet().unwrap();
        verdicts.extend(folds.take_verdicts());
        if folds.state().unwrap().phase.is_final() {
            break;
        }
    }
    let state = folds.state().unwrap();
    Played { ending: state.ending.clone(), phase: state.phase, verdicts }
}

/// Plays a rollout in which half of the canary's calls get another outcome.
fn half(answer: Answer) -> Played {
    play(SPEC, (0.5, answer), (0.0, answer))
}

#[test]
fn a_canary_that_refuses_calls_is_rolled_back() {
    assert_eq!(half(refused).culprits(), ["refused"]);
    // If it refuses all calls, no answer contains a score. That must not delay the rollback.
    assert_eq!(play(SPEC, (1.0, refused), (0.0, refused)).culprits(), ["refused"]);
    // Callers make mistakes too, but it refuses more calls than these.
    assert_eq!(play(SPEC, (0.07, refused), (0.02, refused)).culprits(), ["refused"]);
}

#[test]
fn a_canary_that_redirects_calls_is_rolled_back() {
    assert_eq!(half(redirected).culprits(), ["refused"]);
    assert_eq!(play(SPEC, (1.0, redirected), (0.0, redirected)).culprits(), ["refused"]);
}

#[test]
fn a_canary_whose_answers_carry_errors_is_rolled_back() {
    assert_eq!(half(error_inside).culprits(), ["failed"]);
    assert_eq!(play(SPEC, (1.0, error_inside), (0.0, error_inside)).culprits(), ["failed"]);
}

#[test]
fn a_canary_with_unusable_answers_is_rolled_back() {
    assert_eq!(half(unusable).culprits(), ["unusable"]);
    assert_eq!(play(SPEC, (1.0, unusable), (0.0, unusable)).culprits(), ["unusable"]);
}

#[test]
fn errors_of_callers_on_both_arms_change_nothing() {
    for answer in [refused as Answer, redirected, cancelled, left, left_midway] {
        play(SPEC, (0.1, answer), (0.1, answer)).is_promoted();
    }
}

#[test]
fn callers_that_leave_the_canary_do_not_roll_it_back() {
    for answer in [cancelled as Answer, left] {
        let played = play(SPEC, (0.3, answer), (0.0, answer));
        let sentence = played.is_held(NoDataReason::CancelledShareDiffers);
        assert!(
            sentence.starts_with("callers cancelled 30.") || sentence.starts_with("callers cancelled 29."),
            "{sentence}"
        );
        let canary = played.last().arms.iter().find(|arm| arm.arm == Arm::Canary).unwrap();
        assert!(canary.cancelled > 0 && canary.errors == 0, "{canary:?}");
        // Cancelled calls are in no metric: they are neither errors nor slow answers.
        let n = |name: &str| played.last().metrics.iter().find(|metric| metric.metric == name).unwrap().canary.n;
        assert_eq!([n("failed"), n("latency_p99"), n("score")], [canary.predictions; 3]);
    }
    let warns = SPEC.replace("window: 1s", "window: 1s\nnoData: {cancelledShare: warn}");
    let played = play(&warns, (0.3, cancelled), (0.0, cancelled));
    played.is_promoted();
    assert!(played.verdicts.iter().any(|verdict| {
        verdict.decision == Decision::Promote
            && verdict.health.iter().any(|issue| issue.reason == NoDataReason::CancelledShareDiffers)
    }));
}

#[test]
fn callers_that_leave_after_the_head_of_the_answer_decide_nothing() {
    for share in [0.3, 0.9] {
        let played = play(SPEC, (share, left_midway), (0.0, left_midway));
        played.is_promoted();
        let warned = |verdict: &Verdict| {
            verdict.health.iter().any(|issue| {
                let in_the_middle = issue.sentence.contains("in the middle of the answer");
                issue.reason == NoDataReason::CancelledShareDiffers && issue.policy == "warn" && in_the_middle
            })
        };
        assert!(played.verdicts.iter().any(warned), "{:#?}", played.last());
        let canary = played.last().arms.iter().find(|arm| arm.arm == Arm::Canary).unwrap();
        assert!(canary.left > 0 && canary.left == canary.cancelled, "{canary:?}");
    }
    // Proxies write status 499 for a caller that left before the head, so the caller has not seen the version.
    let closed = |one: Prediction| Prediction { status: Some(499), ..left(one) };
    play(SPEC, (0.3, closed), (0.0, closed)).is_held(NoDataReason::CancelledShareDiffers);
}

#[test]
fn an_arm_with_unread_answers_is_held() {
    // Without a metric on an output, unread answers are the only problem.
    let text = SPEC
        .replace("{mean: {min: 0, max: 1}}, source: {output: score}", "{mean: {min: 0, max: 100}}, source: latency");
    let played = play(&text, (0.5, unread), (0.0, unread));
    let sentence = played.is_held(NoDataReason::UnreadShareDiffers);
    assert!(
        sentence.contains("of the canary's answers and 0.0 % of control's, so their contents are unknown"),
        "{sentence}"
    );
    // The same share on both arms is not a difference, but is reported. The same holds if the router can read none of the answers.
    for (share, gates) in [(0.5, "all 5 gates pass"), (1.0, "all 4 gates pass")] {
        let played = play(&text, (share, unread), (share, unread));
        played.is_promoted();
        let sentence =
            &played.verdicts.iter().rev().find(|verdict| verdict.decision == Decision::Promote).unwrap().sentence;
        assert!(sentence.contains(gates) && sentence.contains("; unusable saw only "), "{sentence}");
    }
    // The few answers that can be read are judged.
    assert_eq!(play(&text, (0.95, unread_or_bad), (0.95, unread)).culprits(), ["unusable"]);
}

#[test]
fn answers_without_the_value_of_a_metric_are_reported() {
    let played = half(without_score);
    let sentence = played.is_held(NoDataReason::ValueShareDiffers);
    assert!(sentence.contains("of the canary's answers carry the value of score, 100.0 % of control's"), "{sentence}");
    // A metric with values in half of both arms' answers passes, and its sentence contains the share.
    let played = play(SPEC, (0.5, without_score), (0.5, without_score));
    played.is_promoted();
    let last = played.verdicts.iter().rev().find(|verdict| verdict.decision == Decision::Promote).unwrap();
    assert!(last.sentence.contains("gates pass") && last.sentence.contains("; score saw only "), "{}", last.sentence);
    let score = last.metrics.iter().find(|metric| metric.metric == "score").unwrap();
    assert!(score.sentence.contains("; seen in ") && score.sentence.contains(" % of the canary's answers and "));
}
