//! From pairs to findings: which metrics there are, their tests, Holm over all of them, one sentence each.

use std::collections::BTreeMap;

use serde::Serialize;
use serin_statistics::paired::{Differences, Disagreement, Discordant};
use serin_statistics::{Scope, rollback_weights, weighted_holm_adjusted};

use super::join::{Answers, Joined, Pair};
use super::text::{self, Figures};
use crate::cli::{Compare, Loss};

/// Fewest pairs for a test of means: with fewer, a few outliers decide.
const MIN_PAIRS: u64 = 30;
/// Most values of a segment column that are judged: the most frequent ones.
const MAX_VALUES: usize = 50;

/// What is known of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// Within the margin, or better.
    Pass,
    /// Beyond the margin.
    Fail,
    /// Neither could be shown.
    Undecided,
    /// Shown without a limit: there is nothing to hold it against.
    Shown,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(super) metric: &'static str,
    pub(super) segment: String,
    pub(super) pairs: u64,
    pub(super) a: Option<f64>,
    pub(super) b: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    pub(super) margin: Option<f64>,
    /// One-sided p-value of "beyond the margin", as it is and after Holm over all lines with a limit.
    pub(super) p_beyond: Option<f64>,
    pub(super) p_beyond_holm: Option<f64>,
    /// One-sided p-value of "within the margin".
    pub(super) p_within: Option<f64>,
    pub(super) finding: Finding,
    pub(super) sentence: String,
    #[serde(skip)]
    scope: Option<Scope>,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) a: String,
    pub(super) b: String,
    pub(super) pairs: u64,
    pub(super) only_in_a: u64,
    pub(super) only_in_b: u64,
    pub(super) duplicates_in_a: u64,
    pub(super) duplicates_in_b: u64,
    pub(super) unlabelled: u64,
    pub(super) alpha: f64,
    pub(super) lines: Vec<Line>,
    pub(crate) finding: Finding,
    pub(super) sentence: String,
}

/// A test's result before it is corrected: the figures of a line, `(p_beyond, p_within)`.
struct Tested {
    figures: Figures,
    p: Option<(f64, f64)>,
}

/// Tests all metrics over all pairs, and the first one that has a limit in each segment.
pub(super) fn report(joined: &Joined, args: &Compare) -> Report {
    let all: Vec<&Pair> = joined.pairs.iter().collect();
    let mut lines: Vec<Line> = metrics(joined, args)
        .into_iter()
        .filter_map(|metric| Some(line("all".to_owned(), Scope::Overall, &test(metric, &all, args)?, args)))
        .collect();
    if let Some(metric) = metrics(joined, args).into_iter().find(|metric| limit(*metric, args).is_some()) {
        for (segment, pairs) in segments(joined, args) {
            lines.extend(test(metric, &pairs, args).map(|tested| line(segment, Scope::Segment, &tested, args)));
        }
    }
    correct(&mut lines, args.alpha);
    let finding = overall(&lines);
    let name = |path: &std::path::Path| path.display().to_string();
    for line in &mut lines {
        line.sentence = text::sentence(line, args);
    }
    Report {
        a: name(&args.a),
        b: name(&args.b),
        pairs: joined.pairs.len() as u64,
        only_in_a: joined.only_a,
        only_in_b: joined.only_b,
        duplicates_in_a: joined.duplicates.0,
        duplicates_in_b: joined.duplicates.1,
        unlabelled: joined.unlabelled,
        alpha: args.alpha,
        sentence: text::conclusion(&lines, finding),
        lines,
        finding,
    }
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    ErrorRate,
    Loss(Loss),
    Mean,
    Differs,
}

/// The metrics of these files, the most telling first.
fn metrics(joined: &Joined, args: &Compare) -> Vec<Metric> {
    let quality = match (&args.label, joined.numbers) {
        (None, _) => None,
        (Some(_), false) => Some(Metric::ErrorRate),
        (Some(_), true) => Some(Metric::Loss(args.loss)),
    };
    let mean = joined.numbers.then_some(Metric::Mean);
    quality.into_iter().chain(mean).chain([Metric::Differs]).collect()
}

