//! The number of a router's process: of two processes under one name, the fold believes the one with the higher number.
//!
//! It is the wall clock at the start, and higher than that of the process before, which is kept in the data folder. A process whose clock
//! was ahead would otherwise outrank the ones after it, whose clock was set right, and the fold would put aside all that they report.

use std::{fs, io, path::Path};

use serin_schemas::ids::EventTime;

/// File in the data folder that keeps the last number.
const FILE: &str = "incarnation";

/// The number of a process that starts now. A folder that cannot be written is a warning: the clock alone then decides.
pub(crate) fn next(data_dir: &Path, now: EventTime) -> i64 {
    let last = fs::read_to_string(data_dir.join(FILE)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    // Behind the largest number there is none: two processes must not share one.
    let next = last.and_then(|last| last.checked_add(1)).map_or(now.0, |next| next.max(now.0));
    if let Err(error) = keep(data_dir, next) {
        tracing::warn!(
            %error,
            folder = %data_dir.display(),
            "the number of this process cannot be kept: should the clock be set back, the next process is taken for an older one"
        );
    }
    next
}

/// Written aside and renamed: after a crash there is a whole number or none.
fn keep(data_dir: &Path, number: i64) -> io::Result<()> {
    let aside = data_dir.join("incarnation.new");
    fs::write(&aside, number.to_string())?;
    fs::rename(&aside, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_has_a_higher_number_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let next = |now| next(folder.path(), EventTime(now));
        assert_eq!(next(1000), 1000);
        assert_eq!(next(2000), 2000, "the clock, as long as it goes on");
        assert_eq!(next(500), 2001, "the clock was set right");
        assert_eq!(next(2001), 2002, "in the same microsecond");
        for (text, now) in [("no number", 3000), ("", 3001), ("12", 3002), ("9223372036854775807", 3003)] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(next(now), now, "{text:?}");
        }
    }

    #[test]
    fn without_a_folder_the_clock_decides() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next(&folder.path().join("missing"), EventTime(7)), 7);
    }
}
