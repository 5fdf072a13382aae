//! Invalid input gives no evidence or a clear error, never a verdict and never a panic; and the unit of a metric does not matter.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use serin_sketches::hash::hash64;
use serin_sketches::{
    CappedHist, ClassCounts, Events, LinHist, LogHist, MAX_COUNT, Pair, Pairs, Rate, Summary, SummaryKind,
};
use serin_statistics::{Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum, rejects};

fn spec(measure: Measure, against: Against) -> HypothesisSpec {
    HypothesisSpec { measure, direction: Direction::LowerIsBetter, against, horizon: 60, interval_alpha: 0.05 }
}

/// Every measure, for values around 5 units. `unit` is the size of a unit in the metric.
fn specs(unit: f64) -> Vec<HypothesisSpec> {
    let absolute = |margin: f64| Against::Control(Margin::absolute(margin));
    let relative = |margin: f64| Against::Control(Margin::relative(margin));
    vec![
        spec(Measure::Rate, absolute(0.01)),
        spec(Measure::Mean { min: 0.0, max: 10.0 * unit }, absolute(0.1 * unit)),
        spec(Measure::Mean { min: 0.0, max: 10.0 * unit }, relative(0.05)),
        spec(Measure::Mean { min: 0.0, max: 10.0 * unit }, Against::limit(6.0 * unit)),
        spec(Measure::CappedMean { cap: 10.0 * unit }, relative(0.05)),
        spec(Measure::CappedMean { cap: 10.0 * unit }, Against::limit(6.0 * unit)),
        spec(Measure::Quantile { level: 0.9 }, relative(0.1)),
        spec(Measure::Quantile { level: 0.9 }, absolute(0.5 * unit)),
        spec(Measure::Quantile { level: 0.9 }, Against::limit(8.0 * unit)),
        spec(Measure::Distribution, absolute(0.1)),
        spec(Measure::Classes, absolute(0.02)),
        spec(Measure::Count, relative(0.1)),
        spec(Measure::Count, Against::limit(6.0)),
        spec(Measure::Counts { most: 10.0 }, relative(0.1)),
        spec(Measure::Counts { most: 10.0 }, Against::limit(6.0)),
        spec(Measure::Disagreement, Against::limit(0.3)),
        spec(Measure::PairedDifference { width: 10.0 * unit }, absolute(0.1 * unit)),
    ]
}

/// The summary that a measure gets for values in units.
fn summary(spec: &HypothesisSpec, unit: f64, values: &[f64]) -> Summary {
    let hash = |index: usize| hash64(b"nonsense", &index.to_le_bytes());
    let numbered = || values.iter().enumerate();
    match spec.measure.summary() {
        SummaryKind::Rate => {
            let events = values.iter().filter(|&&value| value > 7.0).count() as u64;
            Summary::Rate(Rate::new(values.len() as u64, events).unwrap())
        }
        SummaryKind::Lin => {
            let mut hist = LinHist::new();
            numbered().for_each(|(index, value)| hist.insert(value / 10.0, hash(index)).unwrap());
            Summary::Lin(hist)
        }
        SummaryKind::Capped => {
            // A count of events has no unit.
            let unit = if let Measure::Counts { .. } = spec.measure { 1.0 } else { unit };
            let mut hist = CappedHist::new(10.0 * unit).unwrap();
            numbered().for_each(|(index, value)| hist.insert(value * unit, hash(index)).unwrap());
            Summary::Capped(hist)
        }
        SummaryKind::Log => {
            let mut hist = LogHist::new();
            for value in values {
                hist.insert(value * unit).unwrap();
            }
            Summary::Log(hist)
        }
        SummaryKind::Classes => {
            let mut counts = ClassCounts::default();
            for value in values {
                counts.insert(&format!("{value:.0}")).unwrap();
            }
            Summary::Classes(counts)
        }
        SummaryKind::Events => {
            let events = values.iter().map(|&value| value.round() as u64).sum();
            Summary::Events(Events::new(events, values.len() as u64).unwrap())
        }
        SummaryKind::Pairs => {
            let mut pairs = Pairs::new();
            for (index, value) in numbered() {
                let difference = (value - 5.0) / 10.0;
                pairs.insert(Pair::Number { differs: *value > 7.0, difference, hash: hash(index) }).unwrap();
            }
            Summary::Pairs(pairs)
        }
        other => panic!("no measure needs {other}"),
    }
}

