//! Parses `rollout.yaml` and reports all its problems at once, each with line, column, path, cause and fix.
//!
//! The text becomes a tree with positions (`tree`), the tree is walked along the JSON Schema (`walk`), and its valid parts are
//! linted ([`crate::lint()`]). A broken part is reported once: rules that depend on it are skipped. JSON is accepted too.

mod configuration;
mod foreign;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use crate::lint::{Traffic, findings};
use serin_spec::{Problem, RolloutSpec, Severity};
use walk::{Form, Walked};

pub use configuration::Configuration;
pub use tree::with_whole_escapes;
pub use walk::HIDDEN;

/// The result of checking a spec's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The spec, if no problem is an error.
    pub spec: Option<RolloutSpec>,
    /// All problems, in the order of their position in the text.
    pub problems: Vec<Problem>,
}

impl Checked {
    /// Whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.problems)
    }
}

/// Parses a spec and lints it.
pub fn check(text: &str, traffic: Option<&Traffic>) -> Checked {
    let (walked, spec) = match read(text) {
        Ok(read) => read,
        Err(problems) => return Checked { spec: None, problems },
    };
    let mut problems = walked.problems.clone();
    if let Some(spec) = &spec {
        for finding in findings(spec, traffic) {
            let depends_on = std::iter::once(finding.problem.path.as_str()).chain(finding.depends_on.iter().copied());
            if !depends_on.into_iter().any(|path| walked.broken.iter().any(|broken| related(path, broken))) {
                let (line, column) = place(&walked, spec, &finding.problem.path);
                problems.push(Problem { line: Some(line), column: Some(column), ..finding.problem });
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    let spec = spec.filter(|_| !has_errors(&problems));
    Checked { spec, problems }
}

/// Parses a spec without linting its meaning.
///
/// # Errors
/// Returns all problems of its form.
pub fn parse_yaml(text: &str) -> Result<RolloutSpec, Vec<Problem>> {
    match read(text)? {
        (walked, Some(spec)) if walked.problems.is_empty() => Ok(spec),
        (walked, _) => Err(walked.problems),
    }
}

/// Returns the walked tree, and the spec built from its valid parts.
fn read(text: &str) -> Result<(Walked, Option<RolloutSpec>), Vec<Problem>> {
    let root = tree::parse(text).map_err(|problem| vec![problem])?;
    if let Some(problem) = foreign::problem_of(&root) {
        return Err(vec![problem]);
    }
    let mut walked = walk::walk(&root, &crate::json_schema(), Form::ROLLOUT);
    let has_steps = walked.value.get("steps").is_some();
    match serde_json::from_value::<RolloutSpec>(std::mem::take(&mut walked.value)) {
        Ok(mut spec) => {
            if !has_steps {
                spec.steps = spec.schedule.get_or_insert_default().steps();
            } else if spec.schedule.is_some() {
                let message = "a rollout has either `schedule` or `steps`";
                walked.problems.push(problem("schedule", walked.place("schedule"), message, "leave one of them out"));
            }
            Ok((walked, Some(spec)))
        }
        Err(cause) if walked.problems.is_empty() => {
            // The schema accepts something that a type refuses, so report the type's error.
            let fix = "see docs/rollout-spec.md";
            Err(vec![problem("", (1, 1), cause.to_string(), fix)])
        }
        Err(_) => Ok((walked, None)),
    }
}

/// Position of a path. Steps that come from a schedule have the position of `schedule`.
fn place(walked: &Walked, spec: &RolloutSpec, path: &str) -> (usize, usize) {
    let is_scheduled = spec.schedule.is_some() && path.starts_with("steps");
    walked.place(if is_scheduled { "schedule" } else { path })
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn problem(path: &str, (line, column): (usize, usize), message: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem {
        severity: Severity::Error,
        path: path.to_owned(),
        line: Some(line),
        column: Some(column),
        message: message.into(),
        fix: fix.into(),
    }
}

/// Whether a finding at `path` (or at `list[].field`) depends on the part `broken`.
fn related(path: &str, broken: &str) -> bool {
    if let Some((list, field)) = path.split_once("[]") {
        let entry = broken.strip_prefix(list);
        let within = entry.and_then(|entry| entry.split_once(']')).map_or("", |(_, within)| within);
        return entry.is_some_and(|entry| entry.is_empty() || entry.starts_with('[')) && overlap(field, within);
    }
    overlap(path, broken)
}

/// Whether one path equals the other or is within it.
fn overlap(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || short.is_empty() || rest.starts_with(['.', '[']))
}
