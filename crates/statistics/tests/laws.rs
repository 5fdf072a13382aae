//! Laws of whole hypotheses: P2 (merge order), P3 (units), P4 (symmetry), P6 (no replay), persistence, invalid input.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use serin_sketches::hash::hash64;
use serin_sketches::{
    CappedHist, ClassCounts, Events, GAMMA, LinHist, LogHist, MAX_COUNT, Pair, Pairs, Rate, Summary, SummaryKind,
};
use serin_statistics::{
    Against, Direction, Effect, Hypothesis, HypothesisSpec, Margin, Measure, ObserveError, SpecError, Stratum,
};

fn spec(measure: Measure, margin: Margin) -> HypothesisSpec {
    let direction = Direction::LowerIsBetter;
    HypothesisSpec { measure, direction, against: Against::Control(margin), horizon: 60, interval_alpha: 0.05 }
}

fn both() -> Margin {
    Margin { absolute: Some(0.01), relative: Some(0.1) }
}

fn specs() -> Vec<HypothesisSpec> {
    let limit = |measure, limit| HypothesisSpec { against: Against::limit(limit), ..spec(measure, both()) };
    vec![
        spec(Measure::Rate, both()),
        spec(Measure::Mean { min: -1.0, max: 9.0 }, both()),
        spec(Measure::CappedMean { cap: 8.0 }, both()),
        spec(Measure::Quantile { level: 0.9 }, both()),
        spec(Measure::Distribution, Margin::absolute(0.05)),
        limit(Measure::Rate, 0.05),
        limit(Measure::Quantile { level: 0.9 }, 5.0),
        limit(Measure::Mean { min: -1.0, max: 9.0 }, 2.3),
        limit(Measure::CappedMean { cap: 8.0 }, 2.3),
        spec(Measure::Classes, Margin::absolute(0.02)),
        spec(Measure::Count, Margin::relative(0.1)),
        limit(Measure::Count, 0.2),
        spec(Measure::Counts { most: 8.0 }, Margin::relative(0.1)),
        limit(Measure::Counts { most: 8.0 }, 2.3),
        limit(Measure::Disagreement, 0.2),
        spec(Measure::PairedDifference { width: 9.0 }, Margin::absolute(0.1)),
    ]
}

/// The summary that a measure needs, of values in [0, 9].
fn summary(measure: Measure, values: &[f64]) -> Summary {
    let hash = |index: usize| hash64(b"test", &index.to_le_bytes());
    match measure.summary() {
        SummaryKind::Rate => {
            let events = values.iter().filter(|&&value| value > 6.0).count() as u64;
            Summary::Rate(Rate::new(values.len() as u64, events).unwrap())
        }
        SummaryKind::Lin => {
            let mut hist = LinHist::new();
            for (index, value) in values.iter().enumerate() {
                hist.insert((value + 1.0) / 10.0, hash(index)).unwrap();
            }
            Summary::Lin(hist)
        }
        SummaryKind::Capped => {
            let mut hist = CappedHist::new(8.0).unwrap();
            for (index, value) in values.iter().enumerate() {
                hist.insert(*value, hash(index)).unwrap();
            }
            Summary::Capped(hist)
        }
        SummaryKind::Classes => {
            let mut counts = ClassCounts::default();
            for value in values {
                counts.insert(&format!("class {}", (0.5 * value) as u32)).unwrap();
            }
            Summary::Classes(counts)
        }
        SummaryKind::Events => {
            let events = values.iter().map(|value| (0.25 * value) as u64).sum();
            Summary::Events(Events::new(events, values.len() as u64).unwrap())
        }
        SummaryKind::Pairs => {
            // Compared with control's average answer.
            let mut pairs = Pairs::new();
            for (index, value) in values.iter().enumerate() {
                let difference = (value - 2.05) / 9.0;
                pairs.insert(Pair::Number { differs: *value > 4.0, difference, hash: hash(index) }).unwrap();
            }
            Summary::Pairs(pairs)
        }
        _ => Summary::Log(log_hist(values, 1.0)),
    }
}

fn log_hist(values: &[f64], unit: f64) -> LogHist {
    let mut hist = LogHist::new();
    for value in values {
        hist.insert(value * unit).unwrap();
    }
    hist
}

