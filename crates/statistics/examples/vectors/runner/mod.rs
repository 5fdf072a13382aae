//! Runs reference vectors: reads cases, computes each with the library and compares the results. Shared by the example and the test.

mod compare;
mod designs;
mod fixed;
mod input;
mod sequential;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use compare::Miss;
use input::{CaseError, Input};

/// Computes one kind: from the input of a case to the form of its `expected`.
type Compute = fn(Input<'_>) -> Result<Value, CaseError>;

/// All kinds.
fn kinds() -> impl Iterator<Item = (&'static str, Compute)> {
    fixed::KINDS.iter().chain(designs::KINDS).chain(sequential::KINDS).copied()
}

/// Why a file is not a file of vectors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The file is not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON has the wrong structure.
    #[error("no vectors: `cases` must be a list of objects")]
    Shape,
    /// There are no cases.
    #[error("no vectors: `cases` is empty")]
    Empty,
}

/// A case that failed, with all differences and errors.
#[derive(Debug)]
struct Failure {
    /// The id of the case.
    pub(crate) id: String,
    /// The differences and errors.
    misses: Vec<Miss>,
}

/// The results of the cases of a file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Number of cases that passed.
    pub(crate) passed: usize,
    /// The cases that failed.
    failures: Vec<Failure>,
    /// Kinds with at least one case that passed.
    pub(crate) kinds: BTreeSet<String>,
}

impl Report {
    /// Number of cases that failed.
    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            for miss in &failure.misses {
                writeln!(f, "{}: {miss}", failure.id)?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed())
    }
}

/// Checks all cases of a file.
pub(crate) fn check_file(text: &str) -> Result<Report, FileError> {
    let file: Value = serde_json::from_str(text)?;
    let cases = file.get("cases").and_then(Value::as_array).ok_or(FileError::Shape)?;
    if cases.is_empty() {
        return Err(FileError::Empty);
    }
    if !cases.iter().all(Value::is_object) {
        return Err(FileError::Shape);
    }
    let mut report = Report::default();
    for (index, case) in cases.iter().enumerate() {
        let id = case.get("id").and_then(Value::as_str).map_or_else(|| format!("case {index}"), str::to_owned);
        let misses = check(case).unwrap_or_else(|error| vec![Miss::Error(error.to_string())]);
        if misses.is_empty() {
            report.passed += 1;
            report.kinds.extend(case.get("kind").and_then(Value::as_str).map(str::to_owned));
        } else {
            report.failures.push(Failure { id, misses });
        }
    }
    Ok(report)
}

fn check(case: &Value) -> Result<Vec<Miss>, CaseError> {
    let case = Input::new(case);
    let kind = case.text("kind")?;
    let (_, compute) = kinds().find(|&(name, _)| name == kind).ok_or_else(|| CaseError::Kind(kind.to_owned()))?;
    let (rtol, atol) = (case.num("rtol")?, case.num("atol")?);
    let got = compute(case.object("input")?)?;
    Ok(compare::compare(&got, case.value("expected")?, rtol, atol))
}

/// Names of all kinds.
#[cfg_attr(not(test), expect(dead_code, reason = "for the test that shares this module"))]
pub(crate) fn kind_names() -> BTreeSet<&'static str> {
    kinds().map(|(name, _)| name).collect()
}
