//! Copies of calls for shadows. They are sent in addition to the live call, which never waits for them, and are bounded in number and time.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::{
    body::request::RequestBody,
    call::worker::Worker,
    protocol::{grpc, headers::MIRROR},
    report::{
        called::Called,
        example::Example,
        guard::Guard,
        listening::{Received, Recorder},
    },
    tables::{
        split::Choice,
        table::{Shadow, Table},
    },
    upstream::{cause::Cause, flights::Flight, outgoing::Outgoing, pool::Delivery},
};

/// Sends copies of a call to the shadows that take one. Returns the examples to which the live answer belongs.
pub(super) fn send(
    worker: &Arc<Worker>,
    table: &Arc<Table>,
    called: &Called,
    live: &Choice,
    kept: Option<&Bytes>,
    request: impl Fn(&Shadow, RequestBody) -> Outgoing,
) -> Vec<Arc<Example>> {
    let shared = &worker.shared;
    let mut examples = Vec::new();
    // The version of a pinned or targeted call was not chosen at random, so a comparison with it would be biased.
    if table.shadows.is_empty() || !live.assignment.is_compared() {
        return examples;
    }
    let others = |shadow: &&Shadow| shadow.route.version != live.route.version;
    for (index, shadow) in table.shadows.iter().enumerate().filter(|(_, shadow)| others(shadow)) {
        if !shadow.takes(called.request_id.as_str()) {
            continue;
        }
        let count = |outcome| shared.metrics.mirrored(&shadow.route, outcome);
        let Some(kept) = kept else {
            count("too_large");
            continue;
        };
        let Some(flight) = shadow.route.flights.enter(shadow.most) else {
            count("capped");
            continue;
        };
        count("sent");
        let example = table.policy.capture.as_ref().map(|_| Arc::new(Example::new(shared, table, called, kept)));
        examples.extend(example.clone());
        let outgoing = request(shadow, RequestBody::Kept(Some(kept.clone())));
        let called = Called {
            trace: called.trace.as_ref().map(|trace| Arc::new(trace.for_copy())),
            _slot: Arc::new(shared.arrive(called.arrived).copy()),
            ..called.clone()
        };
        let copy = Copied {
            worker: Arc::clone(worker),
            table: Arc::clone(table),
            called: Arc::new(called),
            choice: Choice { route: Arc::clone(&shadow.route), ..live.clone() },
            index,
        };
        worker.spawn_copy(copy.run(outgoing, flight, example));
    }
    examples
}

/// One copy in flight.
struct Copied {
    worker: Arc<Worker>,
    table: Arc<Table>,
    called: Arc<Called>,
    choice: Choice,
    /// Index of its shadow in the table.
    index: usize,
}

impl Copied {
    async fn run(self, mut outgoing: Outgoing, flight: Flight, example: Option<Arc<Example>>) {
        let shadow = &self.table.shadows[self.index];
        outgoing.headers_mut().insert(MIRROR, HeaderValue::from_static("1"));
        let suffix = format!(".shadow.{}", shadow.route.version);
        let cut = flight.cut();
        let mut guard = Guard::new(&self.worker.shared, &self.table, &self.called, &self.choice, suffix, flight);
        guard.put_trace(outgoing.headers_mut());
        guard.compare(example.into_iter().collect());
        if !shadow.on_trial {
            guard.detach();
        }
        let ended = tokio::select! {
            ended = tokio::time::timeout(shadow.timeout, self.exchange(outgoing, &mut guard)) => ended.unwrap_or(Err(Cause::Timeout)),
            () = cut => Err(Cause::Cut),
        };
        match ended {
            Ok((headers, received)) => guard.complete(&headers, received),
            Err(cause) => guard.fail(cause),
        }
    }

    /// Sends the copy and reads the answer to its end.
    async fn exchange(&self, outgoing: Outgoing, guard: &mut Guard) -> Result<(HeaderMap, Received), Cause> {
        let shared = &self.worker.shared;
        let rules = shared.server_rules(false);
        let place = self.choice.route.servers.pick(&rules, shared.clock.source())?;
        let response = outgoing.send(&self.worker.upstreams, &guard.at(place).base).await?;
        guard.head(response.status(), response.headers());
        read(response, guard, shared.config().limits.keep_body).await
    }
}

/// Reads an answer to its end and analyzes it.
async fn read(response: Response<Delivery>, guard: &mut Guard, keep: usize) -> Result<(HeaderMap, Received), Cause> {
    let (head, mut incoming) = response.into_parts();
    let mut recorder = Recorder::new(head.status, &head.headers, guard.called(), keep);
    while !incoming.is_end_stream() {
        let Some(frame) = incoming.frame().await else { break };
        match frame.map_err(|_| Cause::Truncated)?.into_data() {
            Ok(data) => {
                guard.passed(&data);
                recorder.record(&data, || guard.elapsed());
            }
            Err(frame) => {
                if let Some(code) = frame.trailers_ref().and_then(grpc::status) {
                    guard.grpc_status(code);
                }
            }
        }
    }
    Ok((head.headers, recorder.end(None)))
}
