//! `OpenAI`-compatible paths, and the model in their bodies.

use std::{borrow::Cow, sync::LazyLock};

use percent_encoding::percent_decode_str;

use crate::protocol::{Promise, asks::Asks};

/// The field that names the model.
pub(crate) static MODEL: LazyLock<Asks> = LazyLock::new(|| {
    let mut asks = Asks::default();
    asks.pointer("/model");
    asks
});

/// Whether a path is an `OpenAI`-compatible path: `/v1/...`, or `/openai/...` as used by `KServe` and Azure.
pub(super) fn is(path: &str) -> bool {
    path.starts_with("/v1/") || path.starts_with("/openai/")
}

/// Whether the answer to this path is one of a language model, which reports how it ended.
pub(super) fn chats(path: &str) -> bool {
    let rest = path.strip_prefix("/openai").unwrap_or(path);
    rest.strip_prefix("/v1").is_some_and(is_chat)
}

/// What an `OpenAI`-compatible path guarantees about its answer.
pub(super) fn promise(path: &str) -> Promise {
    let path = path.trim_end_matches('/');
    let rest = match deployment(path) {
        Some(name) => path["/openai/deployments/".len() + name.len()..].strip_prefix('/'),
        None => path.rsplit_once("/v1/").map(|(_, rest)| rest),
    };
    match rest {
        Some("chat/completions" | "completions") => Promise::Choices,
        Some("responses") => Promise::Response,
        Some("embeddings") => Promise::Embeddings,
        _ => Promise::Nothing,
    }
}

/// The deployment that a path of Azure names: `/openai/deployments/<name>/...`.
pub(super) fn deployment(path: &str) -> Option<&str> {
    let (name, rest) = path.strip_prefix("/openai/deployments/")?.split_once('/')?;
    (!name.is_empty() && !rest.is_empty()).then_some(name)
}

/// The same as [`chats`], for a path of an Azure deployment.
pub(super) fn chats_at_deployment(path: &str) -> bool {
    deployment(path).is_some_and(|name| is_chat(&path["/openai/deployments/".len() + name.len()..]))
}

fn is_chat(rest: &str) -> bool {
    matches!(rest.trim_end_matches('/'), "/chat/completions" | "/completions" | "/embeddings" | "/responses")
}

/// Whether a path asks for another kind of prediction of `OpenAI`-compatible servers.
pub(super) fn predicts(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/openai").unwrap_or(path).strip_prefix("/v1/") else { return false };
    let rest = rest.trim_end_matches('/');
    matches!(rest, "messages" | "rerank" | "score" | "moderations" | "classify" | "pooling")
        || rest.starts_with("audio/")
        || rest.starts_with("images/")
}

/// The response that a path names: `/v1/responses/<id>` or a path below it, also at a deployment of Azure.
pub(crate) fn response(path: &str) -> Option<Cow<'_, str>> {
    let rest = match deployment(path) {
        Some(name) => path["/openai/deployments/".len() + name.len()..].strip_prefix("/responses/")?,
        None => path.strip_prefix("/openai").unwrap_or(path).strip_prefix("/v1/responses/")?,
    };
    let id = rest.split('/').next().filter(|id| !id.is_empty())?;
    percent_decode_str(id).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_name_a_response() {
        for path in [
            "/v1/responses/resp_1",
            "/v1/responses/resp%5F1",
            "/v1/responses/resp_1/cancel",
            "/openai/v1/responses/resp_1/",
            "/openai/deployments/gpt/responses/resp%5f1/input_items",
        ] {
            assert_eq!(response(path).as_deref(), Some("resp_1"), "{path}");
        }
        for path in ["/v1/responses", "/v1/responses/", "/openai/deployments/gpt/responses", "/v1/models/m", "/x"] {
            assert_eq!(response(path), None, "{path}");
        }
    }
}
