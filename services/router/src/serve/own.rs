//! Requests that the router itself answers: feedback and events, its health and metadata, over HTTP and gRPC.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, Response, StatusCode, request};
use serde_json::json;
use serin_doors::{cloud::Logger, envoy, otlp};

use crate::{
    body::request::CallerBody,
    call::{answer, cors::Cors},
    intake,
    protocol::{Wire, grpc, refusal::Refusal},
    report::passing::AnswerBody,
    state::Shared,
};

/// An endpoint of the router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Preflight,
    /// A path that accepts only POST, with another method.
    OnlyPost,
    Feedback,
    SeldonFeedback,
    Events,
    Payloads(Logger),
    Spans,
    GrpcSpans,
    AccessLogs,
    Live,
    Ready,
    Metadata,
    Models,
    GrpcLive,
    GrpcReady,
    GrpcMetadata,
    GrpcHealth,
}

/// The endpoint of a request that is for the router itself.
pub(super) fn find(method: &Method, path: &str, wire: Wire) -> Option<Endpoint> {
    if wire == Wire::Grpc {
        return match path.strip_prefix(grpc::SERVICE) {
            Some("/ServerLive") => Some(Endpoint::GrpcLive),
            Some("/ServerReady") => Some(Endpoint::GrpcReady),
            Some("/ServerMetadata") => Some(Endpoint::GrpcMetadata),
            _ if path == envoy::PATH => Some(Endpoint::AccessLogs),
            _ if path == otlp::PATH => Some(Endpoint::GrpcSpans),
            _ => (path == "/grpc.health.v1.Health/Check").then_some(Endpoint::GrpcHealth),
        };
    }
    // A HEAD request gets the headers of the GET answer.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    match (method, path) {
        (&Method::OPTIONS, "/v1/feedback" | "/v1/events" | "/v1/models" | "/v2/models") => Some(Endpoint::Preflight),
        (&Method::OPTIONS, path) if is_seldon_feedback(path) => Some(Endpoint::Preflight),
        (&Method::POST, "/v1/feedback" | "/v1/feedback/") => Some(Endpoint::Feedback),
        (&Method::POST, "/v1/events" | "/v1/events/") => Some(Endpoint::Events),
        (&Method::POST, path) if is_seldon_feedback(path) => Some(Endpoint::SeldonFeedback),
        (&Method::POST, "/v1/doors/kserve" | "/v1/doors/kserve/") => Some(Endpoint::Payloads(Logger::Kserve)),
        (&Method::POST, "/v1/doors/seldon" | "/v1/doors/seldon/") => Some(Endpoint::Payloads(Logger::Seldon)),
        // An exporter appends `/v1/traces` to its base address.
        (&Method::POST, path) if is_door(path) => Some(Endpoint::Spans),
        (_, "/v1/feedback" | "/v1/feedback/" | "/v1/events" | "/v1/events/") => Some(Endpoint::OnlyPost),
        (_, path) if is_seldon_feedback(path) => Some(Endpoint::OnlyPost),
        (_, path) if is_door(path) => Some(Endpoint::OnlyPost),
        (&Method::GET, "/v2/health/live") => Some(Endpoint::Live),
        (&Method::GET, "/v2/health/ready") => Some(Endpoint::Ready),
        (&Method::GET, "/v2" | "/v2/") => Some(Endpoint::Metadata),
        (&Method::GET, "/v1/models" | "/v2/models" | "/openai/v1/models") => Some(Endpoint::Models),
        _ => None,
    }
}

/// Whether a path is a door for calls that other systems carry.
fn is_door(path: &str) -> bool {
    matches!(
        path.strip_suffix('/').unwrap_or(path),
        "/v1/doors/kserve" | "/v1/doors/seldon" | "/v1/doors/otlp" | "/v1/doors/otlp/v1/traces"
    )
}

/// Matches `/api/v1.0/feedback`, alone or below `/seldon/<namespace>/<deployment>`.
fn is_seldon_feedback(path: &str) -> bool {
    let Some(rest) = path.strip_suffix("/api/v1.0/feedback").or_else(|| path.strip_suffix("/api/v0.1/feedback")) else {
        return false;
    };
    rest.is_empty() || rest.strip_prefix("/seldon/").is_some_and(|rest| rest.split('/').count() == 2)
}

