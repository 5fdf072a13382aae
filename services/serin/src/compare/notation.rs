//! Labels and predictions that are written in different ways: a difference in notation is not a difference in correctness.
//!
//! A file is refused if its classes fit the labels much better under other names, such as 1 and 2 for 0 and 1, or `Cat` for `cat`. Words
//! for a missing label, such as `nan`, are read as missing unless a prediction has them too. `--as-written` skips all of this.

use std::collections::{BTreeMap, BTreeSet};

use super::error::CompareError;
use super::read::{Row, Rows, canonical};

/// Words that usually mean "no label", in lower case.
const MISSING: [&str; 11] = ["?", "-", "<na>", "n/a", "na", "nan", "nat", "nil", "none", "null", "unknown"];
/// Fewest labeled rows of a file for any of these checks.
const ENOUGH: usize = 20;
/// Most classes of a file for which other names are tried.
const MOST_CLASSES: usize = 200;
/// A file is refused if other names leave at most this share of its errors.
const LEFT: f64 = 0.5;
/// A label that no prediction has is refused if it is in more than this share of the labeled rows.
const NEVER_PREDICTED: f64 = 0.2;

/// Clears labels that are words for a missing value, unless a prediction of either file has the word. Returns a note about them.
pub(super) fn clear_missing(a: &mut Rows, b: &mut Rows) -> Option<String> {
    let word = |text: &str| MISSING.iter().position(|word| text.eq_ignore_ascii_case(word));
    let predicted: BTreeSet<usize> =
        a.by_id.values().chain(b.by_id.values()).filter_map(|row| word(&row.prediction)).collect();
    let mut cleared: BTreeMap<String, u64> = BTreeMap::new();
    for row in a.by_id.values_mut().chain(b.by_id.values_mut()) {
        if word(&row.label).is_some_and(|word| !predicted.contains(&word)) {
            *cleared.entry(std::mem::take(&mut row.label)).or_default() += 1;
        }
    }
    let all: Vec<String> = cleared.iter().map(|(word, rows)| format!("{word:?} in {rows} rows")).collect();
    (!all.is_empty()).then(|| format!("labels read as missing: {}", all.join(", ")))
}

/// The labeled rows of one file, as classes.
struct Labeled {
    /// Number of rows by prediction and label.
    counts: BTreeMap<(String, String), usize>,
    rows: usize,
}

impl Labeled {
    fn of(rows: &Rows, label: impl Fn(&str, &Row) -> Option<String>) -> Self {
        let mut labeled = Self { counts: BTreeMap::new(), rows: 0 };
        for (id, row) in &rows.by_id {
            if let Some(label) = label(id, row) {
                *labeled.counts.entry((canonical(&row.prediction), canonical(&label))).or_default() += 1;
                labeled.rows += 1;
            }
        }
        labeled
    }

    fn errors(&self) -> usize {
        self.counts.iter().filter(|((prediction, label), _)| prediction != label).map(|(_, rows)| rows).sum()
    }

    /// The most frequent label of each prediction, if these are all different, and the number of errors under these names.
    fn renamed(&self) -> Option<(BTreeMap<&str, &str>, usize)> {
        let mut best: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
        for ((prediction, label), &rows) in &self.counts {
            let entry = best.entry(prediction).or_insert((label, 0));
            if rows > entry.1 {
                *entry = (label, rows);
            }
        }
        let labels: BTreeSet<&str> = best.values().map(|(label, _)| *label).collect();
        let right: usize = best.values().map(|(_, rows)| rows).sum();
        let names = best.iter().map(|(prediction, (label, _))| (*prediction, *label)).collect();
        (labels.len() == best.len() && best.len() <= MOST_CLASSES).then(|| (names, self.rows - right))
    }
}

/// Refuses files whose classes and labels are written in different ways. `label` is the name of the label column.
pub(super) fn check(a: &Rows, b: &Rows, label: &str) -> Result<(), CompareError> {
    let labels = |id: &str, row: &Row| -> Option<String> {
        let other = || [a, b].into_iter().filter_map(|rows| rows.by_id.get(id)).map(|row| row.label.clone());
        Some(row.label.clone()).into_iter().chain(other()).find(|label| !label.is_empty())
    };
    let files: Vec<(&Rows, Labeled)> = [a, b].into_iter().map(|rows| (rows, Labeled::of(rows, labels))).collect();
    for (place, (rows, labeled)) in files.iter().enumerate().filter(|(_, (_, labeled))| labeled.rows >= ENOUGH) {
        other_names(&rows.file, labeled, label, place == 0)?;
    }
    never_predicted(&files, label)
}