/// What a metric is held against: the margin belongs to the quality where there are labels, else to the mean.
fn limit(metric: Metric, args: &Compare) -> Option<f64> {
    match metric {
        Metric::ErrorRate | Metric::Loss(_) => Some(args.margin.unwrap_or(0.0)),
        Metric::Mean => args.margin.filter(|_| args.label.is_none()),
        Metric::Differs => args.max_differ,
    }
}

fn test(metric: Metric, pairs: &[&Pair], args: &Compare) -> Option<Tested> {
    let limit = limit(metric, args);
    match metric {
        Metric::ErrorRate => error_rate(pairs, limit?, args.alpha),
        Metric::Loss(loss) => {
            let of = |prediction: f64, label: f64| match loss {
                Loss::Absolute => (prediction - label).abs(),
                Loss::Squared => (prediction - label) * (prediction - label),
            };
            let losses = pairs.iter().filter_map(|pair| match pair.answers {
                Answers::Numbers { a, b, label } => label.map(|label| (of(a, label), of(b, label))),
                Answers::Classes { .. } => None,
            });
            let name = if loss == Loss::Absolute { "absolute error" } else { "squared error" };
            means(name, &losses.collect::<Vec<_>>(), limit, false, args.alpha)
        }
        Metric::Mean => {
            let values = pairs.iter().filter_map(|pair| match pair.answers {
                Answers::Numbers { a, b, .. } => Some((a, b)),
                Answers::Classes { .. } => None,
            });
            means("mean prediction", &values.collect::<Vec<_>>(), limit, true, args.alpha)
        }
        Metric::Differs => Some(differs(pairs, limit, args)),
    }
}

fn error_rate(pairs: &[&Pair], margin: f64, alpha: f64) -> Option<Tested> {
    let mut counts = Discordant { n: 0, only_canary: 0, only_control: 0 };
    let mut both = 0;
    for pair in pairs {
        if let Answers::Classes { wrong: Some((a, b)), .. } = pair.answers {
            counts.n += 1;
            counts.only_canary += u64::from(b && !a);
            counts.only_control += u64::from(a && !b);
            both += u64::from(a && b);
        }
    }
    let difference = counts.difference()?;
    let rate = |only: u64| Some((only + both) as f64 / counts.n as f64);
    let figures = Figures {
        metric: "error rate",
        pairs: counts.n,
        a: rate(counts.only_control),
        b: rate(counts.only_canary),
        difference: Some(difference),
        interval: counts.interval(alpha),
        margin: Some(margin),
    };
    Some(Tested { figures, p: Some((counts.p_beyond(margin), counts.p_within(margin))) })
}

/// Means of `(a, b)`; `both_ways`: a difference counts in either direction.
fn means(
    metric: &'static str,
    values: &[(f64, f64)],
    margin: Option<f64>,
    both_ways: bool,
    alpha: f64,
) -> Option<Tested> {
    let n = values.len() as u64;
    if n == 0 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / n as f64;
    let differences: Vec<f64> = values.iter().map(|(a, b)| b - a).collect();
    let found = Differences::of(&differences);
    let enough = found.filter(|_| n >= MIN_PAIRS);
    let p = |(found, margin): (Differences, f64)| {
        if both_ways {
            let beyond = found.p_beyond(margin).min(found.p_within(-margin));
            ((2.0 * beyond).min(1.0), found.p_within(margin).max(found.p_beyond(-margin)))
        } else {
            (found.p_beyond(margin), found.p_within(margin))
        }
    };
    let figures = Figures {
        metric,
        pairs: n,
        a: Some(mean(|pair| pair.0)),
        b: Some(mean(|pair| pair.1)),
        difference: Some(differences.iter().sum::<f64>() / n as f64),
        interval: enough.and_then(|found| found.interval(alpha)),
        margin,
    };
    Some(Tested { figures, p: enough.zip(margin).map(p) })
}

