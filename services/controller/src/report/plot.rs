//! The effect of a metric over time as an SVG picture: the interval as a band, the effect as a line, the margin, and the canary's share.
//!
//! The picture needs no script, and its colors are classes that the page defines.

use std::fmt::Write as _;

use serin_kinds::{Unit, significant};
use serin_schemas::{
    ids::EventTime,
    records::{MetricResult, Segment},
};

use super::{
    Report,
    words::{self, effect_within, units, utc},
};

const WIDTH: f64 = 660.0;
const HEIGHT: f64 = 260.0;
/// Space for the axes: left, right, top, bottom.
const SPACE: [f64; 4] = [78.0, 14.0, 26.0, 46.0];
/// Lines of the grid on the vertical axis, about.
const TICKS: f64 = 5.0;

/// A picture with its title.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) svg: String,
}

/// One verdict on one check.
struct Moment {
    at: EventTime,
    share: i32,
    effect: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    margin: Option<f64>,
    has_failed: bool,
}

/// The pictures of all checks of which there is an interval: over all traffic, and in the segments in which the rollout was decided.
pub(super) fn plots(report: &Report) -> Vec<Plot> {
    let mut checks: Vec<(&str, &Segment)> = Vec::new();
    for metric in report.series.points.iter().flat_map(|judged| &judged.point.metrics) {
        if !checks.contains(&(metric.metric.as_str(), &metric.segment)) {
            checks.push((&metric.metric, &metric.segment));
        }
    }
    // The checks that decided come first.
    let decides = |(metric, segment): &(&str, &Segment)| {
        let reasons = report.evidence.iter().flat_map(|evidence| &evidence.reasons);
        reasons.clone().position(|reason| reason.metric == *metric && reason.segment == **segment).unwrap_or(usize::MAX)
    };
    checks.sort_by_key(decides);
    checks.into_iter().filter_map(|check| plot(report, check)).collect()
}

fn moments(report: &Report, (metric, segment): (&str, &Segment)) -> Vec<Moment> {
    let of = |judged: &super::Judged| {
        let found = judged.point.metrics.iter().find(|known| known.metric == metric && known.segment == *segment)?;
        let (low, high) = (found.effect_low, found.effect_high);
        Some(Moment {
            at: judged.point.as_of,
            share: judged.canary_share,
            effect: effect_within(found.effect, (low, high), found.canary.value, found.control.value),
            low,
            high,
            margin: found.margin.filter(|_| found.limit_fail.is_none()),
            has_failed: found.result == MetricResult::Fail,
        })
    };
    let all = report.series.points.iter().filter_map(of);
    all.filter(|moment| moment.low.is_some() || moment.high.is_some()).collect()
}

/// Maps effects and times to the picture.
struct Scale {
    times: (f64, f64),
    effects: (f64, f64),
}

impl Scale {
    /// A scale for these moments; `None` without a finite interval.
    fn of(moments: &[Moment], sign: f64) -> Option<Self> {
        let (first, last) = (moments.first()?.at.0 as f64, moments.last()?.at.0 as f64);
        // The first intervals are wide. They may leave the picture, because the last ones are to be compared with the margin.
        let later = &moments[moments.len() / 2..];
        let ends = later.iter().flat_map(|moment| {
            [moment.low, moment.high, moment.effect, moment.margin.map(|margin| sign * margin), Some(0.0)]
        });
        let ends = ends.flatten().filter(|end| end.is_finite());
        let (from, to) = ends.fold((0.0_f64, 0.0_f64), |(from, to), end| (from.min(end), to.max(end)));
        let pad = (to - from) * 0.08;
        let effects = (from - pad, to + pad);
        let is_usable = to > from && effects.0.is_finite() && effects.1.is_finite() && pad > 0.0;
        is_usable.then_some(Self { times: (first, last.max(first + 1.0)), effects })
    }

    fn x(&self, at: EventTime) -> f64 {
        let [left, right, ..] = SPACE;
        left + (at.0 as f64 - self.times.0) / (self.times.1 - self.times.0) * (WIDTH - left - right)
    }

    /// The height of an effect; values outside of the picture are at its edges.
    fn y(&self, effect: f64) -> f64 {
        let [_, _, top, bottom] = SPACE;
        let share = ((effect - self.effects.0) / (self.effects.1 - self.effects.0)).clamp(0.0, 1.0);
        top + (1.0 - share) * (HEIGHT - top - bottom)
    }

    /// Round effects at about equal distances.
    fn ticks(&self) -> Vec<f64> {
        let raw = (self.effects.1 - self.effects.0) / TICKS;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= raw);
        let step = step.unwrap_or(raw);
        let first = (self.effects.0 / step).ceil() as i64;
        (first..first + 12).map(|count| count as f64 * step).take_while(|tick| *tick <= self.effects.1).collect()
    }
}

