//! Replays recorded flights as inference requests, in event time, through the router.
//!
//! For each window, it sends all flights as HTTP requests, then the feedback that became known in it (by prediction id
//! only). Then it moves the router's replay clock to the end of the window, which writes heartbeats, and the pipeline closes
//! the window. The next window starts when the pipeline has closed and applied this one, so the replay is never ahead.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, stream};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use serin_schemas::ids::{EventTime, Span};

use super::{data::FlightRecord, ids::PredictionIds};

/// Number of requests in flight, which keeps two cores busy.
const IN_FLIGHT: usize = 64;
/// Number of labels in one feedback request.
const FEEDBACK_BATCH: usize = 200;
/// How long a part of the pipeline may be down (killed and restarted) before the replay fails.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Base URLs of the pipeline.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// Base URL of the router's data plane.
    pub(super) router: String,
    /// Base URL of the router's admin port.
    pub(super) router_admin: String,
    /// Base URL of the controller's API.
    pub(super) api: String,
}

/// The answer to one call.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The arm of the version that answered.
    pub(super) arm: String,
    /// The version that answered.
    pub(super) version: String,
    /// The predicted probability.
    pub(super) probability: Option<f64>,
    /// The flight of the request.
    pub(super) flight: FlightRecord,
    /// The prediction id.
    pub(super) id: String,
}

/// A label that is not known yet.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    known_at: i64,
    id: String,
    late: bool,
}

/// Replays flights. One value is used for the whole demo, so that labels of earlier flights still arrive.
pub(crate) struct Replay {
    http: Client,
    endpoints: Endpoints,
    ids: PredictionIds,
    pending: BinaryHeap<Reverse<Pending>>,
    window: Span,
    model: &'static str,
    seed: u64,
    /// Requests sent so far.
    pub(super) requests: u64,
}

impl Replay {
    /// A replay through `endpoints` in windows of length `window`.
    pub(crate) fn new(endpoints: Endpoints, model: &'static str, window: Span, seed: u64) -> anyhow::Result<Self> {
        let http = Client::builder().pool_max_idle_per_host(IN_FLIGHT).timeout(Duration::from_secs(10)).build()?;
        let ids = PredictionIds::new(seed, 0);
        Ok(Self { http, endpoints, ids, pending: BinaryHeap::new(), window, model, seed, requests: 0 })
    }

    /// Sends the flights of one window and the labels that became known in it, then moves the clock to its end.
    ///
    /// Returns the answers and the moment at which the clock was moved.
    pub(crate) async fn window(
        &mut self,
        flights: &[FlightRecord],
        end: EventTime,
    ) -> anyhow::Result<(Vec<Answer>, Instant)> {
        let calls: Vec<(String, FlightRecord)> =
            flights.iter().map(|flight| (self.ids.next(flight.departed_at), flight.clone())).collect();
        self.requests += calls.len() as u64;
        let this = &*self;
        let answers: Vec<anyhow::Result<Answer>> =
            stream::iter(calls).map(|(id, flight)| this.call(id, flight)).buffer_unordered(IN_FLIGHT).collect().await;
        let answers = answers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for answer in &answers {
            self.pending.push(Reverse(Pending {
                known_at: answer.flight.label_at,
                id: answer.id.clone(),
                late: answer.flight.arrived_late(),
            }));
        }
        self.feed_back(end).await?;
        let moved = Instant::now();
        self.set_clock(end).await?;
        Ok((answers, moved))
    }

    /// Sends one inference request, with retries while the router is down.
    async fn call(&self, id: String, flight: FlightRecord) -> anyhow::Result<Answer> {
        let url = format!("{}/v2/models/{}/infer", self.endpoints.router, self.model);
        let body = json!({"id": id, "inputs": flight.features().to_oip()});
        let event_time = flight.departed_at * 1_000_000;
        let response = self
            .with_retries("a call to the router", || {
                self.http.post(&url).header("x-prediction-id", &id).header("x-serin-event-time", event_time).json(&body)
            })
            .await?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (arm, version) = (header("x-model-arm"), header("x-model-version"));
        let answer: Value = response.json().await.unwrap_or_default();
        let probability = answer["outputs"][0]["data"][0].as_f64();
        Ok(Answer { arm, version, probability, flight, id })
    }

    /// Sends every label that is known by `now`.
    async fn feed_back(&mut self, now: EventTime) -> anyhow::Result<()> {
        let mut due = Vec::new();
        while self.pending.peek().is_some_and(|Reverse(next)| next.known_at * 1_000_000 <= now.0) {
            let Some(Reverse(label)) = self.pending.pop() else { break };
            due.push(json!({
                "prediction_id": label.id,
                "values": {"late": if label.late { 1.0 } else { 0.0 }},
                "observed_at": label.known_at * 1_000_000,
            }));
        }
        let url = format!("{}/v1/feedback", self.endpoints.router);
        for batch in due.chunks(FEEDBACK_BATCH) {
            let response = self.with_retries("feedback", || self.http.post(&url).json(batch)).await?;
            if response.status() != StatusCode::ACCEPTED {
                bail!("the router refused feedback: {} {}", response.status(), response.text().await?);
            }
        }
        Ok(())
    }

    /// Moves the router's clock. Returns when the heartbeats are on the log.
    pub(super) async fn set_clock(&self, now: EventTime) -> anyhow::Result<()> {
        let url = format!("{}/replay/clock", self.endpoints.router_admin);
        let response =
            self.with_retries("the replay clock", || self.http.put(&url).json(&json!({"now_us": now.0}))).await?;
        if !response.status().is_success() {
            bail!("the router refused the clock: {} {}", response.status(), response.text().await?);
        }
        Ok(())
    }

    /// The end of the window that contains `at`.
    pub(crate) fn window_end(&self, at: EventTime) -> EventTime {
        at.window_end(self.window)
    }

    /// Length of the windows.
    pub(crate) fn length(&self) -> Span {
        self.window
    }

    /// Starts a rollout with its own ids. Drops labels that are not known yet, because their rollout is over.
    pub(super) fn start_rollout(&mut self, rollout: u64) {
        self.pending.clear();
        self.ids = PredictionIds::new(self.seed, rollout);
    }

    /// Repeats a request while its receiver is down or not ready.
    async fn with_retries(
        &self,
        what: &str,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> anyhow::Result<reqwest::Response> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let problem = match request().send().await {
                Ok(response) if response.status() != StatusCode::SERVICE_UNAVAILABLE => return Ok(response),
                Ok(response) => anyhow::anyhow!("{}", response.status()),
                Err(error) => error.into(),
            };
            if Instant::now() > deadline {
                return Err(problem).with_context(|| format!("{what}: no answer for {} s", TIMEOUT.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
