//! Results on standard output: text for people, JSON for scripts. Progress and logs go to standard error.

use serde::Serialize;

/// Prints a line of a result.
#[expect(clippy::print_stdout, reason = "results of the command line belong on standard output")]
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
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
