//! A verdict as a table for people: both arms side by side, the effect with its interval, what is known.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serin_schemas::records::{ArmSummary, MetricResult, MetricVerdict, NoDataReason, Role, Verdict};
use serin_statistics::closed_e_bh;

/// Which rows of a verdict are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Everything.
    All,
    /// Whole-traffic metrics and the segments that matter: failed ones, and the one with the most evidence against it.
    Telling,
}

/// Share of wrong names that a list of suspects may have on average.
const FALSE_SUSPECTS: f64 = 0.05;

/// The segment values that are suspected now, by metric, worst first: closed e-BH on the current e-values of all hypotheses about
/// segments, so that at most 5 % of the names are wrong on average, whenever one looks. A list to look into: what is proven is what failed.
pub(crate) fn suspects(verdict: &Verdict) -> Vec<&MetricVerdict> {
    let segments: Vec<&MetricVerdict> = verdict.metrics.iter().filter(|metric| !metric.segment.is_all()).collect();
    let ln_e: Vec<f64> = segments.iter().map(|metric| metric.ln_e_fail).collect();
    let named = closed_e_bh(&ln_e, FALSE_SUSPECTS).into_iter();
    let mut suspects: Vec<&MetricVerdict> =
        segments.into_iter().zip(named).filter(|(_, named)| *named).map(|(metric, _)| metric).collect();
    suspects.sort_by(|one, two| two.ln_e_fail.total_cmp(&one.ln_e_fail));
    suspects
}

/// One suspect in a line.
pub(crate) fn suspicion(metric: &MetricVerdict) -> String {
    format!("{} ({}): {}, {}", metric.metric, metric.segment, evidence(metric.ln_e_fail), metric.sentence)
}

/// The evidence of `verdict` as a table.
pub(crate) fn table(verdict: &Verdict, rows: Rows, colour: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !colour {
        table.force_no_tty();
    }
    table.set_header([
        "metric",
        "segment",
        "canary",
        "control",
        "effect",
        "interval",
        "margin or limit",
        "evidence",
        "verdict",
    ]);
    for metric in chosen(verdict, rows) {
        table.add_row(row(metric));
    }
    for column in [2, 3, 4, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The rows to show, overall metrics first.
fn chosen(verdict: &Verdict, rows: Rows) -> Vec<&MetricVerdict> {
    let suspect = verdict
        .metrics
        .iter()
        .filter(|metric| !metric.segment.is_all() && metric.result != MetricResult::NoData)
        .max_by(|a, b| a.ln_e_fail.total_cmp(&b.ln_e_fail))
        .map(|metric| (&metric.metric, &metric.segment));
    let telling = |metric: &&MetricVerdict| {
        rows == Rows::All
            || metric.segment.is_all()
            || metric.result == MetricResult::Fail
            || suspect == Some((&metric.metric, &metric.segment))
    };
    let (overall, segments): (Vec<_>, Vec<_>) =
        verdict.metrics.iter().filter(telling).partition(|metric| metric.segment.is_all());
    overall.into_iter().chain(segments).collect()
}

fn row(metric: &MetricVerdict) -> Vec<Cell> {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let interval = match (metric.effect_low, metric.effect_high) {
        (Some(low), Some(high)) => format!("{} .. {}", signed(low), signed(high)),
        _ => "-".to_owned(),
    };
    vec![
        Cell::new(&metric.metric),
        Cell::new(&metric.segment),
        Cell::new(format!("{} (n {})", number(metric.canary.value), metric.canary.n)),
        Cell::new(format!("{} (n {})", number(metric.control.value), metric.control.n)),
        Cell::new(metric.effect.map_or_else(|| "-".to_owned(), signed)),
        Cell::new(interval),
        Cell::new(bound(metric)),
        Cell::new(evidence(metric.ln_e_fail)),
        verdict_cell(metric),
    ]
}

/// What the canary is held against: the margin, or the limits.
fn bound(metric: &MetricVerdict) -> String {
    match (metric.limit_pass, metric.limit_fail, metric.margin) {
        (Some(pass), Some(fail), _) if pass.total_cmp(&fail).is_eq() => format!("limit {}", short(fail)),
        (Some(pass), Some(fail), _) => format!("limits {}, {}", short(pass), short(fail)),
        (.., Some(margin)) => short(margin),
        _ => "-".to_owned(),
    }
}

/// How strongly the data speak against "not worse than the margin": the e-value as odds.
fn evidence(ln_e: f64) -> String {
    match ln_e {
        ln_e if ln_e < 1.0 => "none".to_owned(),
        ln_e if ln_e < 13.8 => format!("{:.0} : 1", ln_e.exp()),
        _ => "> 1e6 : 1".to_owned(),
    }
}

fn verdict_cell(metric: &MetricVerdict) -> Cell {
    let watch = if metric.role == Role::Watch { " (watch)" } else { "" };
    let better = if metric.better { ", better" } else { "" };
    let new = if metric.culprit_is_new { ", new" } else { "" };
    let culprit = metric.culprit.as_ref().map_or(String::new(), |culprit| format!(": {culprit}{new}"));
    match metric.result {
        MetricResult::Pass => Cell::new(format!("pass{better}{watch}")).fg(Color::Green),
        MetricResult::Fail => Cell::new(format!("FAIL{culprit}{watch}")).fg(Color::Red),
        MetricResult::Undecided => Cell::new(format!("undecided{better}{watch}")).fg(Color::Yellow),
        MetricResult::NoData => Cell::new(format!("no data: {}{watch}", why(metric.no_data))).fg(Color::DarkGrey),
    }
}

/// Why a metric was not judged, in words.
pub(crate) fn why(reason: Option<NoDataReason>) -> &'static str {
    match reason {
        Some(NoDataReason::NoCanaryTraffic) => "no canary traffic",
        Some(NoDataReason::NoControlTraffic) => "no control traffic",
        Some(NoDataReason::LabelsPending) => "labels pending",
        Some(NoDataReason::LabelsMissing) => "labels missing",
        Some(NoDataReason::ValueMissing) => "value missing",
        Some(NoDataReason::EventsLost) => "events lost",
        Some(NoDataReason::LateShareDiffers) => "late share differs",
        Some(NoDataReason::SampleRatio) => "sample ratio",
        Some(NoDataReason::SegmentMix) => "segment mix",
        Some(NoDataReason::NoShadowTraffic) => "no mirrored calls",
        Some(NoDataReason::UnreadShareDiffers) => "unread share differs",
        Some(NoDataReason::ValueShareDiffers) => "value share differs",
        Some(NoDataReason::CancelledShareDiffers) => "cancelled share differs",
        Some(NoDataReason::FewUnits) => "few units",
        Some(NoDataReason::NotHeard) => "writer not heard",
        Some(NoDataReason::FewAnswers) => "few answers",
        Some(NoDataReason::NoBaseline) => "no baseline",
        Some(NoDataReason::Outage) => "stable is failing",
        Some(NoDataReason::LabelDelay) => "label delay",
        Some(NoDataReason::ForeignVersion) => "another version",
        Some(NoDataReason::CannotFail) => "cannot fail",
        None => "unknown",
    }
}

/// What became of an arm's calls since the canary began: `95 ok, 3 refused, 2 failed; callers left 4 more`.
pub(crate) fn outcomes(arm: &ArmSummary) -> String {
    let others = [
        (arm.refused, "refused"),
        (arm.redirected, "redirected"),
        (arm.errors, "failed"),
        (arm.invalid, "unusable"),
        (arm.unread, "unread"),
    ];
    let ok = arm.predictions - others.iter().map(|(count, _)| count).sum::<i64>();
    let parts = std::iter::once((ok, "ok")).chain(others.into_iter().filter(|(count, _)| *count > 0));
    let text = parts.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    let left = if arm.cancelled > 0 { format!("; callers left {} more", arm.cancelled) } else { String::new() };
    text + &left
}

/// A number in four significant digits.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".to_owned(),
        m if m >= 1e15 => format!("{value:.3e}"),
        m if m >= 1000.0 => format!("{value:.0}"),
        m if m >= 10.0 => format!("{value:.1}"),
        m if m >= 1.0 => format!("{value:.2}"),
        m if m >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

/// A number with its sign.
pub(crate) fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", short(value)) } else { short(value) }
}

