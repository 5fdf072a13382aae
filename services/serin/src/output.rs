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

use crate::terminal::Terminal;

static CLOSED: AtomicBool = AtomicBool::new(false);
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of a result.
pub(crate) fn line(text: impl std::fmt::Display) {
    part(format_args!("{text}\n"));
}

/// Prints sentences of a result, broken between words where the terminal is too narrow.
pub(crate) fn text(text: impl std::fmt::Display) {
    line(Terminal::stdout().wrap(&text.to_string(), 2));
}

/// Prints a part of a result that has its ends of lines, and what moves the cursor, in it.
pub(crate) fn part(text: impl std::fmt::Display) {
    if is_closed() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
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
    let _ = writeln!(io::stderr(), "{}", Terminal::stderr().wrap(&text.to_string(), 2));
}

/// Whether nothing that is printed arrives any more.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Why results could not be written, if it is not that their reader has left: a full disk, for example.
pub(crate) fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}
