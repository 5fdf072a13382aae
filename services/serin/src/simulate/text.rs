//! A simulation report as text: shares, times, causes of rollbacks and a histogram.

use serin_kinds::{Unit, count};

use super::{
    report::{Report, Row, Spread, Timed},
    run::End,
};
use crate::{output, time::span};

/// Characters of the longest bar.
const WIDE: usize = 44;

/// Prints a report.
pub(crate) fn print(report: &Report, onset: f64) {
    for line in lines(report, onset) {
        output::text(line);
    }
}

pub(super) fn lines(report: &Report, onset: f64) -> Vec<String> {
    let mut lines = ends(report);
    if onset > 0.0 {
        lines.push(String::new());
        lines.push(format!("from the onset at {} to a rollback: {}", span(onset), timed(&report.rollback)));
        if report.before_onset > 0 {
            lines.push(format!("rolled back before the onset (false alarms): {}", report.before_onset));
        }
    }
    if !report.tipped.is_empty() {
        lines.push(String::new());
        lines.push("rolled back on:".to_owned());
        lines.extend(
            report.tipped.iter().take(5).map(|tip| format!("  {:>6}  {} ({})", tip.runs, tip.metric, tip.segment)),
        );
        let rest: usize = report.tipped.iter().skip(5).map(|tip| tip.runs).sum();
        if rest > 0 {
            lines.push(format!("  {rest:>6}  others"));
        }
    }
    if !report.passed.is_empty() {
        lines.push(String::new());
        lines.push("passed, from the start of the step:".to_owned());
        let row = |passed: &super::report::Passed| {
            format!("  step {}  {:<20} {}", passed.step + 1, passed.metric, timed(&passed.timed))
        };
        lines.extend(report.passed.iter().map(row));
    }
    lines.push(String::new());
    lines.push(format!("requests served by the canary: {}", spread(&report.canary_requests)));
    for (metric, extra) in report.extra_events.iter().filter(|(_, extra)| extra.p10 > 0.0) {
        lines.push(format!("events of {metric} beyond what stable would have had: {}", spread(extra)));
    }
    lines.push(String::new());
    lines.extend(histogram(&report.histogram));
    lines
}

fn ends(report: &Report) -> Vec<String> {
    let row = |end: &super::report::EndReport| {
        format!(
            "  {:<13}{:>6}  {:>6.2} % ({:.2} .. {:.2})   after {}, 80 % of them {} .. {}",
            word(end.end),
            end.runs,
            100.0 * end.share,
            100.0 * end.share_low,
            100.0 * end.share_high,
            span(end.seconds.median),
            span(end.seconds.p10),
            span(end.seconds.p90),
        )
    };
    let mut lines: Vec<String> = report.ends.iter().map(row).collect();
    if let Some(held) = report.end(End::Held) {
        lines.push(format!("  example of a hold: {}", held.example));
    }
    lines
}

fn word(name: &str) -> String {
    name.replace('_', " ")
}

fn timed(timed: &Timed) -> String {
    let share = Unit::Percent.value(timed.share);
    match (timed.median_seconds, timed.p90_seconds) {
        (Some(median), Some(p90)) => {
            format!("{share} of the runs, median {}, 90 % within {}", span(median), span(p90))
        }
        (Some(median), None) => format!("{share} of the runs, median {}", span(median)),
        _ => format!("{share} of the runs"),
    }
}

fn spread(spread: &Spread) -> String {
    format!("{} ({} .. {})", count(spread.median), count(spread.p10), count(spread.p90))
}

/// A histogram with one bar per row and one kind of block per end.
fn histogram(rows: &[Row]) -> Vec<String> {
    const BLOCKS: [char; 5] = ['█', '▒', '░', '·', '-'];
    let total = |row: &Row| row.runs.values().sum::<usize>();
    let most = rows.iter().map(total).max().unwrap_or(0).max(1);
    let ends = || End::ALL.into_iter().zip(BLOCKS);
    let there = |end: End| rows.iter().any(|row| row.runs.contains_key(end.name()));
    let legend: Vec<String> =
        ends().filter(|(end, _)| there(*end)).map(|(end, block)| format!("{block} {}", word(end.name()))).collect();
    let mut lines =
        vec![format!("runs by the time of their end, from the canary's first request: {}", legend.join(", "))];
    let first = rows.iter().position(|row| total(row) > 0).unwrap_or(0);
    for row in &rows[first..] {
        let (mut bar, mut so_far) = (String::new(), 0);
        for (end, block) in ends() {
            let count = row.runs.get(end.name()).copied().unwrap_or(0);
            so_far += count;
            // Every end that occurs has at least one block.
            let to = (so_far * WIDE).div_ceil(most).max(bar.chars().count() + usize::from(count > 0));
            let blocks = if count > 0 { to - bar.chars().count() } else { 0 };
            bar.extend(std::iter::repeat_n(block, blocks));
        }
        let range = format!("{} .. {}", span(row.from_seconds), span(row.to_seconds));
        let space = if bar.is_empty() { "" } else { " " };
        lines.push(format!("  {range:<20} {bar}{space}{}", total(row)));
    }
    lines
}