fn other_names(file: &str, labeled: &Labeled, column: &str, serves: bool) -> Result<(), CompareError> {
    let Some((names, errors)) = labeled.renamed() else { return Ok(()) };
    let now = labeled.errors();
    let is_better = errors as f64 <= LEFT * now as f64;
    // With the same names, a class that is confused with another one is an error of the version. That most rows of the version that
    // serves now are such errors is not plausible.
    let labels: BTreeSet<&str> = labeled.counts.keys().map(|(_, label)| label.as_str()).collect();
    let is_foreign = names.keys().any(|prediction| !labels.contains(prediction));
    if !(is_better && now > 0 && (is_foreign || serves && 2 * now > labeled.rows)) {
        return Ok(());
    }
    let changed = names.iter().filter(|(prediction, label)| prediction != label);
    let changed: Vec<String> = changed.take(4).map(|(prediction, label)| format!("{prediction} for {label}")).collect();
    let share = |errors: usize| 100.0 * errors as f64 / labeled.rows as f64;
    Err(CompareError::Unfit(format!(
        "{file} seems to write its classes in another way than the labels (`{column}`): {}. As they are, {:.1} % of its rows are wrong; with these \
         names, {:.1} %. Write equal classes in the same way in all columns; pass --as-written if they already are",
        changed.join(", "),
        share(now),
        share(errors)
    )))
}

/// Refuses a frequent label that neither file ever predicts. It probably means that there is no label.
fn never_predicted(files: &[(&Rows, Labeled)], column: &str) -> Result<(), CompareError> {
    let Some((_, labeled)) = files.first().filter(|(_, labeled)| labeled.rows >= ENOUGH) else { return Ok(()) };
    let predicted: BTreeSet<&str> = files
        .iter()
        .flat_map(|(_, labeled)| labeled.counts.keys())
        .map(|(prediction, _)| prediction.as_str())
        .collect();
    let mut by_label: BTreeMap<&str, usize> = BTreeMap::new();
    for ((_, label), rows) in &labeled.counts {
        *by_label.entry(label).or_default() += rows;
    }
    let found = by_label
        .into_iter()
        .find(|(label, rows)| !predicted.contains(label) && *rows as f64 > NEVER_PREDICTED * labeled.rows as f64);
    match found {
        None => Ok(()),
        Some((label, rows)) => Err(CompareError::Unfit(format!(
            "the label {label:?} (`{column}`) is in {rows} of {} labeled rows, and no prediction has it: leave the label empty where it is \
             not known, or write it as the predictions do; pass --as-written if neither version ever predicts it",
            labeled.rows
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::Parser as _;

    use super::super::{join, read};
    use super::*;
    use crate::cli::{Cli, Verb};

    /// The prediction and the label of a row.
    type Row = fn(usize) -> (&'static str, &'static str);

    /// Joins two equal files of 60 rows.
    fn joined(options: &[&str], a: Row) -> Result<join::Joined, CompareError> {
        let args = ["serin", "compare", "a.csv", "b.csv", "--label", "label", "--kind", "class"];
        let args = args.iter().chain(options).copied();
        let Verb::Compare(args) = Cli::parse_from(args).verb else { panic!("another verb") };
        let text = (0..60).fold("id,prediction,label\n".to_owned(), |mut text, id| {
            let (prediction, label) = a(id);
            writeln!(text, "{id},{prediction},{label}").unwrap();
            text
        });
        let rows = |name: &str| read::rows(name, text.as_bytes(), &args);
        join::join(rows("a.csv"), rows("b.csv"), &args)
    }

    #[test]
    fn each_refusal_names_an_option_that_allows_it() {
        // Neither version predicts C, and both confuse A and B.
        let files: [Row; 2] =
            [|id| (["A", "B", "B"][id % 3], ["A", "B", "C"][id % 3]), |id| (["A", "B"][id % 2], ["B", "A"][id % 2])];
        for file in files {
            let refused = joined(&[], file).unwrap_err().to_string();
            assert!(refused.contains("--as-written"), "{refused}");
            let pairs = joined(&["--as-written"], file).unwrap().pairs;
            assert_eq!(pairs.len(), 60);
        }
    }

    #[test]
    fn as_written_a_label_that_looks_like_a_missing_one_is_a_class() {
        let file = |id: usize| (["A", "B", "B"][id % 3], ["A", "B", "none"][id % 3]);
        assert_eq!(joined(&[], file).unwrap().unlabelled, 20);
        assert_eq!(joined(&["--as-written"], file).unwrap().unlabelled, 0);
    }
}
