//! Reasons why the router refuses a request, as messages for callers and labels for metrics.

use http::StatusCode;
use serin_listener::HostError;

use crate::protocol::{Unread, Wire, headers::LONGEST_ID};

/// Why the router refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request names no model; {}", how_to_name(*.0))]
    NoModel(Wire),
    #[error("unknown model {0:?}: it has no routing table and no entry under `models` in the router's configuration")]
    UnknownModel(String),
    #[error("model {model:?} has no version {version:?}; known versions: {known}")]
    UnknownVersion { model: String, version: String, known: String },
    #[error(
        "{}; leave the version out and the router chooses one",
        if *.0 {
            "asking for a version requires the right x-serin-pin-token"
        } else {
            "this router does not let callers ask for a version (pin.allow in its configuration)"
        }
    )]
    MayNotPin(bool),
    #[error("x-prediction-id must have 1 to {LONGEST_ID} visible ASCII characters")]
    BadId,
    #[error("x-serin-event-time must be microseconds since 1970, as a whole number")]
    BadTime,
    #[error("the replay clock was never set; PUT /replay/clock on the admin port, or send x-serin-event-time")]
    NoClock,
    #[error("this path accepts only POST")]
    Method,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(
        "a line of the request's head ends with a bare line feed; end each line with a carriage return and a line feed"
    )]
    BareLine,
    #[error("the request body exceeds the limit (limits.body in the router's configuration)")]
    TooLarge,
    #[error("the request body did not arrive in time")]
    Slow,
    #[error("the request body ended early")]
    Broken,
    #[error("the model's name cannot be read: the request body {}", why_unread(*.0))]
    Unread(Unread),
    #[error(
        "too many request bodies are held in memory (limits.held in the router's configuration); retry in a second"
    )]
    NoRoom,
    #[error("too many calls are in flight; retry")]
    Overloaded,
}

impl Refusal {
    /// The HTTP status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoModel(_) | Self::UnknownModel(_) | Self::UnknownVersion { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MayNotPin(_) => StatusCode::FORBIDDEN,
            Self::Unread(Unread::Encoding) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge | Self::Unread(Unread::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadId | Self::BadTime | Self::Broken | Self::Unread(_) | Self::Host(_) | Self::BareLine => {
                StatusCode::BAD_REQUEST
            }
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoClock | Self::Overloaded | Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Every value of [`reason`](Self::reason).
    pub(crate) const REASONS: [&str; 16] = [
        "no_model",
        "unknown_model",
        "unknown_version",
        "may_not_pin",
        "bad_id",
        "bad_time",
        "no_clock",
        "method",
        "host",
        "bare_line",
        "too_large",
        "slow",
        "broken",
        "unread_model",
        "no_room",
        "overloaded",
    ];

    /// The value of the label `reason` in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoModel(_) => "no_model",
            Self::UnknownModel(_) => "unknown_model",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::MayNotPin(_) => "may_not_pin",
            Self::BadId => "bad_id",
            Self::BadTime => "bad_time",
            Self::NoClock => "no_clock",
            Self::Method => "method",
            Self::Host(_) => "host",
            Self::BareLine => "bare_line",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::Unread(_) => "unread_model",
            Self::NoRoom => "no_room",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Why the model's name could not be read from a body.
fn why_unread(why: Unread) -> &'static str {
    match why {
        Unread::TooLarge => {
            "is too large, possibly only when decoded (limits.held and limits.body in the router's configuration); send the header x-serin-model"
        }
        Unread::Encoding => {
            "does not match its content-encoding, or is not encoded as gzip, deflate, br or zstd; send it uncompressed, or with the header x-serin-model"
        }
        Unread::NotJson => "is neither valid JSON nor a complete form",
        Unread::TooDeep => "is nested too deeply",
        Unread::TooLong | Unread::UnknownResponse => "has a model name that is too long",
        Unread::NotScalar => "has a `model` that is not a string",
    }
}

/// How a request of this protocol names the model.
fn how_to_name(wire: Wire) -> &'static str {
    match wire {
        Wire::OpenAi => "set `model` in the JSON body, or send the header x-serin-model",
        Wire::Grpc => {
            "send an uncompressed message of inference.GRPCInferenceService with its model_name, or the metadata x-serin-model"
        }
        Wire::V1 | Wire::V2 | Wire::Plain => {
            "use /v2/models/<model>/infer, /v1/models/<model>:predict, the header x-serin-model, or a path that the \
             router's configuration assigns to a model"
        }
    }
}
