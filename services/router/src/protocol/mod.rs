//! What a request wants: the protocol it speaks, the model it is for, and what of it an upstream gets. Pure.
//!
//! Five protocols: the Open Inference Protocol V2 and `KServe`'s V1 name the model in the path; V2 over gRPC and the
//! OpenAI-compatible paths name it in the body; anything else is routed by header or by a path of the configuration.

pub(crate) mod decode;
pub(crate) mod decoder;
mod form;
pub(crate) mod grpc;
pub(crate) mod headers;
pub(crate) mod json;
pub(crate) mod openai;
mod path;
pub(crate) mod reader;
pub(crate) mod refusal;
pub(crate) mod scan;
pub(crate) mod tensors;
pub(crate) mod written;

use http::HeaderMap;

pub(crate) use path::{Paths, Target, asks_first};

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The Open Inference Protocol V2 over HTTP.
    V2,
    /// `KServe`'s V1.
    V1,
    /// OpenAI-compatible: chat, completions, embeddings, responses.
    OpenAi,
    /// Any gRPC service; what the Open Inference Protocol's is asked can be read.
    Grpc,
    /// Anything else.
    Plain,
}

impl Wire {
    /// The protocol that a request's path and headers show.
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

/// What a protocol promises of an answer with a 2xx status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing: any content may be good.
    #[default]
    Nothing,
    /// JSON of any shape.
    Json,
    /// `outputs` of the Open Inference Protocol, over HTTP or gRPC.
    Tensors,
    /// `predictions` of `KServe`'s V1, or `outputs` in `TensorFlow` Serving's column format.
    Predictions,
    /// `choices` of a language model. Its streams tell how they end.
    Choices,
    /// `output` of `/v1/responses`. Its streams tell how they end.
    Response,
    /// `data` with embeddings.
    Embeddings,
    /// Messages of a gRPC service that the router does not know.
    Service,
}

impl Promise {
    /// Whether there has to be something in the answer.
    pub(crate) fn is_some(self) -> bool {
        self != Self::Nothing
    }

    /// Whether a stream of events has to tell its own end.
    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::Choices | Self::Response)
    }
}

/// What a look at the beginning of a body found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scan<T> {
    /// It is there.
    Found(T),
    /// More of the body is needed.
    More,
    /// It is not there, or nobody can read the body.
    Missing,
}

/// Why something that decides could not be read from a request that may well have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Unread {
    /// The body is larger than what may be held for a decision, or than what a decoder gives.
    TooLarge,
    /// Its content encoding, or a compressed gRPC message, cannot be decoded.
    Encoding,
    /// It says that it is JSON, or begins like it, and is not.
    NotJson,
    /// It is nested too deep.
    TooDeep,
    /// The value is too long, or there are too many that may be meant.
    TooLong,
    /// Where a scalar should be there is an object.
    NotScalar,
    /// It names a response of before that this router does not know.
    UnknownResponse,
}

impl Unread {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::Encoding,
        Self::NotJson,
        Self::TooDeep,
        Self::TooLong,
        Self::NotScalar,
        Self::UnknownResponse,
    ];

    /// The word for it in metrics and reports.
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
