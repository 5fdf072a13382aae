//! Copies of calls for shadows: sent beside the live call, never waited for, bounded by number and by time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serin_schemas::{
    ids::RequestId,
    records::{Arm, Capture},
};
use serin_sketches::hash::{Salt, bucket};

use crate::{
    body::{Listening, RequestBody},
    examples::{Answered, differences, keep},
    exchange::Outgoing,
    flights::Flight,
    guard::{Called, Guard, Said},
    protocol::grpc,
    serve::Worker,
    split::Choice,
    state::Shared,
    table::{Shadow, Table},
    upstream::{Cause, Delivery},
};

/// Tells a server that its answer is for nobody.
pub(crate) const MIRROR: HeaderName = HeaderName::from_static("x-serin-mirror");

/// The two answers to one call, until both are there.
pub(crate) struct Pair {
    shared: Arc<Shared>,
    table: Arc<Table>,
    request_id: RequestId,
    request: Bytes,
    /// The live answer, and the mirror's.
    halves: Mutex<(Option<Answered>, Option<Answered>)>,
}

impl Pair {
    fn new(shared: &Arc<Shared>, table: &Arc<Table>, called: &Called, request: &Bytes) -> Self {
        Self {
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            request_id: called.request_id.clone(),
            request: request.clone(),
            halves: Mutex::default(),
        }
    }

    /// Takes one half. With the second one the pair is kept, if it is worth it.
    pub(crate) fn put(&self, half: Answered) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if half.prediction.arm == Arm::Shadow {
            halves.1 = Some(half);
        } else {
            halves.0 = Some(half);
        }
        if let (Some(live), Some(shadow)) = (&halves.0, &halves.1) {
            self.consider(live, shadow);
            *halves = (None, None);
        }
    }

    fn consider(&self, live: &Answered, shadow: &Answered) {
        let Some(spec) = &self.table.policy.capture else { return };
        let differences = differences(&live.prediction, &shadow.prediction, spec.tolerance);
        let differ = spec.disagreements && !differences.is_empty();
        let drawn = || {
            let salt = Salt::new(format!("examples\0{}", self.table.record.salt).as_bytes());
            i32::from(bucket(salt.hash(self.request_id.as_str().as_bytes()))) < spec.share.0
        };
        if !differ && !drawn() {
            return;
        }
        let model = self.table.record.model.as_str();
        let minute = self.shared.clock.source().steady().as_secs() / 60;
        let mut examples = self.shared.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if !examples.entry(model.to_owned()).or_default().take(minute, spec.per_minute) {
            self.shared.metrics.example(model, "over_budget");
            return;
        }
        drop(examples);
        let most = spec.max_bytes as usize;
        let reason = if differ { "disagreement" } else { "sample" };
        let capture = Capture {
            request_id: self.request_id.clone(),
            model: self.table.record.model.clone(),
            rollout: self.table.record.rollout.clone(),
            generation: self.table.record.generation,
            at: self.shared.clock.now().unwrap_or_default(),
            reason: reason.to_owned(),
            differences,
            request: keep(&self.request, &spec.redact, most),
            request_bytes: self.request.len() as i64,
            live: live.captured(&spec.redact, most),
            shadow: shadow.captured(&spec.redact, most),
        };
        let kept = match self.shared.events.capture(&capture) {
            Ok(()) => reason,
            Err(error) => {
                tracing::debug!(%error, %model, "an example was lost");
                "lost"
            }
        };
        self.shared.metrics.example(model, kept);
    }
}