/// Values in [0, 9], none of them on a bin edge, from a seed.
fn values(seed: u64, n: usize, shift: f64) -> Vec<f64> {
    let unit =
        |i: usize| (hash64(b"values", &[seed.to_le_bytes(), i.to_le_bytes()].concat()) >> 11) as f64 / 2f64.powi(53);
    (0..n).map(|i| 8.0 * unit(i) * unit(i + n) + shift).collect()
}

fn bits(hypothesis: &Hypothesis) -> [u64; 3] {
    [hypothesis.ln_e_fail(), hypothesis.ln_e_pass(), hypothesis.max_ln_e_fail()].map(f64::to_bits)
}

fn run(spec: HypothesisSpec, windows: u64, shift: f64) -> Hypothesis {
    let mut hypothesis = Hypothesis::new(spec).unwrap();
    hypothesis.observe_warmup(&summary(spec.measure, &values(99, 2000, 0.0))).unwrap();
    for window in 0..windows {
        let canary = summary(spec.measure, &values(2 * window, 200, shift));
        let control = summary(spec.measure, &values(2 * window + 1, 1000, 0.0));
        let stratum = Stratum { canary: &canary, control: &control };
        hypothesis.observe(i64::try_from(window).unwrap(), &[stratum]).unwrap();
    }
    hypothesis
}

#[test]
fn every_measure_detects_harm_and_passes_healthy_canaries() {
    for spec in specs() {
        let (healthy, harmful) = (run(spec, 30, 0.0), run(spec, 30, 0.9));
        assert!(harmful.ln_e_fail() > 7.0, "{spec:?}: {}", harmful.ln_e_fail());
        assert!(harmful.ln_e_pass() < 0.0, "{spec:?}: {}", harmful.ln_e_pass());
        assert!(healthy.ln_e_fail() < 2.0, "{spec:?}: {}", healthy.ln_e_fail());
        let effect = harmful.effect();
        assert_eq!((effect.canary.n, effect.control.n), (6_000, 30_000), "{spec:?}");
        if spec.measure != Measure::Distribution {
            let (low, high, value) = (effect.low.unwrap(), effect.high.unwrap(), effect.difference.unwrap());
            assert!(low < value && value < high && high - low < 1.5, "{spec:?}: {effect:?}");
        }
        if let Measure::Mean { .. } | Measure::Quantile { .. } = spec.measure
            && let Against::Control(_) = spec.against
        {
            let effect = healthy.effect();
            assert!(effect.low.unwrap() < 0.0 && effect.high.unwrap() > 0.0, "{spec:?}: {effect:?}");
        }
    }
}

#[test]
fn there_is_an_interval_from_the_first_answers_on() {
    for spec in specs() {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        hypothesis.observe_warmup(&summary(spec.measure, &values(99, 2000, 0.0))).unwrap();
        let (canary, control) = (values(1, 20, 0.0), values(2, 60, 0.0));
        let (canary, control) = (summary(spec.measure, &canary), summary(spec.measure, &control));
        hypothesis.observe(0, &[Stratum { canary: &canary, control: &control }]).unwrap();
        let before = hypothesis.effect();
        let mut effect = before;
        hypothesis.bound_early(&mut effect);
        if before.low.is_some() || before.high.is_some() {
            assert_eq!(effect, before, "{spec:?}: an existing interval does not change");
        }
        // So few answers do not bound a high quantile, and event counts have no known upper end.
        if !matches!(spec.measure, Measure::Quantile { .. } | Measure::Counts { .. }) {
            let (low, high) = effect.low.zip(effect.high).unwrap_or_else(|| panic!("{spec:?}: {effect:?}"));
            assert!(low < high && effect.difference.is_none_or(|value| low <= value && value <= high), "{effect:?}");
        }
    }
}

#[test]
fn a_rate_without_events_has_an_interval_and_a_pass_bounds_it() {
    for against in [Against::Control(Margin::absolute(0.01)), Against::limit(0.01)] {
        let spec = HypothesisSpec { against, ..spec(Measure::Rate, both()) };
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        let none = |n| Summary::Rate(Rate::new(n, 0).unwrap());
        hypothesis.observe_warmup(&none(2000)).unwrap();
        for window in 0..5 {
            hypothesis.observe(window, &[Stratum { canary: &none(100), control: &none(1000) }]).unwrap();
        }
        let mut effect = hypothesis.effect();
        hypothesis.bound_early(&mut effect);
        let from = if spec.against == Against::limit(0.01) { 0.01 } else { 0.0 };
        let (low, high) = (effect.low.unwrap() + from, effect.high.unwrap() + from);
        assert!(low <= 0.0 && (0.003..0.04).contains(&high), "{effect:?}");
        hypothesis.bound_by_pass(&mut effect);
        assert!(effect.high.unwrap() + from <= 0.01, "{effect:?}");
    }
}

