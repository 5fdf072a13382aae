//! A request to a model server, before the server is chosen.

use http::{HeaderMap, Request, Response, uri::PathAndQuery};

use crate::{
    body::request::RequestBody,
    config::base::Base,
    upstream::{cause::Cause, clients::Upstreams, pool::Delivery},
};

/// A request whose server has not been chosen.
pub(crate) struct Outgoing {
    /// Boxed, because it is moved many times.
    pub(crate) request: Box<Request<RequestBody>>,
    pub(crate) path: Option<PathAndQuery>,
    /// The base URL for gRPC, if this is a gRPC call and gRPC has its own port.
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
