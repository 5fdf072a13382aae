//! Compares two files of predictions for the same inputs, pair by pair, with the paired tests of `serin-statistics`.
//!
//! The test is one look at complete files, so it uses fixed-sample tests. `read` turns files into rows and reports all bad rows,
//! `join` pairs the rows by id, `notation` checks that both files write classes as the labels do, `judge` tests the pairs, `text` formats
//! the result. Nothing is judged if any row is bad. A metric
//! that could not be judged is undecided, never passed.

mod error;
mod finding;
mod join;
mod judge;
mod notation;
mod read;
mod text;

use std::path::Path;

use crate::cli::Compare;

use error::CompareError;
pub(crate) use finding::{Finding, Report};
pub(crate) use text::print;

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
