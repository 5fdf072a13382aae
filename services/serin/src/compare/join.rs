//! Rows of both files with the same id, as numbers or as classes.

use super::read::{Row, Rows};
use super::{CompareError, Problem};
use crate::cli::{Compare, Kind};

/// Both answers to one input, and its label.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answers {
    /// Numbers.
    Numbers { a: f64, b: f64, label: Option<f64> },
    /// Classes: only whether they are equal counts.
    Classes {
        same: bool,
        /// Whether A, and whether B, is wrong.
        wrong: Option<(bool, bool)>,
    },
}

/// One input.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) answers: Answers,
    /// In the order of `--segment`.
    pub(super) segments: Vec<String>,
}

/// What both files have in common, and what not.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) pairs: Vec<Pair>,
    pub(super) only_a: u64,
    pub(super) only_b: u64,
    pub(super) duplicates: (u64, u64),
    /// Pairs without a label, where labels were asked for.
    pub(super) unlabelled: u64,
    pub(super) numbers: bool,
}

/// Pairs the rows by id, in the order of A. Errors: bad rows (of either file, all at once), or nothing in common.
pub(super) fn join(mut a: Rows, b: Rows, args: &Compare) -> Result<Joined, CompareError> {
    let missing = |column: &String| -> bool {
        let index = args.segment.iter().position(|name| name == column).unwrap_or_default();
        let lacks = |rows: &Rows| rows.by_id.values().all(|row| row.segments[index].is_none());
        !a.by_id.is_empty() && lacks(&a) && lacks(&b)
    };
    if let Some(column) = args.segment.iter().find(|column| missing(column)) {
        let message = format!("there is no column `{column}` (--segment), nor is there one in {}", b.file);
        a.problem(1, message);
    }
    if let Some(column) = &args.label
        && a.by_id.values().chain(b.by_id.values()).all(|row| row.label.is_empty())
    {
        let message = format!("no row has a label in `{column}` (--label), nor has one in {}", b.file);
        a.problem(1, message);
    }
    let numbers = match args.kind {
        Kind::Number => true,
        Kind::Class => false,
        Kind::Auto => are_numbers(&a, &b),
    };
    let mut joined =
        Joined { numbers, duplicates: (a.duplicates, b.duplicates), only_b: b.by_id.len() as u64, ..Joined::default() };
    let mut problems: Vec<Problem> = Vec::new();
    for id in &a.order {
        let (Some(row_a), Some(row_b)) = (a.by_id.get(id), b.by_id.get(id)) else {
            joined.only_a += 1;
            continue;
        };
        joined.only_b -= 1;
        match pair(row_a, row_b, &a.file, &b.file, numbers) {
            Ok(pair) => joined.pairs.push(pair),
            Err(found) => problems.extend(found),
        }
    }
    let all: Vec<Problem> = a.problems.iter().chain(&b.problems).chain(&problems).cloned().collect();
    if !all.is_empty() {
        return Err(CompareError::Rows(all));
    }
    if joined.pairs.is_empty() {
        return Err(CompareError::NoPairs(a.file, b.file));
    }
    if args.label.is_some() {
        let labelled = |pair: &&Pair| match pair.answers {
            Answers::Numbers { label, .. } => label.is_some(),
            Answers::Classes { wrong, .. } => wrong.is_some(),
        };
        joined.unlabelled = (joined.pairs.len() - joined.pairs.iter().filter(labelled).count()) as u64;
    }
    Ok(joined)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Predictions are numbers if most of them are (then the others are bad rows), unless all of them are 0 or 1.
fn are_numbers(a: &Rows, b: &Rows) -> bool {
    let predictions = || a.by_id.values().chain(b.by_id.values()).map(|row| number(&row.prediction));
    let all = predictions().count();
    let binary = predictions().all(|value| value.is_some_and(|value| value == 0.0 || (value - 1.0).abs() == 0.0));
    2 * predictions().flatten().count() > all && !binary
}

fn pair(a: &Row, b: &Row, file_a: &str, file_b: &str, numbers: bool) -> Result<Pair, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut bad = |file: &str, line: u64, message: String| {
        problems.push(Problem { file: file.to_owned(), line, message });
    };
    if !a.label.is_empty() && !b.label.is_empty() && canonical(&a.label) != canonical(&b.label) {
        bad(file_b, b.line, format!("the label is {}, but {} in {file_a}:{}", b.label, a.label, a.line));
    }
    let label = if a.label.is_empty() { &b.label } else { &a.label };
    let answers = if numbers {
        let mut finite = |what: &str, text: &str, file: &str, line: u64| {
            let found = number(text);
            if found.is_none() {
                bad(file, line, format!("the {what} {text:?} is not a finite number"));
            }
            found.unwrap_or(f64::NAN)
        };
        let (x, y) =
            (finite("prediction", &a.prediction, file_a, a.line), finite("prediction", &b.prediction, file_b, b.line));
        let (file, line) = if a.label.is_empty() { (file_b, b.line) } else { (file_a, a.line) };
        let label = (!label.is_empty()).then(|| finite("label", label, file, line));
        Answers::Numbers { a: x, b: y, label }
    } else {
        let (x, y, label) = (canonical(&a.prediction), canonical(&b.prediction), canonical(label));
        Answers::Classes { same: x == y, wrong: (!label.is_empty()).then(|| (x != label, y != label)) }
    };
    let segment = |(a, b): (&Option<String>, &Option<String>)| {
        a.clone().or_else(|| b.clone()).filter(|value| !value.is_empty()).unwrap_or_else(|| "(none)".to_owned())
    };
    if problems.is_empty() {
        Ok(Pair { answers, segments: a.segments.iter().zip(&b.segments).map(segment).collect() })
    } else {
        Err(problems)
    }
}

/// One writing of a class: 1, 1.0 and 1e0 are the same one.
fn canonical(text: &str) -> String {
    number(text).map_or_else(|| text.to_owned(), |number| number.to_string())
}
