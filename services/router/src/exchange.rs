//! The exchange of one call with one version: what its servers are sent, and how their answer comes back.

use std::{pin::pin, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header, response::Parts, uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::{
    answer,
    body::{AnswerBody, Cut, Listening, Pieces, RequestBody, Upload, within},
    call::{Attempt, Call, EVENT_TIME, Failed, MODEL, PIN_TOKEN, PREDICTION_ID, REQUEST_ID, VERSION},
    config::span,
    flights::Flight,
    guard::Guard,
    protocol::{Wire, grpc},
    table::Route,
    upstream::{self, Base, Cause, Delivery, Upstreams},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Call<'_> {
    /// The request's headers as an upstream gets them.
    pub(crate) fn prepare(&mut self) {
        let (headers, is_grpc) = (&mut self.headers, self.target.wire == Wire::Grpc);
        upstream::strip_hop_by_hop(headers);
        for name in [MODEL, VERSION, EVENT_TIME, PIN_TOKEN] {
            headers.remove(name);
        }
        if let Some(host) = headers.remove(header::HOST) {
            headers.entry(FORWARDED_HOST).or_insert(host);
        }
        let scheme = HeaderValue::from_static(if self.peer.secure { "https" } else { "http" });
        headers.entry(FORWARDED_PROTO).or_insert(scheme);
        let forwarded = match headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
            Some(before) => HeaderValue::from_str(&format!("{before}, {}", self.peer.address.ip())).ok(),
            None => self.peer.name.clone(),
        };
        headers.extend(forwarded.map(|value| (FORWARDED_FOR, value)));
        if let Ok(value) = HeaderValue::from_str(self.id.as_str()) {
            self.request_id = Some(headers.entry(REQUEST_ID).or_insert_with(|| value.clone()).clone());
            headers.insert(PREDICTION_ID, value.clone());
            self.prediction_id = Some(value);
        }
        if is_grpc {
            upstream::offer_trailers(headers);
        }
    }

    /// Sends the request to a version and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        outgoing: Outgoing,
        server: &Base,
        upload: Option<&Upload>,
    ) -> Result<Response<Delivery>, Cause> {
        let timeouts = &self.config.timeouts;
        let patience = if self.target.both_stream { span(timeouts.stream) } else { span(timeouts.first_byte) };
        let mut response = pin!(outgoing.send(&self.worker.upstreams, server));
        loop {
            match within(patience, &mut response).await {
                Some(sent) => return sent,
                // The caller still sends, within its own limits of time.
                None if upload.is_some_and(|upload| upload.ended().is_none()) && !self.target.both_stream => {}
                None => return Err(Cause::Timeout),
            }
        }
    }

    /// The request as servers of a version get it.
    pub(crate) fn outgoing(&self, route: &Route, body: RequestBody, headers: HeaderMap) -> Outgoing {
        let is_grpc = self.target.wire == Wire::Grpc;
        let path_version = route.path_version.as_deref();
        let mut request = Box::new(Request::new(match &self.named {
            Some(named) => body.change(|head| grpc::with_version(&head, named, path_version)),
            None => body,
        }));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        if is_grpc {
            // The first message may have another length now, and gRPC needs none.
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        if let Some(version) = &route.header {
            request.headers_mut().insert(VERSION, version.clone());
        }
        let grpc = route.grpc.as_ref().filter(|_| is_grpc).map(|base| Box::new(base.clone()));
        Outgoing { request, path: self.target.upstream(path_version, self.uri), grpc, is_grpc }
    }

    /// Longest wait for a piece of the answer.
    pub(crate) fn pause(&self) -> Duration {
        let timeouts = &self.config.timeouts;
        span(if self.target.both_stream { timeouts.stream } else { timeouts.idle })
    }

    /// The answer: whole if it is small, else passing through.
    pub(crate) async fn receive(
        &self,
        response: Response<Delivery>,
        mut guard: Guard,
        route: &Route,
        mut cutter: Cutter,
    ) -> Result<Attempt, answer::Refusal> {
        let (head, mut incoming) = response.into_parts();
        let pause = self.pause();
        let keep = self.config.limits.keep_body;
        let listens = guard.is_told() || self.target.may_chat();
        let listening = if listens {
            Listening::new(head.status, &head.headers, guard.called(), keep)
        } else {
            Listening::default()
        };
        // gRPC has its status behind the body, and the pieces of a stream go on as they come.
        let passes = self.target.wire == Wire::Grpc || listening.is_stream();
        let whole = if passes { None } else { incoming.size_hint().exact() };
        let Some(size) = whole.filter(|&size| size <= keep as u64) else {
            let headers = if listens { head.headers.clone() } else { HeaderMap::new() };
            let body = AnswerBody::passing(incoming, Some(guard), (listening, headers), pause, cutter.0);
            return Ok(Attempt::Answered(self.finish(head, route, body)));
        };
        let mut whole = Pieces::default();
        while (whole.bytes().len() as u64) < size {
            let frame = async { within(pause, incoming.frame()).await.ok_or(Cause::Timeout) };
            let cause = match cutter.unless(frame).await {
                Ok(Some(Ok(frame))) => {
                    whole.push(frame.into_data().unwrap_or_default());
                    continue;
                }
                Ok(None) => break,
                Ok(Some(Err(_))) => Cause::Truncated,
                Err(cause) => cause,
            };
            guard.fail(cause);
            return Ok(Attempt::Failed(Failed::Cause(cause)));
        }
        let whole = whole.join();
        guard.passed(&whole);
        guard.complete(&head.headers, listening.end(Some(&whole)));
        Ok(Attempt::Answered(self.finish(head, route, AnswerBody::whole(whole))))
    }

    /// The answer's head as the caller gets it.
    pub(crate) fn finish(&self, mut head: Parts, route: &Route, body: AnswerBody) -> Response<AnswerBody> {
        upstream::strip_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let mut response = Response::from_parts(head, body);
        answer::mark(response.headers_mut(), route, self.prediction_id.clone(), &self.config.answers);
        if let Some(id) = &self.request_id {
            response.headers_mut().entry(REQUEST_ID).or_insert_with(|| id.clone());
        }
        response
    }
}

/// A request that has no server yet.
pub(crate) struct Outgoing {
    /// In a box, for it goes through many hands.
    request: Box<Request<RequestBody>>,
    path: Option<PathAndQuery>,
    /// Where the version's servers speak gRPC, if it is asked for and not there where they speak HTTP.
    grpc: Option<Box<Base>>,
    is_grpc: bool,
}

impl Outgoing {
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    /// Sends it to one server.
    pub(crate) async fn send(self, upstreams: &Upstreams, server: &Base) -> Result<Response<Delivery>, Cause> {
        let base = self.grpc.as_deref().unwrap_or(server);
        let path = self.path.ok_or(Cause::Connect)?;
        upstreams.request(base, path, self.request, self.is_grpc || base.is_h2c()).await
    }
}

/// Cuts a call on a version that was rolled back; nothing for other calls.
pub(crate) struct Cutter(Option<Cut>);

impl Cutter {
    pub(crate) fn of(route: &Route, flight: &Flight) -> Self {
        Self(route.drains().then(|| Box::pin(flight.cut()) as Cut))
    }

    /// Waits for `what`, unless the call is cut first.
    pub(crate) async fn unless<T>(&mut self, what: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
        let Some(cut) = &mut self.0 else { return what.await };
        tokio::select! {
            done = what => done,
            () = cut => Err(Cause::Cut),
        }
    }
}
