//! The comparison as text: a table and one sentence per line of it.

use std::fmt::Write as _;

use super::finding::{Finding, Line, Report, T_TEST};
use crate::cli::Compare;
use crate::evidence::{short, signed};
use crate::output;
use crate::terminal::{Cell, Column, Table, Terminal, Tone};

/// Prints a report. The finding comes last.
pub(crate) fn print(report: &Report, terminal: Terminal) {
    output::text(format!("A: {}   B: {}", report.a, report.b));
    output::text(counts(report));
    for note in &report.notes {
        output::text(format!("note: {note}"));
    }
    output::line("");
    table(report, terminal).into_iter().for_each(output::line);
    output::line("");
    for line in &report.lines {
        output::text(format!("{} ({}): {}", line.metric, line.segment, line.sentence));
    }
    let tone = match report.finding {
        Finding::Pass => Tone::Good,
        Finding::Fail => Tone::Bad,
        Finding::Undecided => Tone::Open,
        Finding::Shown => Tone::Plain,
    };
    output::text(format!("\n{}: {}", terminal.paint(word(report.finding), tone), report.sentence));
}

fn counts(report: &Report) -> String {
    let mut text = format!("{} pairs", report.pairs);
    for (count, what) in [
        (report.only_in_a, "ids only in A"),
        (report.only_in_b, "ids only in B"),
        (report.duplicates_in_a, "repeated rows in A (the first counts)"),
        (report.duplicates_in_b, "repeated rows in B (the first counts)"),
        (report.unlabelled, "pairs without a label"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text
}

fn word(finding: Finding) -> &'static str {
    match finding {
        Finding::Pass => "pass",
        Finding::Fail => "FAIL",
        Finding::Undecided => "undecided",
        Finding::Shown => "-",
    }
}

const COLUMNS: [Column; 10] = [
    Column::text("metric", 0),
    Column::text("segment", 1),
    Column::number("pairs", 5),
    Column::number("A", 3),
    Column::number("B", 2),
    Column::number("difference", 4),
    Column::number("interval", 5),
    Column::number("margin", 6),
    Column::number("p (Holm)", 7),
    Column::text("verdict", 0),
];
/// Index of the interval column.
const INTERVAL: usize = 6;

/// The format of a line's numbers, in the table and in its sentence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Shares of the pairs. Differences are in percentage points.
    Rate,
    /// A single share of the pairs.
    Share,
    /// Numbers without a known unit.
    Plain,
}

impl Numbers {
    fn of(metric: &str) -> Self {
        match metric {
            "error rate" => Self::Rate,
            "share that differs" => Self::Share,
            _ => Self::Plain,
        }
    }

    fn value(self, value: f64) -> String {
        if self == Self::Plain { short(value) } else { percent(value) }
    }

    fn difference(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{:+.2} points", 100.0 * value + 0.0),
            Self::Share => percent(value),
            Self::Plain => signed(value),
        }
    }

    fn interval(self, low: f64, high: f64) -> String {
        let low = self.difference(low);
        format!("{} .. {}", low.trim_end_matches([' ', '%']).trim_end_matches(" points"), self.difference(high))
    }

    fn limit(self, margin: f64) -> String {
        match self {
            Self::Rate => format!("{} points", short_percent(margin)),
            Self::Share => percent(margin),
            Self::Plain => short(margin),
        }
    }
}

fn table(report: &Report, terminal: Terminal) -> Vec<String> {
    let mut columns = COLUMNS;
    columns[INTERVAL] = COLUMNS[INTERVAL].clone().called(format!("{} % interval", short_percent(1.0 - report.alpha)));
    let mut table = Table::new(&columns);
    let mut lines: Vec<&Line> = report.lines.iter().collect();
    lines.sort_by_key(|line| line.finding != Finding::Fail);
    for line in lines {
        let numbers = Numbers::of(line.metric);
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned()).into();
        let p = |p: f64| if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") };
        let tone = match line.finding {
            Finding::Pass => Tone::Good,
            Finding::Fail => Tone::Bad,
            Finding::Undecided => Tone::Open,
            Finding::Shown => Tone::Plain,
        };
        table.row(vec![
            line.metric.into(),
            line.segment.as_str().into(),
            line.pairs.to_string().into(),
            or_none(line.a.map(|value| numbers.value(value))),
            or_none(line.b.map(|value| numbers.value(value))),
            or_none(line.difference.map(|value| numbers.difference(value))),
            or_none(line.low.zip(line.high).map(|(low, high)| numbers.interval(low, high))),
            or_none(line.margin.map(|margin| numbers.limit(margin))),
            or_none(line.p_beyond_holm.map(p)),
            Cell::toned(word(line.finding), tone),
        ]);
    }
    table.lines(terminal)
}

