//! The cost of one window per hypothesis, by kind: `cargo bench -p serin-statistics --bench windows`.
//!
//! The window is that of the specification's tables: 10 s at 10 000 requests a minute with a tenth for the canary, which
//! gives 167 and 1500 answers.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serin_sketches::hash::hash64;
use serin_sketches::{CappedHist, ClassCounts, LinHist, LogHist, Rate, Summary};
use serin_statistics::{Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum};

const CANARY: u64 = 167;
const CONTROL: u64 = 1500;
const CAP: f64 = 200.0;

fn unit(i: u64) -> f64 {
    (hash64(b"bench", &i.to_le_bytes()) >> 11) as f64 / (1_u64 << 53) as f64
}

fn latency(i: u64) -> f64 {
    30.0 * (0.9 * ((0..6).map(|k| unit(6 * i + k)).sum::<f64>() - 3.0)).exp()
}

fn summary(measure: Measure, n: u64, first: u64) -> Summary {
    let answers = first..first + n;
    match measure {
        Measure::Mean { .. } => {
            let mut hist = LinHist::new();
            // Around 0.8, like a confidence.
            answers
                .for_each(|i| hist.insert(1.0 - 0.4 * unit(i) * unit(i + 1), hash64(b"d", &i.to_le_bytes())).unwrap());
            Summary::Lin(hist)
        }
        Measure::CappedMean { .. } => {
            let mut hist = CappedHist::new(CAP).unwrap();
            answers.for_each(|i| hist.insert(latency(i), hash64(b"d", &i.to_le_bytes())).unwrap());
            Summary::Capped(hist)
        }
        Measure::Quantile { .. } | Measure::Distribution => {
            let mut hist = LogHist::new();
            answers.for_each(|i| hist.insert(latency(i)).unwrap());
            Summary::Log(hist)
        }
        Measure::Classes => {
            let mut counts = ClassCounts::default();
            answers.for_each(|i| counts.insert(&format!("class-{}", (10.0 * unit(i)) as u32)).unwrap());
            Summary::Classes(counts)
        }
        _ => {
            let mut rate = Rate::default();
            answers.for_each(|i| rate.insert(unit(i) < 0.01).unwrap());
            Summary::Rate(rate)
        }
    }
}

/// A hypothesis that has seen 30 windows, and the arms of its next windows.
struct Running {
    hypothesis: Hypothesis,
    arms: Vec<(Summary, Summary)>,
    end: i64,
}

impl Running {
    fn new(measure: Measure, against: Against) -> Self {
        let spec = HypothesisSpec {
            measure,
            direction: Direction::LowerIsBetter,
            against,
            horizon: 360,
            interval_alpha: 0.05,
        };
        let arm = |w: u64| (summary(measure, CANARY, 10_000 * w), summary(measure, CONTROL, 10_000 * w + 5000));
        let mut running = Self { hypothesis: Hypothesis::new(spec).unwrap(), arms: (0..8).map(arm).collect(), end: 0 };
        running.hypothesis.observe_warmup(&summary(measure, 10 * CONTROL, 900_000)).unwrap();
        (0..30).for_each(|_| running.window());
        running
    }

    fn window(&mut self) {
        self.end += 1;
        let (canary, control) = &self.arms[self.end as usize % self.arms.len()];
        self.hypothesis.observe(self.end, &[Stratum { canary, control }]).unwrap();
    }
}

fn absolute(absolute: f64) -> Against {
    Against::Control(Margin { absolute: Some(absolute), relative: None })
}

fn relative(relative: f64) -> Against {
    Against::Control(Margin { absolute: None, relative: Some(relative) })
}

const UNIT: Measure = Measure::Mean { min: 0.0, max: 1.0 };
const P99: Measure = Measure::Quantile { level: 0.99 };

fn kinds(c: &mut Criterion) {
    let mut group = c.benchmark_group("window");
    for (name, measure, against) in [
        ("b2", Measure::Rate, absolute(0.002)),
        ("b2 relative", Measure::Rate, relative(0.05)),
        ("b1", Measure::Rate, Against::limit(0.05)),
        ("m2", UNIT, relative(0.01)),
        ("m1", UNIT, Against::limit(0.9)),
        ("m2w", Measure::CappedMean { cap: CAP }, relative(0.05)),
        ("q2", P99, relative(0.2)),
        ("d2", Measure::Distribution, absolute(0.1)),
        ("c2 of 10", Measure::Classes, absolute(0.02)),
    ] {
        let mut running = Running::new(measure, against);
        group.bench_function(name, |b| b.iter(|| running.window()));
    }
    group.finish();
}

/// The metrics of a typical rollout (two rates, a quantile, a mean) in 500 segments.
fn many(c: &mut Criterion) {
    let mix = [
        (Measure::Rate, absolute(0.002)),
        (Measure::Rate, relative(0.05)),
        (P99, relative(0.2)),
        (UNIT, relative(0.01)),
    ];
    let mut all: Vec<Running> =
        (0..500).flat_map(|_| mix.map(|(measure, against)| Running::new(measure, against))).collect();
    c.bench_function("2000 hypotheses", |b| b.iter(|| all.iter_mut().for_each(Running::window)));
    let evidence = |running: &Running| (running.hypothesis.ln_e_fail(), running.hypothesis.effect());
    c.bench_function("estimates of 2000", |b| {
        b.iter(|| {
            for one in &all {
                let _ = black_box(evidence(one));
            }
        });
    });
}

criterion_group!(benches, kinds, many);
criterion_main!(benches);
