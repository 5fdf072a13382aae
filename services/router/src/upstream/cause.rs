//! Why a version gave no whole answer.

use std::io;

use http::StatusCode;
use hyper_util::client::legacy::Error;

/// Why a version gave no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection: refused, or no such host.
    Connect,
    /// Neither connected nor answered in time, or the answer stopped.
    Timeout,
    /// The connection broke before the head of an answer.
    Reset,
    /// The answer ended before its end.
    Truncated,
    /// The caller left before the end of the answer.
    ClientClosed,
    /// The caller did not take the answer, or did not send its request to the end.
    ClientSlow,
    /// The time was over that the caller had set.
    Deadline,
    /// The router stopped, and the time for calls in flight to end was over.
    Stopped,
    /// Not called: its servers failed, and get nothing for a while.
    Shed,
    /// Not called: its server has as many calls in flight as it may have.
    Full,
    /// It was rolled back, and the time for calls in flight to end was over.
    Cut,
}

impl Cause {
    /// The word for it in events and errors.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::ClientClosed => "client_closed",
            Self::ClientSlow => "client_slow",
            Self::Deadline => "deadline",
            Self::Stopped => "stopped",
            Self::Shed => "shed",
            Self::Full => "full",
            Self::Cut => "cut",
        }
    }

    /// A sentence for callers.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Connect => "its server could not be connected",
            Self::Timeout => "its server did not answer in time",
            Self::Reset => "its server closed the connection without an answer",
            Self::Truncated => "its server's answer broke off",
            Self::ClientClosed => "the caller left",
            Self::ClientSlow => "the caller did not send its request, or did not take its answer, in time",
            Self::Deadline => "the time was over that the caller had set",
            Self::Stopped => "the router stopped",
            Self::Shed => "its servers failed and are not called for a while",
            Self::Full => "its server has too many calls in flight",
            Self::Cut => "it was rolled back, and calls in flight were given no more time",
        }
    }

    /// Whether the version is not to blame: the caller ended the call, or the router did as it stopped.
    pub(crate) fn is_cancelled(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ClientSlow | Self::Deadline | Self::Stopped)
    }

    /// Whether it tells that the way to a server failed.
    pub(crate) fn is_way(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Reset | Self::Truncated)
    }

    /// What a client error means.
    pub(crate) fn of(error: &Error) -> Self {
        if timed_out(error) {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Reset
        }
    }
}

/// Whether a timeout is among the sources of an error.
pub(crate) fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Why a call of a version failed before its first byte was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Cause(Cause),
    Status(StatusCode),
}
