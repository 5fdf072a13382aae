//! Joins the rows of both files by id, as numbers or as classes.

use std::collections::BTreeSet;

use super::error::{CompareError, Problem};
use super::notation;
use super::read::{Row, Rows, canonical, number};
use crate::cli::{Compare, Kind, Loss};

/// Both answers to one input, and its label.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answers {
    /// Two numbers.
    Numbers { a: f64, b: f64, label: Option<f64> },
    /// Two classes, which are only compared for equality.
    Classes {
        same: bool,
        /// Whether A is wrong, and whether B is.
        wrong: Option<(bool, bool)>,
    },
}

/// One input.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PairedRows {
    pub(super) answers: Answers,
    /// Segment values, in the order of `--segment`.
    pub(super) segments: Vec<String>,
}

/// How the distance of a number from its label is scored, by option or by the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Score {
    #[default]
    Absolute,
    Squared,
    /// The squared error of probabilities: all labels are 0 or 1, all predictions between them.
    Brier,
}

/// The pairs of both files, and counts of the rows without a pair.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) pairs: Vec<PairedRows>,
    pub(super) only_a: u64,
    pub(super) only_b: u64,
    pub(super) duplicates: (u64, u64),
    /// Number of pairs without a label, if labels are used.
    pub(super) unlabelled: u64,
    pub(super) numbers: bool,
    pub(super) score: Score,
    /// Whether all labels are 0 or 1 and all predictions between them, so that no loss is above 1.
    pub(super) probabilities: bool,
    /// Assumptions, one sentence each.
    pub(super) notes: Vec<String>,
}

/// Largest number of distinct whole numbers that are read as classes.
const FEW: usize = 20;

/// Pairs the rows by id, in the order of A. Errors: bad rows of either file (all at once), or no common ids.
pub(super) fn join(mut a: Rows, mut b: Rows, args: &Compare) -> Result<Joined, CompareError> {
    let missing = |column: &String| -> bool {
        let index = args.segment.iter().position(|name| name == column).unwrap_or_default();
        let lacks = |rows: &Rows| rows.by_id.values().all(|row| row.segments[index].is_none());
        !a.by_id.is_empty() && lacks(&a) && lacks(&b)
    };
    if let Some(column) = args.segment.iter().find(|column| missing(column)) {
        let message = format!("there is no column `{column}` (--segment), nor is there one in {}", b.file);
        a.problem(1, message);
    }
    let cleared = if args.as_written { None } else { notation::clear_missing(&mut a, &mut b) };
    if let Some(column) = &args.label
        && a.by_id.values().chain(b.by_id.values()).all(|row| row.label.is_empty())
    {
        let message = format!("no row has a label in `{column}` (--label), nor has one in {}", b.file);
        a.problem(1, message);
    }
    let mut notes: Vec<String> = a.note.iter().chain(&b.note).chain(&cleared).cloned().collect();
    // Bad rows are reported first. Their values do not influence how the files are read.
    let unread = !a.problems.is_empty() || !b.problems.is_empty();
    let numbers = match args.kind {
        Kind::Number => true,
        Kind::Class => false,
        Kind::Auto => match are_numbers(&a, &b, args, &mut notes) {
            Err(_) if unread => true,
            found => found?,
        },
    };
    let mut joined = Joined {
        numbers,
        duplicates: (a.duplicates, b.duplicates),
        only_b: b.by_id.len() as u64,
        notes,
        ..Joined::default()
    };
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
    for (lacks, has, missing) in [(&b, &a, joined.only_a), (&a, &b, joined.only_b)] {
        let of = has.by_id.len() as u64;
        if missing as f64 > args.max_missing * of as f64 {
            let (lacks, has) = (lacks.file.clone(), has.file.clone());
            return Err(CompareError::Missing { lacks, has, missing, of });
        }
    }
    if !numbers {
        something_in_common(&a, &b, args)?;
        if let Some(column) = args.label.as_ref().filter(|_| !args.as_written) {
            notation::check(&a, &b, column)?;
        }
    }
    if args.label.is_some() {
        let labelled = |pair: &&PairedRows| match pair.answers {
            Answers::Numbers { label, .. } => label.is_some(),
            Answers::Classes { wrong, .. } => wrong.is_some(),
        };
        joined.unlabelled = (joined.pairs.len() - joined.pairs.iter().filter(labelled).count()) as u64;
        if numbers {
            joined.choose_score(args)?;
        }
    }
    check_margin(&joined, args)?;
    Ok(joined)
}

