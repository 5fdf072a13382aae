//! The outcome of a call. Every call gets exactly one outcome, independent of its protocol. Pure.
//!
//! `docs/outcomes.md` documents it for users: the table of outcomes by protocol, and every cause.

use serin_schemas::records::Outcome;

use crate::protocol::decoder::DecodeError;

/// Why the router did not read an answer with a 2xx status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The answer exceeds `limits.keep_body`, possibly only when it is decompressed.
    TooLarge,
    /// The compression of the answer is not supported.
    Encoding,
    /// Bodies of the answer's content type are not read.
    ContentType,
    /// The answer belongs to a gRPC service whose messages are unknown.
    Service,
    /// The status allows an empty body, and the protocol does not require content.
    NoContent,
    /// No event is written for the answer, so it is not read.
    NotAsked,
}

impl Unread {
    /// The name in events and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::ContentType => "content_type",
            Self::Service => "service",
            Self::NoContent => "no_content",
            Self::NotAsked => "not_asked",
        }
    }
}

/// The content of an answer with a 2xx status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// The answer was read and is good.
    #[default]
    Good,
    /// The answer was not read, for this reason.
    Unread(Unread),
    /// Callers cannot use it, for this cause.
    Unusable(&'static str),
    /// The answer reports an error, or ends too early.
    Failed(&'static str),
}

impl Content {
    /// The worse of two findings about one answer. If both are equally bad, the first one is returned.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Unread(_) => 1,
            Self::Unusable(_) => 2,
            Self::Failed(_) => 3,
        }
    }
}

impl From<DecodeError> for Content {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Unknown => Self::Unread(Unread::Encoding),
            DecodeError::TooLarge => Self::Unread(Unread::TooLarge),
            DecodeError::Broken => Self::Unusable("unparsable"),
        }
    }
}

/// The outcome that a status determines alone; `None` for 2xx, where the content decides.
pub(crate) fn of_status(status: i32) -> Option<Outcome> {
    match status {
        200..=299 => None,
        300..=399 => Some(Outcome::Redirected),
        400..=499 => Some(Outcome::Refused),
        _ => Some(Outcome::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_outcome() {
        for (status, outcome) in [
            (200, None),
            (204, None),
            (299, None),
            (300, Some(Outcome::Redirected)),
            (308, Some(Outcome::Redirected)),
            (400, Some(Outcome::Refused)),
            (422, Some(Outcome::Refused)),
            (499, Some(Outcome::Refused)),
            (500, Some(Outcome::Failed)),
            (599, Some(Outcome::Failed)),
            (101, Some(Outcome::Failed)),
            (700, Some(Outcome::Failed)),
        ] {
            assert_eq!(of_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn the_worse_finding_wins() {
        let all = [Content::Good, Content::Unread(Unread::TooLarge), Content::Unusable("nan"), Content::Failed("x")];
        for (place, better) in all.iter().enumerate() {
            for worse in &all[place..] {
                assert_eq!((better.or_worse(*worse), worse.or_worse(*better)), (*worse, *worse));
            }
        }
        assert_eq!(Content::Unusable("nan").or_worse(Content::Unusable("missing")), Content::Unusable("nan"));
    }
}