#[test]
fn a_failure_bounds_the_effect_on_the_bad_side() {
    for spec in specs() {
        let harmful = run(spec, 3, 0.9);
        let (mut effect, before) = (harmful.effect(), harmful.effect());
        harmful.bound_by_fail(&mut effect);
        let worse = harmful.beyond(&before).is_some_and(|by| by > 0.0);
        let margin = before.margin.unwrap_or(0.0);
        // Classes differ in either direction.
        let bounded = effect.low.is_some_and(|low| low >= margin) || effect.high.is_some_and(|high| high <= -margin);
        assert!(if worse { bounded } else { effect == before }, "{spec:?}: {effect:?}");
    }
}

#[test]
fn a_wide_margin_passes_and_a_step_forgets_it() {
    for measure in [Measure::Rate, Measure::Mean { min: -1.0, max: 9.0 }, Measure::Quantile { level: 0.9 }] {
        let mut hypothesis = run(spec(measure, Margin::relative(0.5)), 30, 0.0);
        assert!(hypothesis.ln_e_pass() > 3.0, "{measure:?}: {}", hypothesis.ln_e_pass());
        let fail = hypothesis.ln_e_fail();
        hypothesis.reset_pass();
        assert_eq!((hypothesis.ln_e_pass().to_bits(), hypothesis.ln_e_fail().to_bits()), (0, fail.to_bits()));
    }
}

#[test]
fn windows_count_once_and_in_order() {
    // Law P6.
    for spec in specs() {
        let mut hypothesis = run(spec, 3, 0.5);
        let before = hypothesis.clone();
        let data = summary(spec.measure, &values(1, 100, 0.0));
        let stratum = Stratum { canary: &data, control: &data };
        for end in [2, 1, -5] {
            assert_eq!(hypothesis.observe(end, &[stratum]), Err(ObserveError::Replayed { end, last: 2 }));
        }
        assert_eq!(hypothesis, before);
    }
}

#[test]
fn evidence_survives_persistence_bit_for_bit() {
    for spec in specs() {
        let mut original = run(spec, 7, 0.3);
        let mut restored: Hypothesis = serde_json::from_str(&serde_json::to_string(&original).unwrap()).unwrap();
        assert_eq!(restored, original);
        let bytes = postcard::to_allocvec(&original).unwrap();
        assert_eq!(postcard::from_bytes::<Hypothesis>(&bytes).unwrap(), original);
        let (canary, control) =
            (summary(spec.measure, &values(77, 150, 0.4)), summary(spec.measure, &values(78, 900, 0.0)));
        let stratum = Stratum { canary: &canary, control: &control };
        original.observe(100, &[stratum]).unwrap();
        restored.observe(100, &[stratum]).unwrap();
        assert_eq!(bits(&restored), bits(&original));
        assert_eq!(restored.effect(), original.effect());
    }
}

#[test]
fn nothing_to_judge_is_no_evidence() {
    for spec in specs() {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        let (empty, some) = (summary(spec.measure, &[]), summary(spec.measure, &values(5, 500, 1.0)));
        let one_arm = matches!(spec.against, Against::Limit { .. }) || spec.measure.summary() == SummaryKind::Pairs;
        hypothesis.observe(0, &[]).unwrap();
        hypothesis.observe(1, &[Stratum { canary: &empty, control: &empty }]).unwrap();
        hypothesis.observe(2, &[Stratum { canary: &empty, control: &some }]).unwrap();
        if !one_arm {
            hypothesis.observe(3, &[Stratum { canary: &some, control: &empty }]).unwrap();
        }
        assert_eq!((bits(&hypothesis), hypothesis.windows()), ([0; 3], 0), "{spec:?}");
        assert_eq!(hypothesis.effect().canary.n, 0);
        // Nothing is known about control yet, so the first window adds no evidence.
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        hypothesis.observe(1, &[Stratum { canary: &some, control: &some }]).unwrap();
        let bets_at_once = one_arm || spec.measure == Measure::Count;
        assert_eq!(bits(&hypothesis) == [0; 3], !bets_at_once, "{spec:?}");
        assert!(hypothesis.is_ready());
    }
}