impl Joined {
    /// Chooses the score of numbers with labels. The absolute error is not a proper score of a probability: for an event with a
    /// probability of 30 %, the best answer would be 0.
    fn choose_score(&mut self, args: &Compare) -> Result<(), CompareError> {
        let values = || {
            self.pairs.iter().filter_map(|pair| match pair.answers {
                Answers::Numbers { a, b, label } => Some(([a, b], label?)),
                Answers::Classes { .. } => None,
            })
        };
        let is_share = |value: &f64| (0.0..=1.0).contains(value);
        let binary = values().all(|(_, label)| is_binary(label));
        let shares = values().all(|(_, label)| is_share(&label));
        let predicted_shares = values().all(|(predictions, _)| predictions.iter().all(is_share));
        self.probabilities = shares && predicted_shares;
        if args.loss == Loss::Auto && predicted_shares && !shares {
            let labels: Vec<f64> = values().map(|(_, label)| label).collect();
            refuse_odd_labels(&labels)?;
        }
        self.score = match args.loss {
            Loss::Absolute => Score::Absolute,
            Loss::Auto if !binary && !self.probabilities => Score::Absolute,
            Loss::Auto | Loss::Squared if self.probabilities && binary => Score::Brier,
            Loss::Auto | Loss::Squared => Score::Squared,
        };
        if args.loss == Loss::Auto && (binary || self.probabilities) {
            let what = match (binary, self.probabilities) {
                (true, true) => {
                    "labels are 0 or 1 and predictions are between: judged by the squared error (the Brier score)"
                }
                (true, false) => {
                    "labels are 0 or 1: judged by the squared error; predictions outside of 0 to 1 are not probabilities"
                }
                _ => "labels and predictions are between 0 and 1: judged by the squared error; see --loss",
            };
            self.notes.push(what.to_owned());
        }
        if args.loss == Loss::Absolute && binary {
            self.notes.push(
                "the absolute error of a probability is not a proper score: a constant may beat an honest forecast; see --loss".to_owned(),
            );
        }
        Ok(())
    }

    /// A's error rate, or the mean of its losses where none is above 1.
    fn loss_of_a(&self) -> Option<f64> {
        let losses: Vec<f64> = self
            .pairs
            .iter()
            .filter_map(|pair| match pair.answers {
                Answers::Classes { wrong, .. } => wrong.map(|(a, _)| f64::from(u8::from(a))),
                Answers::Numbers { a, label, .. } => {
                    let distance = (a - label?).abs();
                    Some(if self.score == Score::Absolute { distance } else { distance * distance })
                }
            })
            .collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }
}

/// Share of labels that are 0 or 1 from which the others look like mistakes.
const NEARLY_ALL: f64 = 0.9;

/// Refuses labels of probabilities that are nearly all 0 or 1, and two other values such as -1 and 1. Judged by the absolute error, a
/// constant 0 could replace a good forecast.
fn refuse_odd_labels(labels: &[f64]) -> Result<(), CompareError> {
    let odd: Vec<f64> = labels.iter().copied().filter(|label| !is_binary(*label)).collect();
    let values: BTreeSet<u64> = labels.iter().map(|label| (label + 0.0).to_bits()).collect();
    let mistakes = odd.len() as f64 <= (1.0 - NEARLY_ALL) * labels.len() as f64;
    if !mistakes && values.len() != 2 {
        return Ok(());
    }
    let found = odd.first().copied().unwrap_or_default();
    let what = if mistakes {
        format!("{} of {} labels are neither 0 nor 1, such as {found}", odd.len(), labels.len())
    } else {
        let [one, two] = [values.first(), values.last()].map(|bits| bits.map_or(0.0, |bits| f64::from_bits(*bits)));
        format!("the labels are {} and {}", one.min(two), one.max(two))
    };
    Err(CompareError::Unfit(format!(
        "{what}, and all predictions are between 0 and 1: write the labels of probabilities as 0 and 1, or pass --loss absolute or --loss \
         squared if they are amounts"
    )))
}

/// Refuses margins with which everything would pass.
fn check_margin(joined: &Joined, args: &Compare) -> Result<(), CompareError> {
    let Some(margin) = args.margin else { return Ok(()) };
    if args.label.is_none() && !joined.numbers {
        let text =
            "--margin: these are classes, and without labels there is no error rate; pass --label or --max-differ";
        return Err(CompareError::Unfit(text.to_owned()));
    }
    let share = args.label.is_some() && (!joined.numbers || joined.probabilities);
    let own = joined.loss_of_a().filter(|_| share);
    if let Some(own) = own.filter(|own| margin >= 1.0 - own) {
        let what = if joined.numbers { "an error of a probability" } else { "an error rate" };
        return Err(CompareError::Unfit(format!(
            "--margin {margin}: {what} is between 0 and 1 and A's is {own:.4}, so every B would be within it; write 0.05 for five points"
        )));
    }
    Ok(())
}

