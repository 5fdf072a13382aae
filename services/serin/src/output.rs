//! Results on standard output: text for people, JSON for scripts. Progress and logs go to standard error.
//!
//! The reader of standard output may close it at any time (`serin tail events | head`). Further output is then dropped, and verbs that
//! print as long as they run end ([`is_closed`]). The exit status does not depend on it.

use std::{
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

use crate::terminal::{Terminal, escaped_json, visible};

static CLOSED: AtomicBool = AtomicBool::new(false);
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of a result.
pub(crate) fn line(text: impl std::fmt::Display) {
    part(visible(&format!("{text}\n")));
}

/// Prints sentences of a result, wrapped at words to the width of the terminal.
pub(crate) fn text(text: impl std::fmt::Display) {
    line(Terminal::stdout().wrap(&text.to_string(), 2));
}

/// Prints a part of a result as it is: the text contains its own line ends and cursor movements.
pub(crate) fn part(text: impl std::fmt::Display) {
    if is_closed() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
        CLOSED.store(true, Ordering::Relaxed);
        if error.kind() != io::ErrorKind::BrokenPipe {
            // Only the first failure is kept.
            let _ = FAILURE.set(error);
        }
    }
}

/// Prints a JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    part(format_args!("{}\n", escaped_json(&serde_json::to_string_pretty(value)?)));
    Ok(())
}

/// Prints a JSON document on one line, for streams.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    part(format_args!("{}\n", escaped_json(&serde_json::to_string(value)?)));
    Ok(())
}

/// Prints a note on standard error, separate from the result.
pub(crate) fn aside(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", visible(&Terminal::stderr().wrap(&text.to_string(), 2)));
}

/// Whether standard output is closed, so that further output is dropped.
pub(crate) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Why results could not be written, for example a full disk. A closed pipe is not an error.
pub(crate) fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}