#[test]
fn the_wrong_summary_is_refused() {
    let mut hypothesis = run(spec(Measure::Rate, both()), 2, 0.0);
    let before = hypothesis.clone();
    let classes = Summary::Classes(ClassCounts::default());
    let rate = Summary::Rate(Rate::new(5, 1).unwrap());
    let error = hypothesis.observe(9, &[Stratum { canary: &rate, control: &classes }]).unwrap_err();
    assert_eq!(error.to_string(), "the hypothesis needs a rate summary, not a class counts summary");
    assert_eq!(hypothesis.observe_warmup(&classes), Err(error));
    assert_eq!(hypothesis, before);
    let mut capped = Hypothesis::new(spec(Measure::CappedMean { cap: 8.0 }, both())).unwrap();
    let other = Summary::Capped(CappedHist::new(16.0).unwrap());
    assert_eq!(capped.observe_warmup(&other), Err(ObserveError::Cap));
}

#[test]
fn impossible_specs_are_named() {
    let rate = spec(Measure::Rate, both());
    let refuse = |spec: HypothesisSpec| Hypothesis::new(spec).unwrap_err();
    assert_eq!(refuse(HypothesisSpec { against: Against::limit(1.5), ..rate }), SpecError::Limit(1.5));
    assert_eq!(refuse(HypothesisSpec { interval_alpha: 0.0, ..rate }), SpecError::Alpha(0.0));
    assert_eq!(refuse(spec(Measure::Quantile { level: 1.0 }, both())), SpecError::Level(1.0));
    assert_eq!(refuse(spec(Measure::Mean { min: 1.0, max: 1.0 }, both())), SpecError::Range(1.0, 1.0));
    assert_eq!(refuse(spec(Measure::CappedMean { cap: -1.0 }, both())), SpecError::Range(0.0, -1.0));
    assert_eq!(refuse(spec(Measure::Rate, Margin::absolute(-0.1))), SpecError::Margin(-0.1));
    let beyond = refuse(spec(Measure::CappedMean { cap: 5e-324 }, Margin::absolute(8e171)));
    assert!(matches!(beyond, SpecError::BeyondRange { margin: 8e171, .. }));
    let huge = HypothesisSpec { against: Against::limit(5e307), ..spec(Measure::Count, both()) };
    assert_eq!(refuse(huge), SpecError::Limit(5e307));
    let fine = refuse(spec(Measure::Quantile { level: 0.99 }, Margin::relative(0.005)));
    assert_eq!(fine, SpecError::Resolution(0.005));
    let limits = |pass, fail| Against::Limit { pass, fail };
    assert_eq!(
        refuse(HypothesisSpec { against: limits(0.05, 0.04), ..rate }),
        SpecError::Limits { pass: 0.05, fail: 0.04 }
    );
    let higher = HypothesisSpec { direction: Direction::HigherIsBetter, against: limits(0.05, 0.04), ..rate };
    assert!(Hypothesis::new(higher).is_ok());
    let mean = spec(Measure::Mean { min: 0.0, max: 1.0 }, both());
    assert_eq!(refuse(HypothesisSpec { against: limits(0.5, 1.0), ..mean }), SpecError::Limit(1.0));
    let mix = spec(Measure::Classes, Margin::absolute(0.02));
    assert_eq!(refuse(HypothesisSpec { against: limits(0.5, 0.5), ..mix }), SpecError::LimitOfMany);
    assert_eq!(refuse(spec(Measure::Classes, both())), SpecError::Margin(0.1));
    assert!(refuse(spec(Measure::Mean { min: f64::NAN, max: 1.0 }, both())).to_string().contains("range"));
}

#[test]
fn strata_of_a_window_multiply() {
    // Against a limit an e-value depends only on the sums: two generations give the same as their sum.
    let against = Against::limit(0.05);
    let new = || Hypothesis::new(HypothesisSpec { against, ..spec(Measure::Rate, both()) }).unwrap();
    let (mut strata, mut whole) = (new(), new());
    let rate = |n, k| Summary::Rate(Rate::new(n, k).unwrap());
    let (one, two, sum) = (rate(300, 20), rate(100, 11), rate(400, 31));
    for hypothesis in [&mut strata, &mut whole] {
        hypothesis.observe_warmup(&rate(1000, 30)).unwrap();
    }
    let stratum = |canary| Stratum { canary, control: &sum };
    strata.observe(1, &[stratum(&one), stratum(&two)]).unwrap();
    whole.observe(1, &[stratum(&sum)]).unwrap();
    assert!((strata.ln_e_fail() - whole.ln_e_fail()).abs() < 1e-12);
    assert!((strata.ln_e_pass() - whole.ln_e_pass()).abs() < 1e-12);
    assert_eq!((strata.windows(), strata.effect().canary.n), (1, 400));
}

