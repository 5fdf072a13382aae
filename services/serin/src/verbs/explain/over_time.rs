//! `serin explain --over-time`: the interval of each metric's effect as the evidence grew, one line per verdict.

use serde_json::Value;
use serin_controller::report::effect_within;
use serin_schemas::{
    ids::EventTime,
    records::{Estimate, MetricResult},
};
use serin_spec::{Direction, RolloutSpec};

use crate::{
    evidence,
    terminal::{Terminal, Tone},
    time::to_the_second,
};

/// Maximum number of lines per metric.
const LINES: usize = 12;
/// Largest and smallest width of the plot, in characters.
const WIDTH: std::ops::RangeInclusive<usize> = 20..=60;
/// Number of characters of a line without the plot.
const BESIDES: usize = 62;

/// One verdict on one metric.
#[derive(Clone, Debug)]
struct Moment {
    as_of: EventTime,
    /// Share of the canary, in 1/10000.
    share: i64,
    effect: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    margin: Option<f64>,
    has_failed: bool,
}

/// The plots of all metrics, or of one, from the API's series of verdicts.
pub(super) fn plots(series: &Value, spec: &RolloutSpec, metric: Option<&str>, terminal: Terminal) -> Vec<String> {
    let mut lines = Vec::new();
    for known in spec.metrics.iter().filter(|known| metric.is_none_or(|metric| known.name == metric)) {
        let moments: Vec<Moment> = thinned(&moments(series, &known.name));
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let sign = if known.direction == Direction::HigherIsBetter { -1.0 } else { 1.0 };
        let Some(scale) = Scale::of(&moments, sign, terminal) else {
            lines.push(format!("{}: no interval yet", known.name));
            continue;
        };
        lines.push(format!("{}: canary - control, interval [---*---], no difference :, margin |", known.name));
        for moment in &moments {
            let line = format!(
                "  {}  {:>5} %  {}  {}",
                to_the_second(moment.as_of),
                format!("{:.4}", moment.share as f64 / 100.0).trim_end_matches('0').trim_end_matches('.'),
                scale.draw(moment, sign),
                evidence::effect_with_interval(&known.name, spec, (moment.effect, moment.low, moment.high))
            );
            let tone = if moment.has_failed { Tone::Bad } else { Tone::Plain };
            lines.push(terminal.paint(line.trim_end(), tone));
        }
    }
    if series["complete"] == false {
        lines.push(format!("The start is missing: {}", series["note"].as_str().unwrap_or("it was not read")));
    }
    lines
}

