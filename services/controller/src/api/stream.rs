//! `GET /v1/stream`: server-sent events about all rollouts, and about one in detail.
//!
//! A stream sends states, not differences: first a snapshot, then the whole summary of each rollout that has changed. The id of a
//! message is the number of the [view's](crate::view::View) snapshot that it brings the client to. A client that reconnects with
//! it (`Last-Event-ID`) gets what has changed since. An id of another process, or of before the log was read again, gets a
//! snapshot. So a client that misses messages is right again after the next ones, and a slow one skips states.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response, Sse, sse::Event},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serin_schemas::ids::{EventTime, RolloutId};
use tokio::sync::mpsc;

use super::{
    auth::Caller,
    queries::{PointShown, Shown},
    state::{ApiState, Failure},
    summary::Summary,
};
use crate::view::View;

/// Messages that wait for the client. When they are full, further changes are merged.
const QUEUE: usize = 16;
/// Shortest time between two batches of changes.
const PACE: Duration = Duration::from_millis(500);
/// Longest time without a message.
const TICK: Duration = Duration::from_secs(5);
/// How long a client waits before it reconnects.
const RETRY: Duration = Duration::from_secs(1);

/// `?rollout=`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Detail {
    /// The rollout whose state and verdicts are sent too.
    rollout: Option<String>,
}

/// Sends changes until the client leaves, its session is over, or the API stops.
pub(super) async fn stream(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(detail): Query<Detail>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let rollout = match detail.rollout {
        Some(text) => Some(state.rollout(&text).await?.id),
        None => None,
    };
    let Ok(place) = Arc::clone(&state.0.streams).try_acquire_owned() else {
        let error = "this controller serves as many event streams as it can; close one, or ask again later";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).coded("too_many_streams"));
    };
    let from = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let (out, mut messages) = mpsc::channel::<Event>(QUEUE);
    let sender = Sender { state, caller, rollout, out, sent: Sent::default() };
    tokio::spawn(async move {
        sender.run(from).await;
        drop(place);
    });
    let messages =
        futures::stream::poll_fn(move |cx| messages.poll_recv(cx).map(|event| event.map(Ok::<_, Infallible>)));
    let mut response = Sse::new(messages).into_response();
    // A proxy that collects the response would delay it.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// What the client has.
#[derive(Default)]
struct Sent {
    /// Epoch and number of the snapshot that it was brought to.
    position: Option<(String, u64)>,
    /// Summaries that reports of routers may still change, as they were sent.
    unsettled: BTreeMap<RolloutId, Summary>,
    /// The detailed state, as it was sent.
    state: String,
    /// Time of the newest verdict.
    as_of: Option<EventTime>,
}

/// Writes one stream.
struct Sender {
    state: ApiState,
    caller: Caller,
    rollout: Option<RolloutId>,
    out: mpsc::Sender<Event>,
    sent: Sent,
}

/// The client has left, or may not read any longer.
struct Over;

impl Sender {
    async fn run(mut self, from: Option<String>) {
        self.sent.position = from.and_then(|id| {
            let (epoch, revision) = id.rsplit_once('-')?;
            Some((epoch.to_owned(), revision.parse().ok()?))
        });
        let mut views = self.state.0.view.clone();
        let mut next_tick = Instant::now();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let batch = if view.caught_up() { self.batch(&view) } else { Vec::new() };
            let paced = tokio::time::Instant::now() + PACE;
            for event in batch {
                if self.out.send(event).await.is_err() {
                    return;
                }
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                if self.tick(&view).await.is_err() {
                    return;
                }
            }
            let tick = tokio::time::Instant::from_std(next_tick);
            tokio::select! {
                () = self.out.closed() => return,
                () = tokio::time::sleep_until(tick) => {}
                changed = views.changed() => {
                    // The reader has ended: the API stops.
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep_until(paced).await;
                }
            }
        }
    }

    /// Sends the time, which shows that the stream is alive, and ends it with the session.
    async fn tick(&self, view: &View) -> Result<(), Over> {
        let now_ms = self.state.now_ms();
        if self.caller.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms) {
            let ended = json!({"code": "session_over", "error": "the session is over; sign in again"});
            let _ = self.out.send(Event::default().event("ended").data(ended.to_string())).await;
            return Err(Over);
        }
        let time = json!({"now": EventTime(now_ms.saturating_mul(1000)), "read": view.caught_up()});
        self.out.send(Event::default().event("time").data(time.to_string())).await.map_err(|_| Over)
    }

    /// The messages that bring the client to this view.
    fn batch(&mut self, view: &View) -> Vec<Event> {
        let (epoch, revision) = view.position();
        let known =
            self.sent.position.take().filter(|(its, at)| its == epoch && *at <= revision && view.forgot() <= *at);
        let mut batch = match &known {
            Some((_, at)) => self.changes(view, *at),
            None => vec![self.snapshot(view)],
        };
        batch.extend(self.details(view));
        // Only the last message has the id: a client that misses one of the batch gets all of it again.
        if let Some(last) = batch.pop() {
            batch.push(last.id(format!("{epoch}-{revision}")));
        }
        self.sent.position = Some((epoch.to_owned(), revision));
        batch
    }

    fn snapshot(&mut self, view: &View) -> Event {
        let summaries: Vec<Summary> = view.rollouts().filter_map(|rollout| self.state.summary(view, rollout)).collect();
        self.sent.unsettled = summaries
            .iter()
            .filter(|summary| !summary.is_settled)
            .map(|summary| (summary.id.clone(), summary.clone()))
            .collect();
        let now = EventTime(self.state.now_ms().saturating_mul(1000));
        message("snapshot", &json!({"now": now, "rollouts": summaries})).retry(RETRY)
    }

    /// The summaries that differ from those of snapshot number `at`.
    fn changes(&mut self, view: &View, at: u64) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, rollout) in view.all() {
            let before = self.sent.unsettled.get(id);
            if rollout.revision <= at && before.is_none() {
                continue;
            }
            let Some(summary) = self.state.summary(view, rollout) else { continue };
            if before != Some(&summary) {
                events.push(message("rollout", &summary));
            }
            if summary.is_settled {
                self.sent.unsettled.remove(id);
            } else {
                self.sent.unsettled.insert(id.clone(), summary);
            }
        }
        events
    }

    /// The state and the newest verdict of the rollout that the client asked about.
    fn details(&mut self, view: &View) -> Vec<Event> {
        let Some(rollout) = self.rollout.as_ref().and_then(|id| view.rollout(id.as_str())) else { return Vec::new() };
        let mut events = Vec::new();
        if let Some(shown) = Shown::of(&self.state, view, rollout) {
            let text = in_json(&shown);
            if text != self.sent.state {
                events.push(Event::default().event("state").data(text.as_str()));
                self.sent.state = text;
            }
        }
        if let Some(point) = rollout.series.newest().filter(|point| Some(point.as_of) > self.sent.as_of) {
            self.sent.as_of = Some(point.as_of);
            events.push(message("verdict", &PointShown::of(rollout, point)));
        }
        events
    }
}

fn message(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(in_json(data))
}

fn in_json(data: &impl Serialize) -> String {
    // The types of this module have string keys and no failing serializers.
    serde_json::to_string(data).unwrap_or_default()
}