#[test]
fn huge_counts_stay_finite() {
    for spec in [spec(Measure::Rate, both()), spec(Measure::Rate, Margin::default())] {
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        let (low, high) = (Rate::new(MAX_COUNT, 0).unwrap(), Rate::new(MAX_COUNT, MAX_COUNT).unwrap());
        hypothesis.observe_warmup(&Summary::Rate(low)).unwrap();
        for (end, (canary, control)) in (0..).zip([(high, low), (low, high), (high, high), (low, low)]) {
            let (canary, control) = (Summary::Rate(canary), Summary::Rate(control));
            hypothesis.observe(end, &[Stratum { canary: &canary, control: &control }]).unwrap();
            assert!(hypothesis.ln_e_fail().is_finite() && hypothesis.ln_e_pass().is_finite());
            serde_json::to_string(&hypothesis.effect()).unwrap();
        }
        let json = serde_json::to_string(&hypothesis).unwrap();
        assert_eq!(serde_json::from_str::<Hypothesis>(&json).unwrap(), hypothesis);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn merge_order_never_changes_a_bit(which in 0..14_usize, seed: u64, cut in 0..200_usize, swap: bool) {
        // Law P2.
        let spec = specs()[which];
        let (c, s) = (values(seed, 200, 0.3), values(seed ^ 1, 900, 0.0));
        // Dithering hashes the position, so the summaries of halves are made from the whole to keep the positions.
        let merged = |all: &[f64]| {
            let (mut one, mut two) = (Summary::decode(&summary(spec.measure, &[]).encode()).unwrap(), summary(spec.measure, &[]));
            let whole = summary(spec.measure, all);
            let parts = [summary(spec.measure, &all[..cut]), summary(spec.measure, &all[cut..])];
            let order = if swap { [1, 0] } else { [0, 1] };
            one.merge(&parts[order[0]]).unwrap();
            one.merge(&parts[order[1]]).unwrap();
            two.merge(&parts[0]).unwrap();
            two.merge(&parts[1]).unwrap();
            assert_eq!(one, two);
            (one, whole)
        };
        let mut hypotheses = [Hypothesis::new(spec).unwrap(), Hypothesis::new(spec).unwrap()];
        let (canary, control) = (merged(&c), merged(&s));
        let dithered = matches!(spec.measure.summary(), SummaryKind::Lin | SummaryKind::Capped | SummaryKind::Pairs);
        let second = if dithered { (&canary.0, &control.0) } else { (&canary.1, &control.1) };
        for (hypothesis, (canary, control)) in hypotheses.iter_mut().zip([(&canary.0, &control.0), second]) {
            hypothesis.observe_warmup(control).unwrap();
            hypothesis.observe(0, &[Stratum { canary, control }]).unwrap();
        }
        prop_assert_eq!(&hypotheses[0], &hypotheses[1]);
        prop_assert_eq!(bits(&hypotheses[0]), bits(&hypotheses[1]));
    }

    #[test]
    fn units_do_not_matter(which in 0..2_usize, seed: u64, shift in -1000..1000_i32) {
        // Law P3: values scaled by GAMMA^shift move by whole bins.
        let measures = [spec(Measure::Quantile { level: 0.9 }, Margin::relative(0.2)), spec(Measure::Distribution, Margin::absolute(0.05))];
        let spec = measures[which];
        // Mid-bin values, so that rounding cannot move them over an edge.
        let middle = |value: &f64| GAMMA.powf((value.max(0.01).ln() / GAMMA.ln()).ceil() - 0.5);
        let ln_e = |unit: f64| {
            let hist = |seed, n, shift| {
                let values: Vec<f64> = values(seed, n, shift).iter().map(middle).collect();
                Summary::Log(log_hist(&values, unit))
            };
            let mut hypothesis = Hypothesis::new(spec).unwrap();
            hypothesis.observe_warmup(&hist(seed, 1000, 0.0)).unwrap();
            let (canary, control) = (hist(seed ^ 1, 200, 0.5), hist(seed ^ 2, 1000, 0.0));
            hypothesis.observe(0, &[Stratum { canary: &canary, control: &control }]).unwrap();
            bits(&hypothesis)
        };
        prop_assert_eq!(ln_e(GAMMA.powi(shift)), ln_e(1.0));
    }

    #[test]
    fn complement_and_direction_cancel(d in 0.0..0.1_f64, windows in prop::collection::vec((1..500_u64, 0.0..1.0_f64, 1..5000_u64, 0.0..1.0_f64), 1..6)) {
        // Law P4: for absolute margins, "errors are fewer" and "successes are more" are the same statement.
        let new = |direction| Hypothesis::new(HypothesisSpec { direction, ..spec(Measure::Rate, Margin::absolute(d)) }).unwrap();
        let (mut errors, mut successes) = (new(Direction::LowerIsBetter), new(Direction::HigherIsBetter));
        let rate = |n, k| Summary::Rate(Rate::new(n, k).unwrap());
        errors.observe_warmup(&rate(1000, 100)).unwrap();
        successes.observe_warmup(&rate(1000, 900)).unwrap();
        for (end, (n_c, p_c, n_s, p_s)) in (0..).zip(windows) {
            let (k_c, k_s) = ((n_c as f64 * p_c) as u64, (n_s as f64 * p_s) as u64);
            errors.observe(end, &[Stratum { canary: &rate(n_c, k_c), control: &rate(n_s, k_s) }]).unwrap();
            successes.observe(end, &[Stratum { canary: &rate(n_c, n_c - k_c), control: &rate(n_s, n_s - k_s) }]).unwrap();
        }
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-8 * (1.0 + a.abs());
        prop_assert!(close(errors.ln_e_fail(), successes.ln_e_fail()), "{} {}", errors.ln_e_fail(), successes.ln_e_fail());
        prop_assert!(close(errors.ln_e_pass(), successes.ln_e_pass()), "{} {}", errors.ln_e_pass(), successes.ln_e_pass());
    }

    #[test]
    fn what_a_pass_shows_inverts_no_interval(which in 0..16_usize, low in -2.0..2.0_f64, width in 0.0..2.0_f64, margin in -0.5..1.0_f64, sides in 0..4_u8, higher: bool) {
        let direction = if higher { Direction::HigherIsBetter } else { Direction::LowerIsBetter };
        let Ok(hypothesis) = Hypothesis::new(HypothesisSpec { direction, ..specs()[which] }) else { return Ok(()) };
        let mut effect = Effect { margin: Some(margin), ..Effect::default() };
        (effect.low, effect.high) = ((sides & 1 == 0).then_some(low), (sides & 2 == 0).then_some(low + width));
        let before = effect;
        hypothesis.bound_by_pass(&mut effect);
        prop_assert!(before.low.is_none() || effect.low.is_some());
        prop_assert!(before.high.is_none() || effect.high.is_some());
        if let Some((low, high)) = effect.low.zip(effect.high) {
            prop_assert!(low <= high, "{low} {high}");
        }
        // Nothing is beyond the border, and applying it again has no effect.
        let mut again = effect;
        hypothesis.bound_by_pass(&mut again);
        prop_assert_eq!(again, effect);
        let against = hypothesis.spec().against;
        let border = if let Against::Limit { pass, fail } = against { Some(pass - fail) } else { Some(margin) };
        let good_side = |end: f64| border.is_none_or(|border| if higher { end >= if matches!(against, Against::Limit { .. }) { border } else { -border } } else { end <= border });
        if specs()[which].measure != Measure::Classes {
            prop_assert!(effect.low.into_iter().chain(effect.high).all(good_side), "{before:?} {effect:?}");
        }
    }

    #[test]
    fn any_counts_are_handled(counts in prop::collection::vec((0..50_u64, 0..50_u64, 0..400_u64, 0..400_u64), 0..5)) {
        let rate = |n: u64, k: u64| Summary::Rate(Rate::new(n.max(k), n.min(k)).unwrap());
        let data: Vec<_> = counts.into_iter().map(|(a, b, c, d)| (rate(a, b), rate(c, d))).collect();
        let strata: Vec<_> = data.iter().map(|(canary, control)| Stratum { canary, control }).collect();
        let mut hypothesis = Hypothesis::new(spec(Measure::Rate, both())).unwrap();
        hypothesis.observe_warmup(&rate(1000, 30)).unwrap();
        hypothesis.observe(0, &strata).unwrap();
        prop_assert!(hypothesis.ln_e_fail().is_finite() && hypothesis.ln_e_pass().is_finite());
        prop_assert_eq!(hypothesis.last_window(), Some(0));
    }
}
