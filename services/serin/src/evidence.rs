//! A verdict as a table: both arms, the effect with its interval, the evidence and the result. Failed checks come first.

use serin_controller::report::effect_within;
use serin_kinds::Unit;
use serin_schemas::records::{ArmSummary, MetricResult, MetricVerdict, NoDataReason, Role, Verdict};
use serin_spec::RolloutSpec;
use serin_statistics::closed_e_bh;

use crate::terminal::{Cell, Column, Table, Terminal, Tone};

/// Which rows of a verdict are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// All rows.
    All,
    /// Metrics over all traffic, failed segments, and the segment with the most evidence against it.
    Relevant,
}

/// Share of wrong names that a list of suspects may contain on average.
const FALSE_SUSPECTS: f64 = 0.05;

/// The segment values that are suspected now, by metric, worst first. Closed e-BH on the current e-values of all hypotheses about
/// segments: on average at most 5 % of the names are wrong, at any time of looking. Only a failed check is proof.
pub(crate) fn suspects(verdict: &Verdict) -> Vec<&MetricVerdict> {
    let segments: Vec<&MetricVerdict> = verdict.metrics.iter().filter(|metric| !metric.segment.is_all()).collect();
    let ln_e: Vec<f64> = segments.iter().map(|metric| metric.ln_e_fail).collect();
    let named = closed_e_bh(&ln_e, FALSE_SUSPECTS).into_iter();
    let mut suspects: Vec<&MetricVerdict> =
        segments.into_iter().zip(named).filter(|(_, named)| *named).map(|(metric, _)| metric).collect();
    suspects.sort_by(|one, two| two.ln_e_fail.total_cmp(&one.ln_e_fail));
    suspects
}

/// One suspect on a line.
pub(crate) fn suspicion(metric: &MetricVerdict) -> String {
    format!("{} ({}): {}, {}", metric.metric, metric.segment, evidence(metric.ln_e_fail), metric.sentence)
}

/// The table's columns. On a narrow terminal, columns with a large rank are removed first.
static COLUMNS: [Column; 10] = [
    Column::text("metric", 0),
    Column::text("segment", 2),
    Column::number("canary", 1),
    Column::number("control", 3),
    Column::number("n", 6),
    Column::number("effect", 7),
    Column::number("interval", 4),
    Column::number("margin or limit", 5),
    Column::number("evidence", 8),
    Column::text("verdict", 0),
];
/// Largest number of rows for [`Rows::Relevant`].
const MOST_ROWS: usize = 12;

/// The evidence of `verdict` as the lines of a table.
pub(crate) fn table(verdict: &Verdict, spec: &RolloutSpec, rows: Rows, terminal: Terminal) -> Vec<String> {
    let chosen = chosen(verdict, rows);
    let shown = if rows == Rows::All { chosen.len() } else { MOST_ROWS.min(chosen.len()) };
    // Without segments, the column that names them is not needed.
    let in_segments = chosen.iter().any(|metric| !metric.segment.is_all());
    let columns: Vec<Column> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(place, _)| in_segments || *place != 1)
        .map(|(_, column)| column.clone())
        .collect();
    let mut table = Table::new(&columns);
    for metric in &chosen[..shown] {
        let mut cells = row(metric, spec);
        if !in_segments {
            cells.remove(1);
        }
        table.row(cells);
    }
    let mut lines = table.lines(terminal);
    if shown < chosen.len() {
        lines.push(format!(" ... {} more rows: serin explain {}", chosen.len() - shown, verdict.model));
    }
    lines
}

/// The rows to show: failed checks, then open ones, then passed ones. Within each group, metrics over all traffic come first.
fn chosen(verdict: &Verdict, rows: Rows) -> Vec<&MetricVerdict> {
    let suspect = verdict
        .metrics
        .iter()
        .filter(|metric| !metric.segment.is_all() && metric.result != MetricResult::NoData)
        .max_by(|a, b| a.ln_e_fail.total_cmp(&b.ln_e_fail))
        .map(|metric| (&metric.metric, &metric.segment));
    let relevant = |metric: &&MetricVerdict| {
        rows == Rows::All
            || metric.segment.is_all()
            || metric.result == MetricResult::Fail
            || suspect == Some((&metric.metric, &metric.segment))
    };
    let mut chosen: Vec<&MetricVerdict> = verdict.metrics.iter().filter(relevant).collect();
    chosen.sort_by_key(|metric| {
        let open = match metric.result {
            MetricResult::Fail => 0,
            MetricResult::Undecided | MetricResult::NoData => 1,
            MetricResult::Pass => 2,
        };
        (open, !metric.segment.is_all())
    });
    chosen
}

/// The units of a metric's values and of their difference.
fn units(metric: &str, spec: &RolloutSpec) -> (Unit, Unit) {
    let found = spec.metrics.iter().find(|known| known.name == metric);
    found.map_or((Unit::Plain, Unit::Plain), |known| {
        (Unit::of(&known.kind, &known.source), Unit::of_difference(&known.kind, &known.source))
    })
}

