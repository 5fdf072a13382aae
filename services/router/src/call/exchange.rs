//! The exchange of one call with one version: sending the request to its servers and receiving the answer.

use std::{mem, pin::pin, sync::Arc};

use http::{HeaderMap, Response, Version, response::Parts};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::{
    body::{
        Pieces,
        request::{BodyError, Taken, Upload},
        within,
    },
    call::{answer, request::Call},
    config::{base::Base, span},
    content::outcome::Unread,
    protocol::{Wire, headers::REQUEST_ID, refusal::Refusal},
    report::{
        called::Called,
        example::Example,
        guard::{Guard, is_last_resort},
        listening::{Received, Recorder},
        passing::AnswerBody,
    },
    tables::{route::Route, split::Choice},
    upstream::{
        cause::{Cause, Failed},
        flights::Cutter,
        headers::strip_hop_by_hop,
        outgoing::Outgoing,
        pool::Delivery,
    },
};

impl Call<'_> {
    /// Calls one version and reports the call.
    pub(crate) async fn attempt(
        &mut self,
        called: &Arc<Called>,
        choice: &Choice,
        taken: Taken,
        event: Event,
        spare: bool,
    ) -> Result<Attempt, Refusal> {
        let route = &*choice.route;
        // There is no bound, so this always succeeds.
        let flight = route.flights.enter(usize::MAX).ok_or(Refusal::Overloaded)?;
        let mut cutter = Cutter::of(&flight, route.drains());
        let mut guard = Guard::new(self.shared, &self.table, called, choice, event.suffix, flight);
        guard.compare(event.examples);
        let rules = self.shared.server_rules(is_last_resort(&self.table, route));
        let place = match route.servers.pick(&rules, self.shared.clock.source()) {
            Ok(place) => place,
            Err(cause) => {
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        if let Some(upload) = &taken.upload {
            guard.follow(Arc::clone(upload));
        }
        let mut headers = if spare { self.headers.clone() } else { mem::take(&mut self.headers) };
        guard.put_trace(&mut headers);
        let outgoing = self.outgoing(route, taken.body, headers);
        let sent = {
            let sent = pin!(self.send(outgoing, &guard.at(place).base, taken.upload.as_deref()));
            cutter.unless(sent).await
        };
        let response = match sent {
            Ok(response) => response,
            Err(cause) => {
                if let Some(fault) = taken.upload.and_then(|upload| upload.fault()) {
                    match fault {
                        // The router refused the call, so it does not count for the version.
                        BodyError::TooLarge => guard.abandon(),
                        BodyError::Slow | BodyError::Broken | BodyError::NoRoom => guard.fail(cause),
                    }
                    return Err(fault.into());
                }
                guard.fail(cause);
                return Ok(Attempt::Failed(Failed::Cause(cause)));
            }
        };
        guard.head(response.status(), response.headers());
        if spare && response.status().is_server_error() {
            guard.complete(response.headers(), Received::Unread(Unread::NotAsked));
            return Ok(Attempt::Failed(Failed::Status(response.status())));
        }
        self.receive(response, guard, route, cutter).await
    }

    /// Sends the request to a version and waits for the head of its answer.
    pub(super) async fn send(
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
                // The caller is still sending; its own timeouts apply.
                None if upload.is_some_and(|upload| upload.ended().is_none()) && !self.target.both_stream => {}
                None => return Err(Cause::Timeout),
            }
        }
    }

    /// Receives the answer: as a whole if it is small, otherwise as a stream that is passed through.
    async fn receive(
        &self,
        response: Response<Delivery>,
        mut guard: Guard,
        route: &Route,
        mut cutter: Cutter,
    ) -> Result<Attempt, Refusal> {
        let (head, mut incoming) = response.into_parts();
        let pause = self.pause();
        let keep = self.config.limits.keep_body;
        let records = guard.is_read() || self.target.may_chat();
        let recorder =
            if records { Recorder::new(head.status, &head.headers, guard.called(), keep) } else { Recorder::default() };
        // gRPC sends its status after the body, and the chunks of a stream are passed on as they arrive.
        let passes = self.target.wire == Wire::Grpc || recorder.is_stream();
        let whole = if passes { None } else { incoming.size_hint().exact() };
        let Some(size) = whole.filter(|&size| size <= keep as u64) else {
            let headers = if records { head.headers.clone() } else { HeaderMap::new() };
            let body = AnswerBody::passing(incoming, Some(guard), (recorder, headers), pause, cutter.0);
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
        guard.complete(&head.headers, recorder.end(Some(&whole)));
        Ok(Attempt::Answered(self.finish(head, route, AnswerBody::whole(whole))))
    }

    /// Prepares the head of the answer for the caller.
    pub(crate) fn finish(&self, mut head: Parts, route: &Route, body: AnswerBody) -> Response<AnswerBody> {
        strip_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let mut response = Response::from_parts(head, body);
        answer::mark(response.headers_mut(), route, self.prediction_id.clone(), &self.config.answers);
        if let Some(id) = &self.request_id {
            response.headers_mut().entry(REQUEST_ID).or_insert_with(|| id.clone());
        }
        response
    }

    /// The answer for a version that gave none.
    pub(super) fn failed(&self, route: &Route, failed: Failed) -> Response<AnswerBody> {
        answer::upstream_failed(self.target.wire, &self.table, route, &self.id, failed, &self.config.answers)
    }
}

/// The event of a call: the suffix that makes its id unique, and the examples to which its answer belongs.
pub(crate) struct Event {
    pub(super) suffix: String,
    pub(super) examples: Vec<Arc<Example>>,
}

/// How a call of a version ended.
pub(super) enum Attempt {
    Answered(Response<AnswerBody>),
    Failed(Failed),
}
