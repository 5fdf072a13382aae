//! Why a version gave no complete answer.

use std::io;

use http::StatusCode;
use hyper_util::client::legacy::Error;

/// Why a version gave no complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection: it was refused, or the host is unknown.
    Connect,
    /// The connection or the answer timed out.
    Timeout,
    /// The connection broke before the head of an answer.
    Reset,
    /// The answer ended early.
    Truncated,
    /// The caller disconnected before the end of the answer.
    ClientClosed,
    /// The caller did not read the answer, or did not finish its request.
    ClientSlow,
    /// The caller's deadline expired.
    Deadline,
    /// The router stopped, and the time for calls in flight expired.
    Stopped,
    /// Not called: its servers failed and are not called for a while.
    Shed,
    /// Not called: its server reached its limit of calls in flight.
    Full,
    /// The version was rolled back, and the time for calls in flight expired.
    Cut,
}

impl Cause {
    /// The name in events and errors.
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

    /// A clause about the version for callers.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Connect => "its server could not be reached",
            Self::Timeout => "its server did not answer in time",
            Self::Reset => "its server closed the connection without an answer",
            Self::Truncated => "its server's answer ended early",
            Self::ClientClosed => "the caller disconnected",
            Self::ClientSlow => "the caller did not send its request, or did not read its answer, in time",
            Self::Deadline => "the caller's deadline expired",
            Self::Stopped => "the router stopped",
            Self::Shed => "its servers failed and are not called for a while",
            Self::Full => "its server has too many calls in flight",
            Self::Cut => "it was rolled back, and the time for calls in flight expired",
        }
    }

    /// Whether the version is not to blame: the caller ended the call, or the router did when it stopped.
    pub(crate) fn is_cancelled(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ClientSlow | Self::Deadline | Self::Stopped)
    }

    /// Whether the connection to a server failed.
    pub(crate) fn is_connection_failure(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Reset | Self::Truncated)
    }

    /// Maps a client error to its cause.
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
pub(super) fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Why a call of a version failed before the first byte of its answer was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Cause(Cause),
    Status(StatusCode),
}