/// Answers a request to an endpoint. `at` is the address that the caller connected to.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    endpoint: Endpoint,
    head: &request::Parts,
    at: SocketAddr,
    body: CallerBody,
) -> Response<AnswerBody> {
    match endpoint {
        Endpoint::Preflight => Cors::preflight(&shared.config().cors, &head.headers),
        Endpoint::OnlyPost => {
            let refusal = Refusal::Method;
            shared.metrics.refused(refusal.reason());
            answer::refusal(&refusal, Wire::Plain)
        }
        Endpoint::Feedback => intake::feedback(shared, head, at, body).await,
        Endpoint::SeldonFeedback => intake::seldon_feedback(shared, head, at, body).await,
        Endpoint::Events => intake::events(shared, head, at, body).await,
        Endpoint::Payloads(logger) => intake::doors::payloads(shared, head, at, body, logger).await,
        Endpoint::Spans => intake::doors::spans(shared, head, at, body).await,
        Endpoint::GrpcSpans => intake::doors::grpc_spans(shared, head, at, body).await,
        Endpoint::AccessLogs => intake::doors::access_logs(shared, head, at, body).await,
        Endpoint::Live => answer::json(StatusCode::OK, &json!({"live": true})),
        Endpoint::Ready => match shared.ready() {
            Ok(()) => answer::json(StatusCode::OK, &json!({"ready": true})),
            Err(why) => answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "error": why})),
        },
        Endpoint::Metadata => answer::json(
            StatusCode::OK,
            &json!({"name": "serin-router", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]}),
        ),
        Endpoint::Models => answer::json(StatusCode::OK, &models(shared)),
        Endpoint::GrpcLive => answer::grpc_message(&[0x08, 1]),
        Endpoint::GrpcReady => answer::grpc_message(if shared.ready().is_ok() { &[0x08, 1] } else { &[] }),
        // Fields 1 and 2 of `ServerMetadataResponse`.
        Endpoint::GrpcMetadata => {
            let (name, version) = ("serin-router", env!("CARGO_PKG_VERSION"));
            let mut message = vec![0x0a, name.len() as u8];
            message.extend_from_slice(name.as_bytes());
            message.extend_from_slice(&[0x12, version.len() as u8]);
            message.extend_from_slice(version.as_bytes());
            answer::grpc_message(&message)
        }
        // SERVING is 1, NOT_SERVING 2.
        Endpoint::GrpcHealth => answer::grpc_message(&[0x08, if shared.ready().is_ok() { 1 } else { 2 }]),
    }
}

/// The known models in the list formats of `KServe` (`models`) and of `OpenAI` (`data`): both protocols use the same path.
fn models(shared: &Shared) -> serde_json::Value {
    let tables = shared.tables.load();
    let mut names: Vec<&str> = tables.0.keys().map(String::as_str).collect();
    names.sort_unstable();
    let data: Vec<_> = names.iter().map(|name| answer::model(name)).collect();
    json!({"models": names, "object": "list", "data": data})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_found_by_path() {
        let post = |path| find(&Method::POST, path, Wire::Plain);
        for path in ["/api/v1.0/feedback", "/seldon/ns/iris/api/v1.0/feedback", "/api/v0.1/feedback"] {
            assert_eq!(post(path), Some(Endpoint::SeldonFeedback), "{path}");
        }
        for path in ["/x/api/v1.0/feedback", "/seldon/ns/api/v1.0/feedback", "/v2/models/m/infer", "/v1/models"] {
            assert_eq!(post(path), None, "{path}");
        }
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(find(&method, "/openai/v1/models", Wire::Plain), Some(Endpoint::Models));
            assert_eq!(find(&method, "/v2/health/ready", Wire::V2), Some(Endpoint::Ready));
        }
        assert_eq!(find(&Method::OPTIONS, "/v1/feedback", Wire::OpenAi), Some(Endpoint::Preflight));
        for path in [
            "/v1/feedback",
            "/v1/feedback/",
            "/v1/events",
            "/api/v1.0/feedback",
            "/seldon/ns/iris/api/v1.0/feedback",
            "/v1/doors/kserve",
            "/v1/doors/seldon/",
            "/v1/doors/otlp",
            "/v1/doors/otlp/v1/traces",
        ] {
            for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH] {
                assert_eq!(find(&method, path, Wire::Plain), Some(Endpoint::OnlyPost), "{method} {path}");
            }
        }
        let grpc = |path| find(&Method::POST, path, Wire::Grpc);
        assert_eq!(grpc("/inference.GRPCInferenceService/ServerLive"), Some(Endpoint::GrpcLive));
        assert_eq!(grpc("/inference.GRPCInferenceService/ModelInfer"), None);
        assert_eq!(grpc("/v1/feedback"), None);
        assert_eq!((grpc(envoy::PATH), post(envoy::PATH)), (Some(Endpoint::AccessLogs), None));
        assert_eq!(post("/v1/doors/kserve"), Some(Endpoint::Payloads(Logger::Kserve)));
        assert_eq!(post("/v1/doors/seldon/"), Some(Endpoint::Payloads(Logger::Seldon)));
        for path in ["/v1/doors/otlp", "/v1/doors/otlp/v1/traces"] {
            assert_eq!(post(path), Some(Endpoint::Spans), "{path}");
        }
        assert_eq!(post("/v1/doors/other"), None);
        for path in ["/v1/doors/kserve", "/v1/doors/seldon/", "/v1/doors/otlp", "/v1/doors/otlp/v1/traces"] {
            for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
                assert_eq!(find(&method, path, Wire::Plain), Some(Endpoint::OnlyPost), "{method} {path}");
            }
        }
    }
}