#[cfg(test)]
mod tests {
    use serin_schemas::records::Segment;

    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_sign() {
        assert_eq!(short(0.012_345), "0.0123");
        assert_eq!(short(12_345.6), "12346");
        assert_eq!(short(6.25), "6.25");
        assert_eq!((short(1e300), signed(-2.5e18)), ("1.000e300".to_owned(), "-2.500e18".to_owned()));
        assert_eq!(signed(0.002), "+0.0020");
        assert_eq!(signed(-0.002), "-0.0020");
        assert_eq!(signed(0.0), "0");
    }

    #[test]
    fn suspects_are_segments_worst_first() {
        let text = include_str!("../../../schemas/tests/golden/verdict.v2.json");
        let mut verdict: Verdict = serde_json::from_str(text).unwrap();
        let one = verdict.metrics[0].clone();
        let with = |value: &str, e: f64| MetricVerdict {
            segment: if value.is_empty() { Segment::all() } else { Segment::of("origin", value) },
            ln_e_fail: e.ln(),
            ..one.clone()
        };
        // All traffic has a test of its own; 25 is enough beside 100, see `closed_e_bh`.
        verdict.metrics = vec![with("", 1e9), with("JFK", 1.0), with("EWR", 25.0), with("LGA", 100.0)];
        let names = |verdict: &Verdict| -> Vec<String> {
            suspects(verdict).into_iter().map(|suspect| suspect.segment.to_string()).collect()
        };
        assert_eq!(names(&verdict), ["origin=LGA", "origin=EWR"]);
        let line = suspicion(suspects(&verdict)[0]);
        assert!(line.contains("(origin=LGA): 100 : 1, "), "{line}");
        verdict.metrics = vec![with("", 1e9), with("JFK", 1.0), with("EWR", 25.0), with("LGA", 30.0)];
        assert!(names(&verdict).is_empty());
    }

    #[test]
    fn evidence_reads_as_odds() {
        assert_eq!(evidence(-3.0), "none");
        assert_eq!(evidence(100f64.ln()), "100 : 1");
        assert_eq!(evidence(50.0), "> 1e6 : 1");
    }
}