/// `n` values between `5 - spread` and `5 + spread`, times `factor`.
fn values(seed: u64, n: u64, spread: f64, factor: f64) -> Vec<f64> {
    let unit =
        |i: u64| (hash64(b"values", &[seed.to_le_bytes(), i.to_le_bytes()].concat()) >> 11) as f64 / 2f64.powi(53);
    (0..n).map(|i| factor * (5.0 + spread * (2.0 * unit(i) - 1.0))).collect()
}

fn run(spec: HypothesisSpec, unit: f64, spread: f64, factor: f64) -> Hypothesis {
    let mut hypothesis = Hypothesis::new(spec).unwrap();
    hypothesis.observe_warmup(&summary(&spec, unit, &values(0, 1000, spread, 1.0))).unwrap();
    for window in 1..=20 {
        let canary = summary(&spec, unit, &values(2 * window, 100, spread, factor));
        let control = summary(&spec, unit, &values(2 * window + 1, 500, spread, 1.0));
        let stratum = Stratum { canary: &canary, control: &control };
        hypothesis.observe(i64::try_from(window).unwrap(), &[stratum]).unwrap();
    }
    hypothesis
}

#[test]
fn every_unit_gives_the_same_verdicts() {
    for unit in [1e-9, 1e-3, 1.0, 1e3, 1e9] {
        for spec in specs(unit) {
            let (healthy, harmful) = (run(spec, unit, 2.5, 1.0), run(spec, unit, 2.5, 1.33));
            assert!(!rejects(healthy.max_ln_e_fail(), 0.01), "{spec:?}: {}", healthy.max_ln_e_fail());
            assert!(rejects(harmful.ln_e_fail(), 0.01), "{spec:?}: {}", harmful.ln_e_fail());
            assert!(!rejects(harmful.ln_e_pass(), 0.05), "{spec:?}: {}", harmful.ln_e_pass());
            let effect = harmful.effect();
            // In a mix, a share may also have fallen.
            let harm = effect.difference.map(|d| if spec.measure == Measure::Classes { d.abs() } else { d });
            assert!(harm.unwrap() > 0.0 && !effect.better, "{spec:?}: {effect:?}");
        }
    }
}

#[test]
fn equal_values_fail_nothing() {
    for unit in [1e-9, 1.0, 1e9] {
        for spec in specs(unit) {
            let hypothesis = run(spec, unit, 0.0, 1.0);
            assert!(hypothesis.max_ln_e_fail() <= 0.0, "{spec:?}: {}", hypothesis.max_ln_e_fail());
            let effect = hypothesis.effect();
            assert!(!effect.better);
            for number in [effect.canary.value, effect.difference, effect.low, effect.high].into_iter().flatten() {
                assert!(number.is_finite(), "{spec:?}: {effect:?}");
            }
        }
    }
}

#[test]
fn an_empty_arm_is_never_judged() {
    for spec in specs(1.0) {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        let (some, none) = (summary(&spec, 1.0, &values(1, 500, 2.5, 1.3)), summary(&spec, 1.0, &[]));
        hypothesis.observe_warmup(&some).unwrap();
        let one_arm = matches!(spec.against, Against::Limit { .. }) || spec.measure.summary() == SummaryKind::Pairs;
        for window in 0..40 {
            // Against a limit only the canary counts, so only the canary's arm is empty.
            let stratum = if window % 2 == 0 && !one_arm {
                Stratum { canary: &some, control: &none }
            } else {
                Stratum { canary: &none, control: &some }
            };
            hypothesis.observe(window, &[stratum]).unwrap();
        }
        assert_eq!(
            (hypothesis.windows(), hypothesis.max_ln_e_fail(), hypothesis.ln_e_pass()),
            (0, 0.0, 0.0),
            "{spec:?}"
        );
        assert_eq!(hypothesis.effect().canary.n, 0);
    }
}

