//! Why two files were not compared.

use std::fmt::Write as _;

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) message: String,
}

/// Why nothing was judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// A file cannot be read at all.
    #[error("{0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// All rows that cannot be used.
    #[error("{}", listed(.0))]
    Rows(Vec<Problem>),
    /// No id is in both files.
    #[error("no id of {0} is in {1}; check that `--id` is the column with the id of the input")]
    NoPairs(String, String),
    /// One file lacks too many answers. Inputs without both answers cannot be judged.
    #[error(
        "{lacks} lacks {missing} of the {of} ids of {has} ({:.1} %): inputs without both answers cannot be judged; complete it, remove \
         these ids from both files, or allow it with --max-missing", 100.0 * *.missing as f64 / *.of as f64
    )]
    Missing {
        /// The file that lacks them.
        lacks: String,
        /// The other file.
        has: String,
        /// Number of missing ids.
        missing: u64,
        /// Number of ids in the other file.
        of: u64,
    },
    /// No values are equal. They are probably written in different ways.
    #[error(
        "{0} and {1} have no value in common: {2} against {3}; write equal values in the same way, or check --label"
    )]
    NothingInCommon(String, String, String, String),
    /// Numbers may be amounts or names of classes.
    #[error(
        "all values are whole numbers ({0} different ones): pass `--kind class` if they are names of classes, `--kind number` if \
         the distance between them has a meaning"
    )]
    AmbiguousNumbers(usize),
    /// An option does not fit the data.
    #[error("{0}")]
    Unfit(String),
    /// An option is outside its range.
    #[error("--{0} {1}: {2}")]
    Option(&'static str, f64, &'static str),
}

/// Largest number of bad rows that are shown.
const SHOWN: usize = 20;

fn listed(problems: &[Problem]) -> String {
    let count = problems.len();
    let mut text = format!("{count} {} cannot be used:", if count == 1 { "row" } else { "rows" });
    for problem in problems.iter().take(SHOWN) {
        let _ = write!(text, "\n  {}:{}: {}", problem.file, problem.line, problem.message);
    }
    if count > SHOWN {
        let _ = write!(text, "\n  ... and {} more", count - SHOWN);
    }
    text + "\nnothing was judged; correct these rows or remove them from both files"
}
