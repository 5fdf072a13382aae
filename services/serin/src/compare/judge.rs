//! From pairs to findings: the metrics, their tests, Holm's correction over all of them, and one sentence for each.
//!
//! A test is chosen if its assumptions are met; if none fits, the line stays undecided. Counts use exact tests if few pairs differ.
//! Means use a t test if there are enough pairs for their skewness, and otherwise betting on bounded values.

use std::collections::BTreeMap;

use serin_statistics::paired::{Differences, Disagreement, Discordant, p_within_bounded};
use serin_statistics::{Scope, rollback_weights, weighted_holm_adjusted};

use super::finding::{Figures, Finding, Line, Report, T_TEST};
use super::join::{Answers, Joined, PairedRows, Score};
use super::text;
use crate::cli::Compare;

/// Smallest number of pairs for a t test.
const MIN_PAIRS: u64 = 30;
/// Smallest number of pairs with which a t test can show that B is good enough. With fewer, a gross error in one pair of a hundred is
/// often not among them (`0.99^299` is 5 %), and such errors can dominate a mean.
const RARE_PAIRS: u64 = 300;
/// Largest number of values of a segment column that are judged: the most frequent ones.
const MAX_VALUES: usize = 50;

/// The result of a test before correction: the figures of a line and `(p_beyond, p_within)`.
struct Tested {
    figures: Figures,
    test: &'static str,
    needed: Option<u64>,
    p: Option<(f64, f64)>,
}

/// Tests all metrics over all pairs, and the first one that has a limit in each segment.
pub(super) fn report(joined: &Joined, args: &Compare) -> Report {
    let all: Vec<&PairedRows> = joined.pairs.iter().collect();
    let mut lines: Vec<Line> = metrics(joined, args)
        .into_iter()
        .filter_map(|metric| Some(line("all".to_owned(), Scope::Overall, &test(metric, &all, joined, args)?, args)))
        .collect();
    if let Some(metric) = metrics(joined, args).into_iter().find(|metric| limit(*metric, args).is_some()) {
        for (segment, pairs) in segments(joined, args) {
            lines.extend(test(metric, &pairs, joined, args).map(|tested| line(segment, Scope::Segment, &tested, args)));
        }
    }
    correct(&mut lines, args.alpha);
    let finding = overall(&lines);
    let name = |path: &std::path::Path| path.display().to_string();
    for line in &mut lines {
        line.sentence = text::sentence(line, args);
    }
    let mut notes = joined.notes.clone();
    notes.extend(text::assumptions(&lines));
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
        notes,
        sentence: text::conclusion(&lines, finding),
        lines,
        finding,
    }
}

/// A metric that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    ErrorRate,
    Loss(Score),
    Mean,
    Differs,
}

/// The metrics of these files, the most meaningful first.
fn metrics(joined: &Joined, args: &Compare) -> Vec<Metric> {
    let quality = match (&args.label, joined.numbers) {
        (None, _) => None,
        (Some(_), false) => Some(Metric::ErrorRate),
        (Some(_), true) => Some(Metric::Loss(joined.score)),
    };
    let mean = joined.numbers.then_some(Metric::Mean);
    quality.into_iter().chain(mean).chain([Metric::Differs]).collect()
}

/// The limit of a metric. The margin belongs to the quality if there are labels, otherwise to the mean.
fn limit(metric: Metric, args: &Compare) -> Option<f64> {
    match metric {
        Metric::ErrorRate | Metric::Loss(_) => Some(args.margin.unwrap_or(0.0)),
        Metric::Mean => args.margin.filter(|_| args.label.is_none()),
        Metric::Differs => args.max_differ,
    }
}

fn test(metric: Metric, pairs: &[&PairedRows], joined: &Joined, args: &Compare) -> Option<Tested> {
    let limit = limit(metric, args);
    match metric {
        Metric::ErrorRate => error_rate(pairs, limit?, args.alpha),
        Metric::Loss(score) => {
            let of = |prediction: f64, label: f64| match score {
                Score::Absolute => (prediction - label).abs(),
                Score::Squared | Score::Brier => (prediction - label) * (prediction - label),
            };
            let losses = pairs.iter().filter_map(|pair| match pair.answers {
                Answers::Numbers { a, b, label } => label.map(|label| (of(a, label), of(b, label))),
                Answers::Classes { .. } => None,
            });
            let name = match score {
                Score::Absolute => "absolute error",
                Score::Squared => "squared error",
                Score::Brier => "Brier score",
            };
            let about = About { metric: name, both_ways: false, bounded: joined.probabilities };
            means(about, &losses.collect::<Vec<_>>(), limit, args.alpha)
        }
        Metric::Mean => {
            let values = pairs.iter().filter_map(|pair| match pair.answers {
                Answers::Numbers { a, b, .. } => Some((a, b)),
                Answers::Classes { .. } => None,
            });
            let about = About { metric: "mean prediction", both_ways: true, bounded: false };
            means(about, &values.collect::<Vec<_>>(), limit, args.alpha)
        }
        Metric::Differs => Some(differs(pairs, limit, args)),
    }
}

