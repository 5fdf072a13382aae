//! The parts of a request that routing needs: its protocol, its model, and the path for the upstream. Pure.
//!
//! There are five protocols. The Open Inference Protocol V2 and `KServe`'s V1 name the model in the path; V2 over gRPC and the
//! OpenAI-compatible paths name it in the body; all other requests are routed by a header or by a path in the configuration.

pub(crate) mod asks;
pub(crate) mod decode;
pub(crate) mod decoder;
mod form;
pub(crate) mod grpc;
pub(crate) mod headers;
pub(crate) mod openai;
mod path;
pub(crate) mod reader;
pub(crate) mod refusal;
pub(crate) mod rows;
pub(crate) mod scan;
pub(crate) mod tensors;
pub(crate) mod written;

use http::HeaderMap;

pub(crate) use path::{Paths, Target, asks_first};
pub(crate) use serin_schemas::foreign::lenient as json;

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The Open Inference Protocol V2 over HTTP.
    V2,
    /// `KServe`'s V1.
    V1,
    /// OpenAI-compatible: chat, completions, embeddings, responses.
    OpenAi,
    /// Any gRPC service. Only requests of the Open Inference Protocol can be read.
    Grpc,
    /// Anything else.
    Plain,
}

impl Wire {
    /// The protocol, determined from a request's path and headers.
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Self {
        if grpc::is(headers) {
            Self::Grpc
        } else if path.starts_with("/v2/") {
            Self::V2
        } else if path.starts_with("/v1/models/") {
            Self::V1
        } else if openai::is(path) {
            Self::OpenAi
        } else {
            Self::Plain
        }
    }
}

/// What a protocol guarantees about an answer with a 2xx status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing: any content may be valid.
    #[default]
    Nothing,
    /// JSON of any shape.
    Json,
    /// `outputs` of the Open Inference Protocol, over HTTP or gRPC.
    Tensors,
    /// `predictions` of `KServe`'s V1, or `outputs` in `TensorFlow` Serving's column format.
    Predictions,
    /// `choices` of a language model. Its streams contain an end marker.
    Choices,
    /// `output` of `/v1/responses`. Its streams contain an end marker.
    Response,
    /// `data` with embeddings.
    Embeddings,
    /// Messages of a gRPC service that the router does not know.
    Service,
}

impl Promise {
    /// Whether the answer must have content.
    pub(crate) fn is_some(self) -> bool {
        self != Self::Nothing
    }

    /// Whether a stream of events must contain an end marker.
    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::Choices | Self::Response)
    }
}

/// Result of a search at the start of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scan<T> {
    /// The value was found.
    Found(T),
    /// More of the body is needed.
    More,
    /// The value is missing, or the body cannot be read.
    Missing,
}

/// Why a deciding value could not be read from a request that may contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unread {
    /// The body exceeds the limit for bodies held for a decision, or the limit of a decoder.
    TooLarge,
    /// The content encoding of the body, or a compressed gRPC message, cannot be decoded.
    Encoding,
    /// The body claims to be JSON, or starts like JSON, but is not valid.
    NotJson,
    /// The body is nested too deeply.
    TooDeep,
    /// The value is too long, or there are too many candidates.
    TooLong,
    /// The value is an object instead of a scalar.
    NotScalar,
    /// The body names a previous response that this router does not know.
    UnknownResponse,
}

impl Unread {
    /// All variants.
    pub(crate) const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::Encoding,
        Self::NotJson,
        Self::TooDeep,
        Self::TooLong,
        Self::NotScalar,
        Self::UnknownResponse,
    ];

    /// The label for metrics and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::TooLong => "too_long",
            Self::NotScalar => "not_a_scalar",
            Self::UnknownResponse => "unknown_response",
        }
    }
}
