//! Dispatches a request to the router itself or to a model.

use std::sync::{Arc, atomic::Ordering};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use serin_listener::{check_host, unread::lend};

use crate::{
    call::{
        answer::refusal,
        call,
        cors::Cors,
        worker::{Peer, Worker},
    },
    protocol::{Wire, refusal::Refusal},
    report::passing::AnswerBody,
    serve::own,
};

/// Maximum number of unread body bytes that are drained after an answer that closes the connection.
const UNREAD: u64 = 16 << 20;

/// Checks that a request is unambiguous as RFC 9112 requires: intermediaries may parse it differently.
fn check(request: &Request<Incoming>, bare_line: bool) -> Result<(), Refusal> {
    if bare_line {
        return Err(Refusal::BareLine);
    }
    Ok(check_host(request.version(), request.headers())?)
}

/// Answers one request.
pub(crate) async fn answer(
    worker: &Arc<Worker>,
    peer: &Peer,
    request: Request<Incoming>,
    bare_line: bool,
) -> Response<AnswerBody> {
    let shared = &worker.shared;
    let version = request.version();
    let checked = check(&request, bare_line);
    let (parts, body) = request.into_parts();
    let cors = Cors::of(&parts.headers);
    let (body, loan) = lend(body, &parts.headers);
    let wire = Wire::of(parts.uri.path(), &parts.headers);
    let own = own::find(&parts.method, parts.uri.path(), wire);
    let answered = match (checked, own) {
        (Err(refusal), _) => {
            drop(body);
            Err(refusal)
        }
        (Ok(()), Some(own)) => {
            let mut response = Box::pin(own::answer(shared, own, &parts, peer.at, body)).await;
            cors.allow(&shared.config().cors, response.headers_mut());
            Ok(response)
        }
        (Ok(()), None) => call(worker, peer, parts, body).await,
    };
    let mut response = answered.unwrap_or_else(|why| {
        shared.metrics.refused(why.reason());
        let mut answer = refusal(&why, wire);
        cors.allow(&shared.config().cors, answer.headers_mut());
        answer
    });
    if version >= Version::HTTP_2 {
        response.headers_mut().remove(header::CONNECTION);
        return response;
    }
    let ends = response.headers().contains_key(header::CONNECTION);
    let most = if ends { UNREAD } else { shared.config().limits.body.max(UNREAD) };
    let read = loan.finish(most).await;
    if !read || shared.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
