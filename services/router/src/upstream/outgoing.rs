//! A request to a model server, before it is known which of them gets it.

use http::{HeaderMap, Request, Response, uri::PathAndQuery};

use crate::{
    body::request::RequestBody,
    config::base::Base,
    upstream::{cause::Cause, clients::Upstreams, pool::Delivery},
};

/// A request that has no server yet.
pub(crate) struct Outgoing {
    /// In a box, for it goes through many hands.
    pub(crate) request: Box<Request<RequestBody>>,
    pub(crate) path: Option<PathAndQuery>,
    /// Where the version's servers speak gRPC, if it is asked for and not there where they speak HTTP.
    pub(crate) grpc: Option<Box<Base>>,
    pub(crate) is_grpc: bool,
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