/// A value of a metric in the format of its sentences; `-` if there is none.
pub(crate) fn value(metric: &str, spec: &RolloutSpec, value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| units(metric, spec).0.value(value))
}

fn row(metric: &MetricVerdict, spec: &RolloutSpec) -> Vec<Cell> {
    let (_, difference) = units(&metric.metric, spec);
    let interval = match (metric.effect_low, metric.effect_high) {
        (None, None) if metric.effect.is_none() => "-".to_owned(),
        (low, high) => difference.interval(low, high),
    };
    vec![
        metric.metric.as_str().into(),
        metric.segment.to_string().into(),
        value(&metric.metric, spec, metric.canary.value).into(),
        value(&metric.metric, spec, metric.control.value).into(),
        format!("{}/{}", metric.canary.n, metric.control.n).into(),
        effect(metric).map_or_else(|| "-".to_owned(), |effect| difference.difference(effect)).into(),
        interval.into(),
        bound(metric, spec).into(),
        evidence(metric.ln_e_fail).into(),
        verdict_cell(metric),
    ]
}

/// The effect of a metric that is shown next to its interval.
fn effect(metric: &MetricVerdict) -> Option<f64> {
    effect_within(metric.effect, (metric.effect_low, metric.effect_high), metric.canary.value, metric.control.value)
}

/// An effect of a metric with its interval, in the format of the table.
pub(crate) fn effect_with_interval(
    metric: &str,
    spec: &RolloutSpec,
    (effect, low, high): (Option<f64>, Option<f64>, Option<f64>),
) -> String {
    let (_, difference) = units(metric, spec);
    let effect = effect.map_or_else(|| "-".to_owned(), |effect| difference.difference(effect));
    format!("{effect} ({})", difference.interval(low, high))
}

/// What the canary is compared with: the margin, or the limits.
fn bound(metric: &MetricVerdict, spec: &RolloutSpec) -> String {
    let (unit, difference) = units(&metric.metric, spec);
    match (metric.limit_pass, metric.limit_fail, metric.margin) {
        (Some(pass), Some(fail), _) if pass.total_cmp(&fail).is_eq() => format!("limit {}", unit.value(fail)),
        (Some(pass), Some(fail), _) => format!("limits {}, {}", unit.value(pass), unit.value(fail)),
        (.., Some(margin)) => difference.distance(margin),
        _ => "-".to_owned(),
    }
}

/// The strength of the evidence against "not worse than the margin": the e-value as odds.
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
        MetricResult::Pass => Cell::toned(format!("pass{better}{watch}"), Tone::Good),
        MetricResult::Fail => Cell::toned(format!("FAIL{culprit}{watch}"), Tone::Bad),
        MetricResult::Undecided => Cell::toned(format!("undecided{better}{watch}"), Tone::Open),
        MetricResult::NoData => Cell::toned(format!("no data: {}{watch}", why(metric.no_data)), Tone::Open),
    }
}

/// Why a metric was not judged, as text.
fn why(reason: Option<NoDataReason>) -> &'static str {
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
        Some(NoDataReason::LabelContradictions) => "label contradictions",
        Some(NoDataReason::CannotFail) => "cannot fail",
        None => "unknown",
    }
}

/// The outcomes of an arm's calls since the canary started: `95 ok, 3 refused, 2 failed; 4 more cancelled`.
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
    let left = if arm.cancelled > 0 { format!("; {} more cancelled", arm.cancelled) } else { String::new() };
    text + &left
}

/// A number in short form.
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

    /// Seen in a rollout with few answers: 69.4 % against 13.5 %, an effect of +85 points, and an interval from +23 to +81.
    #[test]
    fn the_shown_effect_is_within_its_interval() {
        let text = include_str!("../../../schemas/tests/golden/verdict.v2.json");
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        let of = |recorded: f64, ends: (Option<f64>, Option<f64>)| {
            let mut metric = verdict.metrics[0].clone();
            (metric.canary.value, metric.control.value) = (Some(0.694), Some(0.135));
            (metric.effect, metric.effect_low, metric.effect_high) = (Some(recorded), ends.0, ends.1);
            effect(&metric).map(|effect| (effect * 1e3).round())
        };
        assert_eq!(of(0.85, (Some(0.23), Some(0.81))), Some(559.0));
        assert_eq!(of(0.6, (Some(0.23), Some(0.81))), Some(600.0));
        assert_eq!(of(0.85, (Some(0.6), Some(0.81))), Some(810.0));
        assert_eq!(of(0.1, (Some(0.2), None)), Some(559.0));
        assert_eq!(of(0.85, (None, None)), Some(850.0));
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
        // All traffic has its own test. An e-value of 25 is enough next to 100, see `closed_e_bh`.
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
