//! `rollout.yaml` as text: all its problems at once, each with line, column, path, cause and way out.
//!
//! The text becomes a tree with positions (`tree`), the tree is walked along the JSON Schema (`walk`), what is sound of it
//! is linted ([`crate::lint()`]). A broken part is reported once: rules that depend on it are left out. JSON is read too.

mod configuration;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use crate::lint::{Traffic, findings};
use serin_spec::{Problem, RolloutSpec, Severity};
use walk::{Form, Walked};

pub use configuration::Configuration;

/// A spec's text after all checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The spec, if no problem is an error.
    pub spec: Option<RolloutSpec>,
    /// All problems, in the order of the text.
    pub problems: Vec<Problem>,
}

impl Checked {
    /// Whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.problems)
    }
}

/// Reads a spec and lints it.
pub fn check(text: &str, traffic: Option<&Traffic>) -> Checked {
    let (walked, spec) = match read(text) {
        Ok(read) => read,
        Err(problems) => return Checked { spec: None, problems },
    };
    let mut problems = walked.problems.clone();
    if let Some(spec) = &spec {
        for finding in findings(spec, traffic) {
            let rests_on = std::iter::once(finding.problem.path.as_str()).chain(finding.depends_on.iter().copied());
            if !rests_on.into_iter().any(|path| walked.broken.iter().any(|broken| related(path, broken))) {
                let (line, column) = walked.place(&finding.problem.path);
                problems.push(Problem { line: Some(line), column: Some(column), ..finding.problem });
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    let spec = spec.filter(|_| !has_errors(&problems));
    Checked { spec, problems }
}

/// Reads a spec without linting what it means.
///
/// # Errors
/// All problems of its form.
pub fn parse_yaml(text: &str) -> Result<RolloutSpec, Vec<Problem>> {
    match read(text)? {
        (walked, Some(spec)) if walked.problems.is_empty() => Ok(spec),
        (walked, _) => Err(walked.problems),
    }
}

/// The walked tree and the spec made of its sound parts.
fn read(text: &str) -> Result<(Walked, Option<RolloutSpec>), Vec<Problem>> {
    let root = tree::parse(text).map_err(|problem| vec![problem])?;
    let mut walked = walk::walk(&root, &crate::json_schema(), Form::ROLLOUT);
    match serde_json::from_value(std::mem::take(&mut walked.value)) {
        Ok(spec) => Ok((walked, Some(spec))),
        Err(cause) if walked.problems.is_empty() => {
            // The schema lets through what a type refuses: say what the type says.
            let way_out = "see docs/rollout-spec.md";
            Err(vec![problem("", (1, 1), cause.to_string(), way_out)])
        }
        Err(_) => Ok((walked, None)),
    }
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn problem(
    path: &str,
    (line, column): (usize, usize),
    message: impl Into<String>,
    way_out: impl Into<String>,
) -> Problem {
    Problem {
        severity: Severity::Error,
        path: path.to_owned(),
        line: Some(line),
        column: Some(column),
        message: message.into(),
        way_out: way_out.into(),
    }
}

/// Whether what was concluded from `path` (or from `list[].field`) rests on `broken`.
fn related(path: &str, broken: &str) -> bool {
    if let Some((list, field)) = path.split_once("[]") {
        let entry = broken.strip_prefix(list);
        let within = entry.and_then(|entry| entry.split_once(']')).map_or("", |(_, within)| within);
        return entry.is_some_and(|entry| entry.is_empty() || entry.starts_with('[')) && overlap(field, within);
    }
    overlap(path, broken)
}

/// Whether one path is, or lies within, the other.
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || short.is_empty() || rest.starts_with(['.', '[']))
}