fn differs(pairs: &[&Pair], limit: Option<f64>, args: &Compare) -> Tested {
    let differ = pairs.iter().filter(|pair| match pair.answers {
        Answers::Numbers { a, b, .. } => (a - b).abs() > args.tolerance,
        Answers::Classes { same, .. } => !same,
    });
    let counts = Disagreement { n: pairs.len() as u64, differ: differ.count() as u64 };
    let figures = Figures {
        metric: "share that differs",
        pairs: counts.n,
        a: None,
        b: None,
        difference: counts.share(),
        interval: counts.interval(args.alpha),
        margin: limit,
    };
    Tested { figures, p: limit.map(|limit| (counts.p_beyond(limit), counts.p_within(limit))) }
}

/// The pairs of each value of each segment column, the most frequent values first.
fn segments<'a>(joined: &'a Joined, args: &Compare) -> Vec<(String, Vec<&'a Pair>)> {
    let mut all = Vec::new();
    for (index, column) in args.segment.iter().enumerate() {
        let mut values: BTreeMap<&str, Vec<&Pair>> = BTreeMap::new();
        for pair in &joined.pairs {
            values.entry(&pair.segments[index]).or_default().push(pair);
        }
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by_key(|(_, pairs)| std::cmp::Reverse(pairs.len()));
        all.extend(values.into_iter().take(MAX_VALUES).map(|(value, pairs)| (format!("{column}={value}"), pairs)));
    }
    all
}

fn line(segment: String, scope: Scope, tested: &Tested, args: &Compare) -> Line {
    let Figures { metric, pairs, a, b, difference, interval, margin } = tested.figures;
    // Answers without any difference are within whatever margin.
    let same =
        metric == "mean prediction" && margin.is_some() && difference == Some(0.0) && interval == Some((0.0, 0.0));
    let within = tested.p.is_some_and(|(_, p)| p <= args.alpha) || same;
    let finding = match margin {
        None => Finding::Shown,
        Some(_) if within => Finding::Pass,
        Some(_) => Finding::Undecided,
    };
    Line {
        metric,
        segment,
        pairs,
        a,
        b,
        difference,
        low: interval.map(|ends| ends.0),
        high: interval.map(|ends| ends.1),
        margin,
        p_beyond: tested.p.map(|p| p.0),
        p_beyond_holm: None,
        p_within: tested.p.map(|p| p.1),
        finding,
        sentence: String::new(),
        scope: tested.p.map(|_| scope),
    }
}

/// Weighted Holm over all lines with a limit, half of the budget for the whole and half for segments: the chance that any
/// line fails falsely is at most `alpha`.
fn correct(lines: &mut [Line], alpha: f64) {
    let judged: Vec<usize> = (0..lines.len()).filter(|&index| lines[index].scope.is_some()).collect();
    let scopes: Vec<(Scope, f64)> = judged.iter().filter_map(|&index| Some((lines[index].scope?, 1.0))).collect();
    let p = judged.iter().map(|&index| lines[index].p_beyond.unwrap_or(1.0));
    let hypotheses: Vec<(f64, f64)> = rollback_weights(&scopes).into_iter().zip(p).collect();
    for (index, adjusted) in judged.into_iter().zip(weighted_holm_adjusted(&hypotheses)) {
        lines[index].p_beyond_holm = Some(adjusted);
        if adjusted <= alpha {
            lines[index].finding = Finding::Fail;
        }
    }
}

/// Any failure fails; all metrics with a limit must pass as a whole (segments may be undecided).
fn overall(lines: &[Line]) -> Finding {
    let mut whole = lines.iter().filter(|line| line.segment == "all" && line.finding != Finding::Shown).peekable();
    if lines.iter().any(|line| line.finding == Finding::Fail) {
        Finding::Fail
    } else if whole.peek().is_some() && whole.all(|line| line.finding == Finding::Pass) {
        Finding::Pass
    } else {
        Finding::Undecided
    }
}