fn plot(report: &Report, check: (&str, &Segment)) -> Option<Plot> {
    let (metric, segment) = check;
    let moments = moments(report, check);
    let sign = words::sign(metric, &report.spec);
    let scale = Scale::of(&moments, sign)?;
    let (_, unit) = units(metric, &report.spec);
    let place = if segment.is_all() { "all traffic".to_owned() } else { segment.to_string() };
    let title = format!("{metric}, {place}");
    let mut svg = String::new();
    let out = &mut svg;
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: the interval of canary minus control over event time\">",
        super::html::escaped(&title)
    );
    axes(out, &scale, unit, &moments);
    shares(out, &scale, &moments);
    band(out, &scale, &moments);
    if let Some(margin) = moments.last().and_then(|moment| moment.margin) {
        let y = scale.y(sign * margin);
        let [left, right, ..] = SPACE;
        let _ = write!(
            out,
            "<line class=\"margin\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - right
        );
        let _ = write!(out, "<text class=\"margin\" x=\"{:.1}\" y=\"{:.1}\">margin</text>", left + 5.0, y - 4.0);
    }
    let line: Vec<String> = moments
        .iter()
        .filter_map(|moment| Some(format!("{:.1},{:.1}", scale.x(moment.at), scale.y(moment.effect?))))
        .collect();
    let _ = write!(out, "<polyline class=\"effect\" points=\"{}\"/>", line.join(" "));
    if let Some(failed) = moments.iter().find(|moment| moment.has_failed) {
        let (x, y) = (scale.x(failed.at), scale.y(failed.effect.unwrap_or_default()));
        let _ = write!(out, "<circle class=\"failed\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>");
        let _ = write!(
            out,
            "<text class=\"failed\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">failed</text>",
            x - 4.0,
            y - 9.0
        );
    }
    out.push_str("</svg>");
    Some(Plot { title, svg })
}

/// The grid, the axes with their names and units, and the line of no difference.
fn axes(out: &mut String, scale: &Scale, unit: Unit, moments: &[Moment]) {
    let [left, right, top, bottom] = SPACE;
    let (right, floor) = (WIDTH - right, HEIGHT - bottom);
    let (factor, name) = match unit {
        Unit::Percent => (100.0, " (points)"),
        Unit::Milliseconds => (1.0, " (ms)"),
        Unit::Seconds => (1.0, " (s)"),
        Unit::Plain => (1.0, ""),
    };
    for tick in scale.ticks() {
        let y = scale.y(tick);
        let class = if tick == 0.0 { "zero" } else { "grid" };
        let sign = if tick > 0.0 { "+" } else { "" };
        let label = significant(tick * factor, 3);
        let _ = write!(out, "<line class=\"{class}\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ =
            write!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{sign}{label}</text>", left - 6.0, y + 4.0);
    }
    let _ = write!(out, "<path class=\"axis\" d=\"M{left} {top}V{floor}H{right}\"/>");
    let (first, last) = (moments.first().map(|moment| moment.at), moments.last().map(|moment| moment.at));
    let (Some(first), Some(last)) = (first, last) else { return };
    let is_short = last.since(first).as_secs_f64() < 86_400.0;
    for (part, anchor) in [(0, "start"), (1, "middle"), (2, "middle"), (3, "end")] {
        let at = EventTime(first.0 + (last.0 - first.0) / 3 * part);
        let text = utc(at);
        // Within a day, the time to the second; otherwise the date, and the time to the minute.
        let label = if is_short { text.get(11..) } else { text.get(5..16) };
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            scale.x(at),
            floor + 17.0,
            label.unwrap_or_default()
        );
        if first == last {
            break;
        }
    }
    let date = utc(first).get(..if is_short { 10 } else { 4 }).map(|date| format!(", {date}"));
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">event time (UTC{})</text>",
        f64::midpoint(left, right),
        HEIGHT - 8.0,
        date.unwrap_or_default()
    );
    let middle = f64::midpoint(top, floor);
    let _ = write!(
        out,
        "<text class=\"name\" x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {middle:.1})\">canary - control{name}</text>"
    );
}

/// A line with the canary's share wherever it changes.
fn shares(out: &mut String, scale: &Scale, moments: &[Moment]) {
    let [_, _, top, bottom] = SPACE;
    let mut before = None;
    let mut free = f64::NEG_INFINITY;
    for moment in moments {
        if before != Some(moment.share) {
            let x = scale.x(moment.at);
            let _ = write!(
                out,
                "<line class=\"share\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{}\"/>",
                HEIGHT - bottom
            );
            // Texts of shares that change quickly would overlap.
            if x >= free {
                let (x, anchor) = if x > WIDTH - 60.0 { (x - 3.0, "end") } else { (x + 3.0, "start") };
                let text = words::share(moment.share);
                let y = top - 6.0;
                let _ = write!(
                    out,
                    "<text class=\"share\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
                );
                free = x + 40.0;
            }
        }
        before = Some(moment.share);
    }
}

/// The interval over time. An end that is not bounded yet is at the edge.
fn band(out: &mut String, scale: &Scale, moments: &[Moment]) {
    let corner = |at: EventTime, effect: f64| format!("{:.1},{:.1}", scale.x(at), scale.y(effect));
    let upper = moments.iter().map(|moment| corner(moment.at, moment.high.unwrap_or(f64::INFINITY)));
    let lower = moments.iter().rev().map(|moment| corner(moment.at, moment.low.unwrap_or(f64::NEG_INFINITY)));
    let corners: Vec<String> = upper.chain(lower).collect();
    let _ = write!(out, "<polygon class=\"band\" points=\"{}\"/>", corners.join(" "));
}
