//! Attacks with labels: forged labels, and labels for one version only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    APPS, TEAM_A,
    support::{PATIENCE, Pipeline, http, wait_until},
    world::{Behavior, MODEL, User, borrowed, infer, model_server, rollout, wall},
    writers,
};

/// Callers of the model that label each answer, until dropped.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// A sender of labels: its token, and its label for an answer of an arm, if any.
type Labeller = (&'static str, Label);
type Label = fn(arm: &str) -> Option<Value>;

impl Callers {
    /// Sends `per_second` calls per second to `router`. Each answer is labelled by all labellers, in this order.
    pub(crate) fn start(router: &str, per_second: u32, labellers: &'static [Labeller]) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, counted, router) = (Arc::clone(&stop), Arc::clone(&answers), router.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = reqwest::Client::new();
                let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
                while !asked.load(Ordering::Relaxed) {
                    pace.tick().await;
                    tokio::spawn(call(client.clone(), router.clone(), labellers, Arc::clone(&counted)));
                }
            });
        });
        Self { stop, answers, thread: Some(thread) }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

async fn call(client: reqwest::Client, router: String, labellers: &'static [Labeller], answers: Arc<AtomicU64>) {
    let request = client.post(format!("{router}/v2/models/{MODEL}/infer")).body(infer().to_string());
    let Ok(answer) = request.send().await else { return };
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (arm, id) = (header("x-model-arm"), header("x-prediction-id"));
    answers.fetch_add(u64::from(answer.bytes().await.is_ok()), Ordering::Relaxed);
    for (token, label) in labellers {
        let Some(mut body) = label(&arm) else { continue };
        body["prediction_id"] = json!(id);
        let request = client.post(format!("{router}/v1/feedback")).body(body.to_string());
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        drop(request.send().await);
    }
}

/// The true label, which agrees with the model.
#[expect(clippy::unnecessary_wraps, reason = "other labellers return `None`")]
pub(crate) fn honest(_arm: &str) -> Option<Value> {
    Some(json!({"values": {"late": 0}}))
}

/// The attack: every answer of the canary was wrong, with a revision that prevents other labels.
fn forged(arm: &str) -> Option<Value> {
    (arm == "canary").then(|| json!({"values": {"late": 1}, "revision": 1_000_000_000}))
}

/// The sum of a metric's samples whose labels contain `label`.
fn metric(pipeline: &Pipeline, name: &str, label: &str) -> f64 {
    let text = http(Method::GET, &format!("{}/metrics", pipeline.telemetry("up")), None).unwrap().text;
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Labels nine of ten answers, whatever the arm.
fn most(_arm: &str) -> Option<Value> {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    (!ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(10)).then(|| json!({"values": {"late": 0}}))
}

/// The attack: answers of control are never labelled.
fn of_canary(arm: &str) -> Option<Value> {
    (arm != "control").then(|| json!({"values": {"late": 0}}))
}

/// The reverse attack: answers of the canary are never labelled.
fn of_control(arm: &str) -> Option<Value> {
    (arm != "canary").then(|| json!({"values": {"late": 0}}))
}

/// The phase in which a rollout between equal versions ends or is held, with these labels.
fn outcome_with(labellers: &'static [Labeller]) -> (String, f64) {
    let (state, not_allowed) = state_with("3s", labellers);
    (state["phase"].as_str().unwrap().to_owned(), not_allowed)
}

fn state_with(bake: &str, labellers: &'static [Labeller]) -> (Value, f64) {
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Good));
    let mut settings = wall(&[("v1", &v1), ("v2", &v2)]);
    settings.extend(writers());
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let user = User(pipeline.api());
    let callers = Callers::start(&pipeline.router(), 100, labellers);
    let id = user.apply(&rollout("v2", bake));
    let mut state = Value::Null;
    wait_until(PATIENCE * 2, || {
        state = user.state(&id);
        Ok(["promoted", "completed", "rolled_back", "aborted", "held"]
            .contains(&state["phase"].as_str().unwrap_or_default()))
    })
    .unwrap_or_else(|error| panic!("{error}: {state:#}"));
    assert!(callers.answers.load(Ordering::Relaxed) > 100);
    (state, metric(&pipeline, "serin_label_join_total", "not_allowed"))
}

#[test]
fn labels_of_a_writer_for_other_models_have_no_effect() {
    // The forged label is sent first, with a revision that the true one does not exceed.
    let (phase, not_allowed) = outcome_with(&[(TEAM_A, forged), ("an-unknown-token-01", forged), (APPS, honest)]);
    assert!(["promoted", "completed"].contains(&phase.as_str()), "{phase}");
    assert!(not_allowed > 0.0);
}

#[test]
fn the_same_labels_of_a_writer_for_the_model_roll_back() {
    let (phase, not_allowed) = outcome_with(&[(APPS, forged), (APPS, honest)]);
    assert_eq!((phase.as_str(), not_allowed), ("rolled_back", 0.0));
}

/// A sender without a credential for the model labels none of its answers, so it does not affect the share of labelled answers.
#[test]
fn labels_without_a_credential_do_not_move_the_share_of_labelled_answers() {
    for labeller in [of_canary as Label, of_control] {
        let labellers: &[Labeller] = Box::leak(Box::new([(TEAM_A, labeller), ("", labeller), (APPS, most as Label)]));
        let (phase, not_allowed) = outcome_with(labellers);
        assert!(["promoted", "completed"].contains(&phase.as_str()), "{phase}");
        assert!(not_allowed > 0.0);
    }
}

/// A writer with a credential can label one arm only. This counts against neither version: the labels are not judged, and the rollout
/// is held for an operator.
#[test]
fn labels_of_one_arm_only_hold_the_rollout() {
    for labeller in [of_canary as Label, of_control] {
        let labellers: &[Labeller] = Box::leak(Box::new([(APPS, labeller)]));
        let (state, _) = state_with("20s", labellers);
        let sentence = state["sentence"].as_str().unwrap_or_default();
        assert_eq!(state["phase"], "held", "{state:#}");
        assert!(sentence.contains("label"), "{sentence}");
    }
}
