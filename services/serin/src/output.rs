//! Results on standard output: text for people, JSON for scripts. Progress and logs go to standard error.
//!
//! Whoever reads may leave at any time (`serin tail events | head`). What is printed then goes nowhere, a verb that prints for as long
//! as it runs ends ([`is_closed`]), and the exit status stays what the verb found.

use std::{
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

static CLOSED: AtomicBool = AtomicBool::new(false);
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of a result.
pub(crate) fn line(text: impl std::fmt::Display) {
    if is_closed() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        CLOSED.store(true, Ordering::Relaxed);
        if error.kind() != io::ErrorKind::BrokenPipe {
            // Only the first failure counts.
            let _ = FAILURE.set(error);
        }
    }
}

/// Prints a JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a JSON document on one line, for streams.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Says something beside the result, on standard error.
pub(crate) fn aside(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether nothing that is printed arrives any more.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Why results could not be written, if it is not that their reader has left: a full disk, for example.
pub(crate) fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}
