//! The comparison for people: a table and one plain sentence per line.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::judge::{Finding, Line, Report, T_TEST};
use crate::cli::Compare;
use crate::evidence::{short, signed};
use crate::output;

/// The figures of a line.
#[derive(Clone, Copy)]
pub(super) struct Figures {
    pub(super) metric: &'static str,
    pub(super) pairs: u64,
    pub(super) a: Option<f64>,
    pub(super) b: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) margin: Option<f64>,
}

/// Prints a report; `colour` for a terminal.
pub(crate) fn print(report: &Report, colour: bool) {
    output::line(format!("A: {}   B: {}", report.a, report.b));
    output::line(counts(report));
    for note in &report.notes {
        output::line(format!("note: {note}"));
    }
    output::line(format!("\n{}\n", table(report, colour)));
    for line in &report.lines {
        output::line(format!("{} ({}): {}", line.metric, line.segment, line.sentence));
    }
    output::line(format!("\n{}: {}", word(report.finding), report.sentence));
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

fn table(report: &Report, colour: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !colour {
        table.force_no_tty();
    }
    let interval = format!("{} % interval", short_percent(1.0 - report.alpha));
    table.set_header([
        "metric",
        "segment",
        "pairs",
        "A",
        "B",
        "difference",
        &interval,
        "margin",
        "p (Holm)",
        "verdict",
    ]);
    for line in &report.lines {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let print = if line.metric == "share that differs" { short } else { signed };
        let p = |p: f64| if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") };
        let verdict = Cell::new(word(line.finding));
        table.add_row([
            Cell::new(line.metric),
            Cell::new(&line.segment),
            Cell::new(line.pairs),
            Cell::new(number(line.a)),
            Cell::new(number(line.b)),
            Cell::new(line.difference.map_or_else(|| "-".to_owned(), print)),
            Cell::new(match (line.low, line.high) {
                (Some(low), Some(high)) => format!("{} .. {}", print(low), print(high)),
                _ => "-".to_owned(),
            }),
            Cell::new(number(line.margin)),
            Cell::new(line.p_beyond_holm.map_or_else(|| "-".to_owned(), p)),
            match line.finding {
                Finding::Pass => verdict.fg(Color::Green),
                Finding::Fail => verdict.fg(Color::Red),
                Finding::Undecided => verdict.fg(Color::Yellow),
                Finding::Shown => verdict,
            },
        ]);
    }
    for column in [2, 3, 4, 5, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Hundredths, as short as possible: 95, 99.9.
fn short_percent(share: f64) -> String {
    let text = format!("{:.2}", 100.0 * share);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// What a line says, in one sentence.
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
    format!("{text}; {}", known(line, args.alpha))
}

/// What is known of a line's limit.
fn known(line: &Line, alpha: f64) -> String {
    let sure = format!("with {} % confidence", short_percent(1.0 - alpha));
    let margin = line.margin.unwrap_or_default();
    let share = line.metric == "share that differs";
    let limit = match line.metric {
        "error rate" => format!("{} points", short_percent(margin)),
        "share that differs" => percent(margin),
        _ => short(margin),
    };
    match (line.finding, share) {
        (Finding::Shown, true) => "no limit was given (--max-differ)".to_owned(),
        (Finding::Shown, false) => "shown without a limit".to_owned(),
        (Finding::Fail, true) if margin == 0.0 => "no answer may differ".to_owned(),
        (Finding::Pass, true) if margin == 0.0 => "none does, as was asked for".to_owned(),
        (Finding::Fail, true) => format!("that is more than {limit}, {sure}"),
        (Finding::Pass, true) => format!("that is less than {limit}, {sure}"),
        (Finding::Undecided, _) if line.pairs_needed.is_some() => {
            let needed = line.pairs_needed.unwrap_or_default();
            let why = match (line.p_beyond, line.pairs) {
                (None, 30..) => "too few pairs to judge a mean of differences with so long a tail",
                (None, _) => "too few pairs to judge a mean",
                (Some(_), _) => "too few pairs to see what happens in one of a hundred, on which a mean hangs",
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
        (Finding::Undecided, false) => format!("not enough pairs to tell on which side of the margin of {limit}"),
    }
}

/// What the tests take for granted, a sentence for each kind of test.
pub(super) fn assumptions(lines: &[Line]) -> Option<String> {
    let t_tests = || lines.iter().filter(|line| line.test == T_TEST && line.finding != Finding::Shown);
    let fewest = t_tests().filter(|line| line.pairs_needed.is_none()).map(|line| line.pairs).min()?;
    Some(format!(
        "the paired t test assumes that pairs are independent and that errors too rare to be among {fewest} pairs do not weigh"
    ))
}

/// The whole in one sentence.
pub(super) fn conclusion(lines: &[Line], finding: Finding) -> String {
    let named = |wanted: Finding| -> Vec<String> {
        let found = lines.iter().filter(|line| line.finding == wanted);
        found.map(|line| format!("{} ({})", line.metric, line.segment)).collect()
    };
    match finding {
        Finding::Fail => format!("B must not replace A: {}", named(Finding::Fail).join(", ")),
        Finding::Pass => "B may replace A by what was judged".to_owned(),
        _ if lines.iter().all(|line| line.finding == Finding::Shown) => {
            "nothing to judge by: give --label, or a --margin for the mean, or --max-differ".to_owned()
        }
        _ => format!("not known yet: {}", named(Finding::Undecided).join(", ")),
    }
}