/// Numbers that a spec may contain.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, f64::MAX, 5e-324]),
        any::<f64>(),
        0.0..1.0_f64,
        -10.0..10.0_f64,
    ]
}

fn measure() -> impl Strategy<Value = Measure> {
    prop_oneof![
        Just(Measure::Rate),
        (number(), number()).prop_map(|(min, max)| Measure::Mean { min, max }),
        number().prop_map(|cap| Measure::CappedMean { cap }),
        number().prop_map(|level| Measure::Quantile { level }),
        Just(Measure::Distribution),
        Just(Measure::Classes),
        Just(Measure::Count),
        Just(Measure::Counts { most: 1e6 }),
        Just(Measure::Disagreement),
        number().prop_map(|width| Measure::PairedDifference { width }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_spec_is_refused_or_handled(
        measure in measure(), numbers in (number(), number(), number()), limit: bool, higher: bool, horizon: u32,
        parts in (any::<bool>(), any::<bool>()), phi in number(), seed: u64,
    ) {
        let (one, two, alpha) = numbers;
        let margin = Margin { absolute: parts.0.then_some(one), relative: parts.1.then_some(two) };
        let against = if limit { Against::Limit { pass: one, fail: two } } else { Against::Control(margin) };
        let direction = if higher { Direction::HigherIsBetter } else { Direction::LowerIsBetter };
        let spec = HypothesisSpec { measure, direction, against, horizon, interval_alpha: alpha };
        let Ok(mut hypothesis) = Hypothesis::new(spec) else { return Ok(()) };
        let arm = |seed, n, factor| match measure {
            // The histogram must have the hypothesis's cap.
            Measure::CappedMean { cap } | Measure::Counts { most: cap } => {
                let mut hist = CappedHist::new(cap).unwrap();
                for value in values(seed, n, 2.5, factor) {
                    hist.insert(value, seed).unwrap();
                }
                Summary::Capped(hist)
            }
            _ => summary(&spec, 1.0, &values(seed, n, 2.5, factor)),
        };
        hypothesis.observe_warmup(&arm(seed, 60, 1.0)).unwrap();
        hypothesis.temper(phi);
        for window in 0..4 {
            let (canary, control) = (arm(seed ^ 1, 20, 1.2), arm(seed ^ 2, 50, 1.0));
            hypothesis.observe(window, &[Stratum { canary: &canary, control: &control }]).unwrap();
            prop_assert!(hypothesis.ln_e_fail().is_finite() && hypothesis.ln_e_pass().is_finite(), "{:?}", spec);
            prop_assert!(hypothesis.max_ln_e_fail() >= 0.0);
        }
        let json = serde_json::to_string(&hypothesis).unwrap();
        prop_assert_eq!(serde_json::from_str::<Hypothesis>(&json).unwrap(), hypothesis);
    }
}

#[test]
fn the_largest_counts_stay_finite() {
    let rate = |k: u64| Summary::Rate(Rate::new(MAX_COUNT, k).unwrap());
    let events = |k: u64| Summary::Events(Events::new(k, MAX_COUNT).unwrap());
    let limit = Against::limit(0.05);
    let cases: [(HypothesisSpec, Vec<Summary>); 3] = [
        (spec(Measure::Rate, limit), vec![rate(0), rate(MAX_COUNT), rate(MAX_COUNT / 2)]),
        (spec(Measure::Count, limit), vec![events(0), events(MAX_COUNT), events(1)]),
        (spec(Measure::Count, Against::Control(Margin::relative(0.1))), vec![events(0), events(MAX_COUNT), events(1)]),
    ];
    for (spec, summaries) in cases {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        let mut window = 0;
        for canary in &summaries {
            for control in &summaries {
                window += 1;
                hypothesis.observe(window, &[Stratum { canary, control }]).unwrap();
                assert!(hypothesis.ln_e_fail().is_finite() && hypothesis.ln_e_pass().is_finite(), "{spec:?}");
                serde_json::to_string(&hypothesis.effect()).unwrap();
            }
        }
    }
}
