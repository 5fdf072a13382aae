//! The incarnation number of a router's process. If two processes use one name, the fold accepts only the one with the higher number.
//!
//! The number is the wall clock at startup, but always higher than that of the previous process, which is stored in the data directory.
//! Otherwise a process whose clock was ahead would outrank later processes with a corrected clock, and the fold would discard all their
//! reports.

use std::{fs, io, path::Path};

use serin_schemas::ids::EventTime;

/// File in the data directory with the last number.
const FILE: &str = "incarnation";

/// The number of a process that starts now. If the directory cannot be written, a warning is logged and only the clock decides.
pub(crate) fn next(data_dir: &Path, now: EventTime) -> i64 {
    let last = fs::read_to_string(data_dir.join(FILE)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    // After the largest number only the clock decides: two processes must not share a number.
    let next = last.and_then(|last| last.checked_add(1)).map_or(now.0, |next| next.max(now.0));
    if let Err(error) = keep(data_dir, next) {
        tracing::warn!(
            %error,
            folder = %data_dir.display(),
            "the number of this process cannot be stored: if the clock is set back, the next process will be treated as an older one"
        );
    }
    next
}

/// Writes a temporary file and renames it: after a crash the file is complete or missing.
fn keep(data_dir: &Path, number: i64) -> io::Result<()> {
    let aside = data_dir.join("incarnation.new");
    fs::write(&aside, number.to_string())?;
    fs::rename(&aside, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_has_a_higher_number_even_if_the_clock_steps_back() {
        let folder = tempfile::tempdir().unwrap();
        let next = |now| next(folder.path(), EventTime(now));
        assert_eq!(next(1000), 1000);
        assert_eq!(next(2000), 2000, "the clock, as long as it advances");
        assert_eq!(next(500), 2001, "the clock was set back");
        assert_eq!(next(2001), 2002, "in the same microsecond");
        for (text, now) in [("no number", 3000), ("", 3001), ("12", 3002), ("9223372036854775807", 3003)] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(next(now), now, "{text:?}");
        }
    }

    #[test]
    fn without_a_folder_only_the_clock_decides() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next(&folder.path().join("missing"), EventTime(7)), 7);
    }
}
