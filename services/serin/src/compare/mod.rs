//! Compares two files of predictions for the same inputs, pair by pair, with the paired tests of `serin-statistics`.
//!
//! The test is one look at complete files, so it uses fixed-sample tests. `read` turns files into rows and reports all bad rows,
//! `join` pairs the rows by id, `notation` checks that both files write classes as the labels do, `judge` tests the pairs, `text` formats
//! the result. Nothing is judged if any row is bad. A metric
//! that could not be judged is undecided, never passed.

mod finding;
mod join;
mod judge;
mod notation;
mod read;
mod text;

use std::{fmt::Write as _, path::Path};

use crate::cli::Compare;

pub(crate) use finding::{Finding, Report};
pub(crate) use text::print;

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    file: String,
    line: u64,
    message: String,
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

/// Reads, joins and judges two files.
pub(crate) fn compare(args: &Compare) -> Result<Report, CompareError> {
    check(args)?;
    let name = |path: &Path| path.display().to_string();
    let open = |path: &Path| std::fs::read(path).map_err(|error| CompareError::File(name(path), error));
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let a = read::rows(&name(&args.a), &a, args);
    let b = read::rows(&name(&args.b), &b, args);
    let joined = join::join(a, b, args)?;
    Ok(judge::report(&joined, args))
}

fn check(args: &Compare) -> Result<(), CompareError> {
    let at_least_zero = |name, value: Option<f64>| match value {
        Some(value) if !(value >= 0.0 && value.is_finite()) => {
            Err(CompareError::Option(name, value, "must be a number of at least 0"))
        }
        _ => Ok(()),
    };
    at_least_zero("margin", args.margin)?;
    at_least_zero("tolerance", Some(args.tolerance))?;
    if !(args.alpha > 0.0 && args.alpha < 0.5) {
        return Err(CompareError::Option("alpha", args.alpha, "must be between 0 and 0.5"));
    }
    match args.max_differ {
        Some(share) if !(0.0..1.0).contains(&share) => {
            Err(CompareError::Option("max-differ", share, "must be a share between 0 and 1, such as 0.05"))
        }
        _ if !(0.0..1.0).contains(&args.max_missing) => {
            Err(CompareError::Option("max-missing", args.max_missing, "must be a share between 0 and 1, such as 0.05"))
        }
        _ => Ok(()),
    }
}
