//! Why the router turns a request away itself, in words for callers and for metrics.

use http::StatusCode;

use crate::protocol::{Unread, Wire, headers::LONGEST_ID};

/// Why the router turns a request away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no model is named; {}", way_to_name(*.0))]
    NoModel(Wire),
    #[error(
        "model {0:?} is not known here: it has no routing table, and no entry under `models` of the router's configuration"
    )]
    UnknownModel(String),
    #[error("model {model:?} has no version {version:?} here; known: {known}")]
    UnknownVersion { model: String, version: String, known: String },
    #[error(
        "who asks for a version here must {}; without one the router chooses",
        if *.0 { "send the right x-serin-pin-token" } else { "be allowed to (pin.allow of the router's configuration), and nobody is" }
    )]
    MayNotPin(bool),
    #[error("x-prediction-id must have 1 to {LONGEST_ID} visible ASCII characters")]
    BadId,
    #[error("x-serin-event-time must be microseconds since 1970, as a whole number")]
    BadTime,
    #[error("the replay clock was never set; PUT /replay/clock on the admin port, or send x-serin-event-time")]
    NoClock,
    #[error("this path takes POST")]
    Method,
    #[error("a request of HTTP/1.1 has one Host header, and this one has {0}")]
    Host(usize),
    #[error(
        "a line of the request's head ends with a line feed alone; lines end with a carriage return and a line feed"
    )]
    BareLine,
    #[error("the request's body is larger than the limit (limits.body of the router's configuration)")]
    TooLarge,
    #[error("the request's body did not come in time")]
    Slow,
    #[error("the request's body broke off")]
    Broken,
    #[error("the model's name cannot be read: the request's body {}", why_unread(*.0))]
    Unread(Unread),
    #[error(
        "too many request bodies wait in memory (limits.held of the router's configuration); try again in a second"
    )]
    NoRoom,
    #[error("too many calls are in flight; try again")]
    Overloaded,
}

impl Refusal {
    /// The status of its answer.
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

    /// Every word of [`reason`](Self::reason).
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

    /// The word for it in metrics.
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
            "is too large, or too large when decoded (limits.held and limits.body of the router's configuration); send the header x-serin-model"
        }
        Unread::Encoding => {
            "is not encoded as gzip, deflate, br or zstd, or is not what its content-encoding says; send it plain, or with the header x-serin-model"
        }
        Unread::NotJson => "is neither valid JSON nor a whole form",
        Unread::TooDeep => "is nested too deep",
        Unread::TooLong | Unread::UnknownResponse => "has a name for it that is too long",
        Unread::NotScalar => "has no text under `model`",
    }
}

/// How a protocol names the model.
fn way_to_name(wire: Wire) -> &'static str {
    match wire {
        Wire::OpenAi => "put `model` into the JSON body, or send the header x-serin-model",
        Wire::Grpc => {
            "send an uncompressed message of inference.GRPCInferenceService with its model_name, or the metadata x-serin-model"
        }
        Wire::V1 | Wire::V2 | Wire::Plain => {
            "use /v2/models/<model>/infer, /v1/models/<model>:predict, the header x-serin-model, or a path that the \
             router's configuration gives to a model"
        }
    }
}
