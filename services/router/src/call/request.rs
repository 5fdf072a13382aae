//! A request on its way to a model: what it asks for, and how it is sent to the servers of a version.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use serin_schemas::ids::RequestId;

use crate::{
    body::request::RequestBody,
    call::worker::{Peer, Worker},
    config::{Config, span},
    protocol::{
        Target, Wire, grpc,
        headers::{EVENT_TIME, MODEL, PIN_TOKEN, PREDICTION_ID, REQUEST_ID, VERSION},
        refusal::Refusal,
    },
    state::Shared,
    tables::{route::Route, table::Table},
    upstream::{
        headers::{offer_trailers, strip_hop_by_hop},
        outgoing::Outgoing,
    },
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request that is on its way to a model.
pub(super) struct Call<'a> {
    pub(super) worker: &'a Arc<Worker>,
    pub(super) shared: &'a Arc<Shared>,
    /// The configuration at the start of the call.
    pub(super) config: Arc<Config>,
    pub(super) table: Arc<Table>,
    pub(super) peer: &'a Peer,
    pub(crate) method: Method,
    pub(super) uri: &'a Uri,
    pub(super) target: Target<'a>,
    /// The caller's headers. After [`prepare`](Self::prepare) they are those for the upstream; the last attempt takes them.
    pub(super) headers: HeaderMap,
    /// What the first message of a gRPC request states about its model.
    pub(super) named: Option<grpc::Named>,
    pub(super) pin: Option<String>,
    pub(super) id: RequestId,
    /// The prediction id as a header value, after [`prepare`](Self::prepare).
    pub(super) prediction_id: Option<HeaderValue>,
    /// The caller's own id of the request, or the prediction id.
    pub(super) request_id: Option<HeaderValue>,
}

impl Call<'_> {
    /// Converts the caller's headers to those for the upstream.
    pub(super) fn prepare(&mut self) {
        let (headers, is_grpc) = (&mut self.headers, self.target.wire == Wire::Grpc);
        strip_hop_by_hop(headers);
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
            offer_trailers(headers);
        }
    }

    /// The request to the servers of a version.
    pub(super) fn outgoing(&self, route: &Route, body: RequestBody, headers: HeaderMap) -> Outgoing {
        let is_grpc = self.target.wire == Wire::Grpc;
        let path_version = route.path_version.as_deref();
        let mut request = Box::new(Request::new(match &self.named {
            Some(named) => body.change(|head| grpc::with_version(&head, named, path_version)),
            None => body,
        }));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        if is_grpc {
            // The length of the first message may have changed, and gRPC does not need the header.
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        if let Some(version) = &route.header {
            request.headers_mut().insert(VERSION, version.clone());
        }
        let grpc = route.grpc.as_ref().filter(|_| is_grpc).map(|base| Box::new(base.clone()));
        Outgoing { request, path: self.target.upstream(path_version, self.uri), grpc, is_grpc }
    }

    /// Longest wait for a chunk of the answer.
    pub(super) fn pause(&self) -> Duration {
        let timeouts = &self.config.timeouts;
        span(if self.target.both_stream { timeouts.stream } else { timeouts.idle })
    }

    /// The refusal if the caller asks for an unknown version.
    pub(crate) fn unknown(&self, version: &str) -> Refusal {
        Refusal::UnknownVersion {
            model: self.table.record.model.0.clone(),
            version: version.to_owned(),
            known: self.table.versions().join(", "),
        }
    }
}