/// Sends copies of a call to the shadows that take one. Returns the pairs that the live answer is a half of.
pub(crate) fn send(
    worker: &Arc<Worker>,
    table: &Arc<Table>,
    called: &Called,
    live: &Choice,
    kept: Option<&Bytes>,
    request: impl Fn(&Shadow, RequestBody) -> Outgoing,
) -> Vec<Arc<Pair>> {
    let shared = &worker.shared;
    let mut pairs = Vec::new();
    // Who answers a pinned or targeted call is nobody's lot, and a comparison with it says nothing.
    if table.shadows.is_empty() || !live.assignment.is_compared() {
        return pairs;
    }
    let others = |shadow: &&Shadow| shadow.route.version != live.route.version;
    for (index, shadow) in table.shadows.iter().enumerate().filter(|(_, shadow)| others(shadow)) {
        if !shadow.takes(called.request_id.as_str()) {
            continue;
        }
        let told = |outcome| shared.metrics.mirrored(&shadow.route, outcome);
        let Some(kept) = kept else {
            told("too_large");
            continue;
        };
        let Some(flight) = shadow.route.flights.enter(shadow.most) else {
            told("capped");
            continue;
        };
        told("sent");
        let pair = table.policy.capture.as_ref().map(|_| Arc::new(Pair::new(shared, table, called, kept)));
        pairs.extend(pair.clone());
        let outgoing = request(shadow, RequestBody::Kept(Some(kept.clone())));
        let called = Called { _slot: Arc::new(shared.arrive(called.arrived).copy()), ..called.clone() };
        let copy = Copied {
            worker: Arc::clone(worker),
            table: Arc::clone(table),
            called: Arc::new(called),
            choice: Choice { route: Arc::clone(&shadow.route), ..live.clone() },
            index,
        };
        worker.beside(copy.run(outgoing, flight, pair));
    }
    pairs
}

/// One copy on its way.
struct Copied {
    worker: Arc<Worker>,
    table: Arc<Table>,
    called: Arc<Called>,
    choice: Choice,
    /// Place of its shadow in the table.
    index: usize,
}

impl Copied {
    async fn run(self, mut outgoing: Outgoing, flight: Flight, pair: Option<Arc<Pair>>) {
        let shadow = &self.table.shadows[self.index];
        outgoing.headers_mut().insert(MIRROR, HeaderValue::from_static("1"));
        let suffix = format!(".shadow.{}", shadow.route.version);
        let cut = flight.cut();
        let mut guard = Guard::new(&self.worker.shared, &self.table, &self.called, &self.choice, suffix, flight);
        guard.pair(pair.into_iter().collect());
        if !shadow.on_trial {
            guard.detach();
        }
        let ended = tokio::select! {
            ended = tokio::time::timeout(shadow.timeout, self.exchange(outgoing, &mut guard)) => ended.unwrap_or(Err(Cause::Timeout)),
            () = cut => Err(Cause::Cut),
        };
        match ended {
            Ok((headers, said)) => guard.complete(&headers, said),
            Err(cause) => guard.fail(cause),
        }
    }

    /// Sends the copy and reads the answer to its end.
    async fn exchange(&self, outgoing: Outgoing, guard: &mut Guard) -> Result<(HeaderMap, Said), Cause> {
        let shared = &self.worker.shared;
        let rules = shared.server_rules(false);
        let place = self.choice.route.servers.pick(&rules, shared.clock.source())?;
        let response = outgoing.send(&self.worker.upstreams, &guard.at(place).base).await?;
        guard.head(response.status(), response.headers());
        read(response, guard, shared.config().limits.keep_body).await
    }
}

/// Reads an answer to its end, and listens to it.
async fn read(response: Response<Delivery>, guard: &mut Guard, keep: usize) -> Result<(HeaderMap, Said), Cause> {
    let (head, mut incoming) = response.into_parts();
    let mut listening = Listening::new(head.status, &head.headers, guard.called(), keep);
    while !incoming.is_end_stream() {
        let Some(frame) = incoming.frame().await else { break };
        match frame.map_err(|_| Cause::Truncated)?.into_data() {
            Ok(data) => {
                guard.passed(&data);
                listening.hear(&data, || guard.elapsed());
            }
            Err(frame) => {
                if let Some(code) = frame.trailers_ref().and_then(grpc::status) {
                    guard.grpc_status(code);
                }
            }
        }
    }
    Ok((head.headers, listening.end(None)))
}