/// The moments of a metric, oldest first.
fn moments(series: &Value, metric: &str) -> Vec<Moment> {
    let points = series["points"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |point: &Value| {
        let found = point["metrics"].as_array()?.iter().find(|known| known["metric"] == metric)?;
        let number = |name: &str| found[name].as_f64();
        let estimate = |arm: &str| serde_json::from_value::<Estimate>(found[arm].clone()).ok()?.value;
        let (low, high) = (number("effect_low"), number("effect_high"));
        Some(Moment {
            as_of: EventTime(point["as_of"].as_i64()?),
            share: point["canary_share"].as_i64().unwrap_or(0),
            effect: effect_within(number("effect"), (low, high), estimate("canary"), estimate("control")),
            low,
            high,
            margin: number("margin"),
            has_failed: serde_json::from_value(found["result"].clone())
                .is_ok_and(|result: MetricResult| result == MetricResult::Fail),
        })
    };
    points.iter().filter_map(of).filter(|moment| moment.low.is_some() || moment.high.is_some()).collect()
}

/// At most [`LINES`] moments: evenly spaced, with the last one, and the one in which the metric failed.
fn thinned(moments: &[Moment]) -> Vec<Moment> {
    let last = moments.len().saturating_sub(1);
    let failed = moments.iter().position(|moment| moment.has_failed);
    let step = moments.len().div_ceil(LINES - 2).max(1);
    let kept = moments.iter().enumerate();
    let kept = kept.filter(|(index, _)| index.is_multiple_of(step) || *index == last || Some(*index) == failed);
    kept.map(|(_, moment)| moment.clone()).collect()
}

/// The range of effects that a plot shows.
struct Scale {
    from: f64,
    to: f64,
    width: usize,
}

impl Scale {
    /// A scale for these moments; `None` without a finite interval.
    fn of(moments: &[Moment], sign: f64, terminal: Terminal) -> Option<Self> {
        // The first intervals are wide. They may leave the plot, because the last ones are to be compared with the margin.
        let last = &moments[moments.len().saturating_sub(LINES / 2)..];
        let ends = last
            .iter()
            .flat_map(|moment| [moment.low, moment.high, moment.margin.map(|margin| sign * margin), Some(0.0)]);
        let ends: Vec<f64> = ends.flatten().filter(|end| end.is_finite()).collect();
        let (from, to) = ends.iter().fold((0.0_f64, 0.0_f64), |(from, to), end| (from.min(*end), to.max(*end)));
        let pad = (to - from) * 0.05;
        let width = terminal.columns().saturating_sub(BESIDES).clamp(*WIDTH.start(), *WIDTH.end());
        (to > from && pad.is_finite()).then_some(Self { from: from - pad, to: to + pad, width })
    }

    /// The column of an effect; values outside of the plot are at its ends.
    fn column(&self, effect: f64) -> usize {
        let share = ((effect - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        (share * (self.width - 1) as f64).round() as usize
    }

    fn draw(&self, moment: &Moment, sign: f64) -> String {
        let mut cells = vec![' '; self.width];
        let (low, high) = (moment.low.unwrap_or(f64::NEG_INFINITY), moment.high.unwrap_or(f64::INFINITY));
        let first = self.column(low);
        let last = self.column(high).max(first);
        cells[first..=last].fill('-');
        cells[self.column(0.0)] = ':';
        if let Some(margin) = moment.margin {
            cells[self.column(sign * margin)] = '|';
        }
        // An end outside of the plot is an arrow.
        cells[first] = if low < self.from { '<' } else { '[' };
        cells[last] = if high > self.to { '>' } else { ']' };
        if let Some(effect) = moment.effect.filter(|effect| (self.from..=self.to).contains(effect)) {
            cells[self.column(effect)] = '*';
        }
        cells.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terminal::of_width;

    const SPEC: &str = "{apiVersion: serin.dev/v1, kind: Rollout, model: m, stable: {version: '1', url: 'http://a'}, \
                        canary: {version: '2', url: 'http://b'}, steps: [{weight: 50%, bake: {min: 10m, max: 2h}}], \
                        metrics: [{name: failed, kind: rate, source: failed, margin: {absolute: 0.01}}]}";

    fn series(count: i64) -> Value {
        let point = |number: i64| {
            let half = 0.08 / (number + 1) as f64;
            let effect = 0.002 * (number as f64).sqrt();
            let failed = effect - half > 0.01;
            json!({"as_of": 1_796_095_570_000_000_i64 + number * 60_000_000, "canary_share": if number < 20 { 500 } else { 2500 },
                "metrics": [{"metric": "failed", "result": if failed { "fail" } else { "undecided" }, "margin": 0.01,
                    "canary": {"n": 100, "value": 0.01 + effect}, "control": {"n": 1000, "value": 0.01},
                    "effect": effect, "effect_low": effect - half, "effect_high": effect + half}]})
        };
        json!({"points": (0..count).map(point).collect::<Vec<_>>(), "complete": count > 1, "note": null})
    }

    fn plotted(series: &Value) -> String {
        let spec = serin_rollout::parse_yaml(SPEC).unwrap().normalized();
        plots(series, &spec, Some("failed"), of_width(Some(100))).join("\n")
    }

    #[test]
    fn an_interval_shrinks_until_it_is_beyond_the_margin() {
        insta::assert_snapshot!(plotted(&series(60)));
    }

    #[test]
    fn few_moments_and_none_are_shown_too() {
        insta::assert_snapshot!(format!("{}\n\n{}", plotted(&series(1)), plotted(&series(0))));
    }

    #[test]
    fn open_and_infinite_ends_stay_in_the_plot() {
        let mut series = series(3);
        series["points"][1]["metrics"][0]["effect_high"] = json!(null);
        series["points"][2]["metrics"][0]["effect_low"] = json!(-1e300);
        let text = plotted(&series);
        assert!(text.lines().nth(2).unwrap().contains('>') && text.lines().count() == 4, "{text}");
    }

    #[test]
    fn the_failure_and_the_newest_verdict_are_never_left_out() {
        for count in [1, 2, 11, 12, 13, 100, 160] {
            let moments = moments(&series(count), "failed");
            let kept = thinned(&moments);
            assert!(kept.len() <= LINES && !kept.is_empty(), "{count}: {}", kept.len());
            assert_eq!(kept.last().map(|moment| moment.as_of), moments.last().map(|moment| moment.as_of));
            let first = |all: &[Moment]| all.iter().find(|moment| moment.has_failed).map(|moment| moment.as_of);
            assert_eq!(first(&kept), first(&moments));
        }
    }
}