/// Percent in the shortest form: 95, 99.9.
fn short_percent(share: f64) -> String {
    let text = format!("{:.2}", 100.0 * share);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// The result of a line in one sentence.
pub(super) fn sentence(line: &Line, args: &Compare) -> String {
    let text = match line.metric {
        "error rate" => {
            let (a, b) = (line.a.unwrap_or_default(), line.b.unwrap_or_default());
            format!("B is wrong in {} of the pairs, A in {}", percent(b), percent(a))
        }
        "share that differs" => {
            let beyond =
                if args.tolerance > 0.0 { format!(" by more than {}", short(args.tolerance)) } else { String::new() };
            format!("the answers differ{beyond} in {} of the pairs", percent(line.difference.unwrap_or_default()))
        }
        metric => {
            let (a, b) = (line.a.unwrap_or_default(), line.b.unwrap_or_default());
            format!("B's {metric} is {} on average, A's {}", short(b), short(a))
        }
    };
    format!("{text}; {}{}", known(line, args.alpha), bound(line).unwrap_or_default())
}

/// The one-sided bound that lets a line pass. The interval of the table is two-sided, so it may reach beyond the margin.
fn bound(line: &Line) -> Option<String> {
    let (low, high) = line.low_one_sided.zip(line.high_one_sided).filter(|_| line.finding == Finding::Pass)?;
    let numbers = Numbers::of(line.metric);
    match line.metric {
        "share that differs" if line.margin == Some(0.0) => None,
        "mean prediction" => Some(format!(" (one-sided bounds: {})", numbers.interval(low, high))),
        _ => Some(format!(" (one-sided bound: at most {})", numbers.difference(high))),
    }
}

/// The finding about a line's limit.
fn known(line: &Line, alpha: f64) -> String {
    let sure = format!("with {} % confidence", short_percent(1.0 - alpha));
    let margin = line.margin.unwrap_or_default();
    let share = line.metric == "share that differs";
    let limit = Numbers::of(line.metric).limit(margin);
    match (line.finding, share) {
        (Finding::Shown, true) => "no limit was given (--max-differ)".to_owned(),
        (Finding::Shown, false) => "shown without a limit".to_owned(),
        (Finding::Fail, true) if margin == 0.0 => "no answer may differ".to_owned(),
        (Finding::Pass, true) if margin == 0.0 => "no answer differs, as required".to_owned(),
        (Finding::Fail, true) => format!("that is more than {limit}, {sure}"),
        (Finding::Pass, true) => format!("that is less than {limit}, {sure}"),
        (Finding::Undecided, _) if line.pairs_needed.is_some() => {
            let needed = line.pairs_needed.unwrap_or_default();
            let why = match (line.p_beyond, line.pairs) {
                (None, 30..) => "too few pairs to judge a mean of differences with such a long tail",
                (None, _) => "too few pairs to judge a mean",
                (Some(_), _) => "too few pairs to see what happens in one of a hundred, which can dominate a mean",
            };
            format!("{why} ({needed} are needed)")
        }
        (Finding::Undecided, true) => format!("that may be more or less than {limit}"),
        (Finding::Fail, false) if line.metric == "mean prediction" => {
            format!("they differ by more than {limit}, {sure}")
        }
        (Finding::Pass, false) if line.metric == "mean prediction" => {
            format!("they differ by less than {limit}, {sure}")
        }
        (Finding::Fail, false) if margin == 0.0 => format!("B is worse, {sure}"),
        (Finding::Fail, false) => format!("B is worse by more than the margin of {limit}, {sure}"),
        (Finding::Pass, false) if margin == 0.0 => format!("B is better, {sure}"),
        (Finding::Pass, false) => format!("B is not worse by more than the margin of {limit}, {sure}"),
        (Finding::Undecided, false) if margin == 0.0 => "neither is shown to be better".to_owned(),
        (Finding::Undecided, false) => format!("not enough pairs to know on which side of the margin of {limit} it is"),
    }
}

/// The assumptions of the tests, in a sentence.
pub(super) fn assumptions(lines: &[Line]) -> Option<String> {
    let t_tests = || lines.iter().filter(|line| line.test == T_TEST && line.finding != Finding::Shown);
    let fewest = t_tests().filter(|line| line.pairs_needed.is_none()).map(|line| line.pairs).min()?;
    Some(format!(
        "the paired t test assumes that pairs are independent and that errors too rare to occur in {fewest} pairs do not matter"
    ))
}

/// The result of the comparison in one sentence.
pub(super) fn conclusion(lines: &[Line], finding: Finding) -> String {
    let named = |wanted: Finding| -> Vec<String> {
        let found = lines.iter().filter(|line| line.finding == wanted);
        found.map(|line| format!("{} ({})", line.metric, line.segment)).collect()
    };
    match finding {
        Finding::Fail => format!("B must not replace A: {}", named(Finding::Fail).join(", ")),
        Finding::Pass => "B may replace A according to all judged metrics".to_owned(),
        _ if lines.iter().all(|line| line.finding == Finding::Shown) => {
            "there is no limit to judge by: pass --label, --margin for the mean, or --max-differ".to_owned()
        }
        _ => format!("not known yet: {}", named(Finding::Undecided).join(", ")),
    }
}