fn error_rate(pairs: &[&PairedRows], margin: f64, alpha: f64) -> Option<Tested> {
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
        one_sided: counts.interval(2.0 * alpha),
        margin: Some(margin),
    };
    let test = match (margin == 0.0, counts.is_exact(margin)) {
        (true, _) => "McNemar, exact",
        (false, true) => "score test, exact",
        (false, false) => "score test (Tango)",
    };
    Some(Tested { figures, test, needed: None, p: Some((counts.p_beyond(margin), counts.p_within(margin))) })
}

/// A description of a mean.
#[derive(Clone, Copy)]
struct About {
    metric: &'static str,
    /// Whether a difference counts in both directions.
    both_ways: bool,
    /// Whether all values are between 0 and 1 by definition.
    bounded: bool,
}

/// Tests the means of `(a, b)`.
fn means(about: About, values: &[(f64, f64)], margin: Option<f64>, alpha: f64) -> Option<Tested> {
    let n = values.len() as u64;
    if n == 0 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(|pair| of(pair) / n as f64).sum::<f64>();
    let differences: Vec<f64> = values.iter().map(|(a, b)| b - a).collect();
    let found = Differences::of(&differences);
    // A t test assumes that the mean of the differences is normal, which needs enough of them for their skewness and for rare errors.
    let least = found.map_or(MIN_PAIRS, |found| found.pairs_needed().max(MIN_PAIRS));
    let normal = found.filter(|_| n >= least);
    let betting = about.bounded && (normal.is_none() || n < RARE_PAIRS);
    let rare = !betting && n < RARE_PAIRS;
    let test = if betting { Some(MeanTest::Bets(&differences)) } else { normal.map(MeanTest::Normal) };
    let judge = |(test, margin): (MeanTest<'_>, f64)| {
        let (above, within) = test.p(margin);
        let (beyond, within) = if about.both_ways {
            let (not_below, below) = test.p(-margin);
            ((2.0 * above.min(below)).min(1.0), within.max(not_below))
        } else {
            (above, within)
        };
        (beyond, if rare { 1.0 } else { within })
    };
    let figures = Figures {
        metric: about.metric,
        pairs: n,
        a: Some(mean(|pair| pair.0)),
        b: Some(mean(|pair| pair.1)),
        difference: Some(differences.iter().map(|difference| difference / n as f64).sum()),
        interval: normal.filter(|_| !betting).and_then(|found| found.interval(alpha)),
        one_sided: normal.filter(|_| !betting).and_then(|found| found.interval(2.0 * alpha)),
        margin,
    };
    let needed = if rare { least.max(RARE_PAIRS) } else { least };
    let needed = (!betting && n < needed).then_some(needed);
    let name = if betting { "betting on values from 0 to 1" } else { T_TEST };
    Some(Tested { figures, test: name, needed, p: test.zip(margin).map(judge) })
}

/// A test of a mean difference.
enum MeanTest<'a> {
    /// A paired t test.
    Normal(Differences),
    /// Betting on differences between -1 and 1.
    Bets(&'a [f64]),
}

impl MeanTest<'_> {
    /// One-sided p-values of "above `margin`" and of "below `margin`".
    fn p(&self, margin: f64) -> (f64, f64) {
        match self {
            Self::Normal(found) => (found.p_beyond(margin), found.p_within(margin)),
            Self::Bets(differences) => {
                let below = |sign: f64| p_within_bounded(differences.iter().map(|d| sign * d), 1.0, sign * margin);
                (below(-1.0), below(1.0))
            }
        }
    }
}

fn differs(pairs: &[&PairedRows], limit: Option<f64>, args: &Compare) -> Tested {
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
        one_sided: counts.interval(2.0 * args.alpha),
        margin: limit,
    };
    let test = if counts.is_exact() { "binomial, exact" } else { "score test (Wilson)" };
    // A limit of 0 is about these inputs only, so it needs no test.
    let p = |limit: f64| match (limit == 0.0, counts.differ) {
        (true, 0) => (1.0, 0.0),
        (true, _) => (0.0, 1.0),
        _ => (counts.p_beyond(limit), counts.p_within(limit)),
    };
    Tested { figures, test, needed: None, p: limit.map(p) }
}

/// The pairs of each value of each segment column, the most frequent values first.
fn segments<'a>(joined: &'a Joined, args: &Compare) -> Vec<(String, Vec<&'a PairedRows>)> {
    let mut all = Vec::new();
    for (index, column) in args.segment.iter().enumerate() {
        let mut values: BTreeMap<&str, Vec<&PairedRows>> = BTreeMap::new();
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
    let Figures { metric, pairs, a, b, difference, interval, one_sided, margin } = tested.figures;
    let within = tested.p.is_some_and(|(_, p)| p <= args.alpha);
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
        low_one_sided: one_sided.map(|ends| ends.0),
        high_one_sided: one_sided.map(|ends| ends.1),
        margin,
        p_beyond: tested.p.map(|p| p.0),
        p_beyond_holm: None,
        p_within: tested.p.map(|p| p.1),
        finding,
        sentence: String::new(),
        test: tested.test,
        pairs_needed: tested.needed,
        scope: tested.p.map(|_| scope),
    }
}

/// Weighted Holm over all lines with a limit, with half of the budget for all pairs and half for segments. The chance that any line
/// fails falsely is at most `alpha`.
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

/// Any failure fails. To pass, all metrics with a limit must pass over all pairs; segments may be undecided.
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