/// Checks that each file's predictions include a label, or without labels a prediction of the other file.
fn something_in_common(a: &Rows, b: &Rows, args: &Compare) -> Result<(), CompareError> {
    let predictions =
        |rows: &Rows| -> BTreeSet<String> { rows.by_id.values().map(|row| canonical(&row.prediction)).collect() };
    let (of_a, of_b) = (predictions(a), predictions(b));
    let labels: BTreeSet<String> = a
        .by_id
        .values()
        .chain(b.by_id.values())
        .filter(|row| !row.label.is_empty())
        .map(|row| canonical(&row.label))
        .collect();
    let named = |rows: &Rows| format!("the predictions of {}", rows.file);
    let differ = |one: String, other: String, of_one: &BTreeSet<String>, of_other: &BTreeSet<String>| {
        if of_one.is_disjoint(of_other) {
            Err(CompareError::NothingInCommon(one, other, some_of(of_one), some_of(of_other)))
        } else {
            Ok(())
        }
    };
    match &args.label {
        Some(column) => {
            let name = || format!("the labels (`{column}`)");
            differ(named(a), name(), &of_a, &labels).and_then(|()| differ(named(b), name(), &of_b, &labels))
        }
        None => differ(named(a), named(b), &of_a, &of_b),
    }
}

/// The first few values.
fn some_of(values: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = values.iter().take(4).map(String::as_str).collect();
    let more = if values.len() > shown.len() { ", ..." } else { "" };
    shown.join(", ") + more
}

fn is_binary(value: f64) -> bool {
    value == 0.0 || value.total_cmp(&1.0).is_eq()
}

/// Whether predictions are numbers: most of them are numbers (the others are then bad rows), and they are not all 0 or 1, and they and
/// the labels are not a few whole numbers.
fn are_numbers(a: &Rows, b: &Rows, args: &Compare, notes: &mut Vec<String>) -> Result<bool, CompareError> {
    let rows = || a.by_id.values().chain(b.by_id.values());
    let predictions = || rows().map(|row| number(&row.prediction));
    if 2 * predictions().flatten().count() <= predictions().count() {
        return Ok(false);
    }
    let labels = || rows().filter(|row| !row.label.is_empty()).map(|row| number(&row.label));
    let all = || predictions().chain(labels());
    let whole = |value: Option<f64>| value.is_some_and(|value| value.fract() == 0.0);
    let binary = predictions().all(|value| value.is_some_and(is_binary));
    if binary && labels().all(|label| label.is_none() || whole(label)) {
        return Ok(false);
    }
    if !all().all(whole) || (args.label.is_none() && args.margin.is_none()) {
        return Ok(true);
    }
    let texts = rows().flat_map(|row| [&row.prediction, &row.label]).filter(|text| !text.is_empty());
    let values: BTreeSet<String> = texts.map(|text| canonical(text)).collect();
    if args.label.is_none() || values.len() > FEW {
        return Err(CompareError::AmbiguousNumbers(values.len()));
    }
    notes.push(format!(
        "predictions and labels have {} distinct whole numbers, read as classes; see --kind",
        values.len()
    ));
    Ok(false)
}

fn pair(a: &Row, b: &Row, file_a: &str, file_b: &str, numbers: bool) -> Result<PairedRows, Vec<Problem>> {
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
            found.unwrap_or(0.0)
        };
        let (x, y) =
            (finite("prediction", &a.prediction, file_a, a.line), finite("prediction", &b.prediction, file_b, b.line));
        let (file, line) = if a.label.is_empty() { (file_b, b.line) } else { (file_a, a.line) };
        let label = (!label.is_empty()).then(|| finite("label", label, file, line));
        // Distances are squared, and the squares are squared and summed.
        let largest = [x, y, label.unwrap_or_default()].into_iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        if largest > LARGEST {
            bad(
                file_a,
                a.line,
                format!("{largest:e} is too large to be judged (beyond {LARGEST:e}); scale all numbers down"),
            );
        }
        Answers::Numbers { a: x, b: y, label }
    } else {
        let (x, y, label) = (canonical(&a.prediction), canonical(&b.prediction), canonical(label));
        Answers::Classes { same: x == y, wrong: (!label.is_empty()).then(|| (x != label, y != label)) }
    };
    let segment = |(a, b): (&Option<String>, &Option<String>)| {
        a.clone().or_else(|| b.clone()).filter(|value| !value.is_empty()).unwrap_or_else(|| "(none)".to_owned())
    };
    if problems.is_empty() {
        Ok(PairedRows { answers, segments: a.segments.iter().zip(&b.segments).map(segment).collect() })
    } else {
        Err(problems)
    }
}

/// Largest number for which sums of squared distances are finite.
const LARGEST: f64 = 1e140;
