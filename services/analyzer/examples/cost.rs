//! The cost of one hypothesis-window, end to end: decode, merge, multiply, verdict, rows.
//!
//! `cargo run --release -p serin-analyzer --example cost -- [VALUES_PER_DIMENSION] [WINDOWS] [ROLLOUTS]`
//!
//! Each rollout has four metrics over all requests, over each value and over the rest: 2020 hypotheses with 503 values, 20
//! with 3. All rollouts are in one fold, on one thread.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example that prints and may stop")]
#![expect(clippy::disallowed_methods, reason = "this example measures time")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use serin_analyzer::{AnalyzerFactory, Config};
use serin_schemas::{
    codec::{Record as Schema, encode},
    envelope::{self, Envelope},
    ids::{EventTime, Generation, ModelName, Span},
    records::{Arm, ArmCounts, Cell, ClosedThrough, Control, Phase, Segment, WindowClosed},
};
use serin_sketches::{LinHist, LogHist, Rate, Summary};
use serin_stream::{driver::FoldDriver, fold::FoldFactory};

const WINDOW: Span = Span(10_000_000);
const METRICS: [(&str, &str); 4] = [
    ("errors", r#""kind": "rate", "source": "error", "margin": {"absolute": 0.002}"#),
    ("clicks", r#""kind": "rate", "source": {"output": "click"}, "margin": {"relative": 0.05}"#),
    ("latency", r#""kind": {"quantile": {"level": 0.99}}, "source": "latency", "margin": {"relative": 0.2}"#),
    ("score", r#""kind": {"mean": {"min": 0, "max": 1}}, "source": {"output": "score"}, "margin": {"relative": 0.05}"#),
];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let values = arguments.next().unwrap_or(99);
    let windows = arguments.next().unwrap_or(30);
    let rollouts = arguments.next().unwrap_or(1);
    let mut harness = FoldDriver::new(|| AnalyzerFactory::new(Config::default(), 1).fold(0)).unwrap();
    let names: Vec<String> = (0..values).map(|value| format!("v{value}")).collect();
    let models: Vec<ModelName> = (0..rollouts).map(|rollout| format!("m{rollout}").as_str().into()).collect();
    let frozen = serde_json::json!({"segments": {"country": names}, "warmupEvents": 0}).to_string();
    for model in &models {
        send(&mut harness, &control(model.as_str(), &frozen));
    }
    let mut times = [const { Vec::new() }; 3];
    for window in 1..=windows {
        let end = EventTime(WINDOW.0 * window as i64);
        let mut part = closed(&names, end);
        let mut read = Duration::ZERO;
        for model in &models {
            part.model = model.as_str().into();
            part.rollout = model.as_str().into();
            read += timed(|| send(&mut harness, &part));
        }
        times[0].push(read);
        let promise = ClosedThrough::heard(0, 1, end);
        times[1].push(timed(|| send(&mut harness, &promise)));
        times[2].push(timed(|| assert_eq!(harness.commit().unwrap().len(), rollouts)));
    }
    let hypotheses = METRICS.len() * (values + 2) * rollouts;
    let bytes: usize = harness.rows().values().map(Bytes::len).sum();
    println!("{rollouts} rollouts, {hypotheses} hypotheses, {windows} windows, {bytes} bytes of rows; medians:");
    let mut total = 0.0;
    for (what, time) in ["read and merge", "judge and report", "write rows"].into_iter().zip(&mut times) {
        time.sort();
        let micros = time[windows / 2].as_secs_f64() * 1e6;
        let each = micros / hypotheses as f64;
        total += micros;
        println!("{what:>15}: {:8.2} ms per window, {each:6.2} us per hypothesis-window", micros / 1e3);
    }
    println!("{:>15}: {:8.2} ms per window", "together", total / 1e3);
    // Linux only. Elsewhere the line is left out.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        println!("{:>15}: {}", "peak memory", peak.trim());
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn send<R: Schema>(harness: &mut FoldDriver, value: &R) {
    let envelope = Envelope { id: "1", source: "/cost", subject: "", time: EventTime(0) };
    let body = Bytes::from(encode(value).unwrap());
    let record = harness.record("windows", 0, 0, "m", envelope::headers::<R>(&envelope), Some(body));
    assert_eq!(harness.apply(&record).unwrap().poison, None);
}

fn control(model: &str, frozen: &str) -> Control {
    let metric = |(name, rest): &(&str, &str)| format!(r#"{{"name": "{name}", {rest}, "segments": ["country"]}}"#);
    let metrics = METRICS.iter().map(metric).collect::<Vec<_>>().join(",");
    let spec = format!(
        r#"{{"apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "{model}", "stable": {{"version": "1"}},
            "canary": {{"version": "2"}}, "steps": [{{"weight": "10%"}}], "metrics": [{metrics}],
            "segments": [{{"name": "country", "source": {{"header": "x-country"}}}}]}}"#
    );
    Control {
        model: model.into(),
        rollout: model.into(),
        generation: Generation(1),
        phase: Phase::Baking,
        step: 0,
        stable: "1".into(),
        canary: "2".into(),
        canary_share: 1000,
        control_share: 9000,
        decided_at: EventTime(0),
        spec,
        frozen: Some(frozen.to_owned()),
        rules: serin_schemas::records::RULES,
        acknowledged: None,
    }
}

/// A window with 100 answers of the canary and 900 of control in each segment.
fn closed(names: &[String], end: EventTime) -> WindowClosed {
    let mut cells = Vec::new();
    let segments = names.iter().map(String::as_str).chain(["other"]).map(|value| Segment::of("country", value));
    for segment in segments.chain([Segment::all()]) {
        for (arm, n) in [(Arm::Canary, 100), (Arm::Control, 900)] {
            for (metric, _) in METRICS {
                let summary = summary(metric, n, end).encode();
                cells.push(Cell { arm, segment: segment.clone(), metric: metric.to_owned(), summary });
            }
        }
    }
    let arm = |(arm, predictions)| ArmCounts { predictions, ..ArmCounts::none(arm) };
    WindowClosed {
        model: "m".into(),
        rollout: "r".into(),
        generation: Generation(1),
        partition: 0,
        end,
        length: WINDOW,
        maturity: Span(0),
        cells,
        arms: [(Arm::Control, 90_000), (Arm::Canary, 10_000)].map(arm).into(),
        population: Vec::new(),
        rules: serin_schemas::records::RULES,
        units: Vec::new(),
    }
}

fn summary(metric: &str, n: u64, end: EventTime) -> Summary {
    let dice = |i: u64| serin_sketches::hash::hash64(&end.0.to_le_bytes(), &i.to_le_bytes());
    let unit = |i: u64| dice(i) as f64 / u64::MAX as f64;
    match metric {
        "latency" => {
            let mut hist = LogHist::new();
            (0..n).for_each(|i| hist.insert(20.0 * (1.5 * unit(i)).exp()).unwrap());
            Summary::Log(hist)
        }
        "score" => {
            let mut hist = LinHist::new();
            (0..n).for_each(|i| hist.insert(unit(i), dice(i + n)).unwrap());
            Summary::Lin(hist)
        }
        _ => Summary::Rate(Rate::new(n, n / 50).unwrap()),
    }
}
