//! Margins that extend beyond the end of a metric's range: no canary can be that bad, so an equal one passes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serin_sketches::hash::hash64;
use serin_sketches::{CappedHist, LinHist, LogHist, Rate, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, LooksPlan, Margin, Measure, PlannedLooks, Stratum,
};

fn spec(measure: Measure, direction: Direction, margin: Margin) -> HypothesisSpec {
    HypothesisSpec { measure, direction, against: Against::Control(margin), horizon: 60, interval_alpha: 0.05 }
}

fn unit(seed: u64, index: u64) -> f64 {
    let bytes = [seed.to_le_bytes(), index.to_le_bytes()].concat();
    ((hash64(b"ends", &bytes) >> 11) as f64 + 0.5) / 2f64.powi(53)
}

/// `n` answers around `value` on the scale of the measure: 0/1 for rates, otherwise up to twice the value (or its distance to 1).
fn draw(measure: Measure, seed: u64, n: u64, value: f64) -> Summary {
    let spread = |u: f64| if value <= 0.5 { 2.0 * value * u } else { 1.0 - 2.0 * (1.0 - value) * u };
    match measure {
        Measure::Rate => {
            let hits = (0..n).filter(|&index| unit(seed, index) < value).count() as u64;
            Summary::Rate(Rate::new(n, hits).unwrap())
        }
        Measure::Mean { .. } => {
            let mut hist = LinHist::new();
            (0..n)
                .for_each(|index| hist.insert(spread(unit(seed, index)), hash64(b"d", &index.to_le_bytes())).unwrap());
            Summary::Lin(hist)
        }
        Measure::CappedMean { cap } => {
            let mut hist = CappedHist::new(cap).unwrap();
            let insert = |index: u64| hist.insert(cap * spread(unit(seed, index)), hash64(b"d", &index.to_le_bytes()));
            (0..n).map(insert).for_each(Result::unwrap);
            Summary::Capped(hist)
        }
        _ => {
            let mut hist = LogHist::new();
            (0..n).for_each(|index| hist.insert(100.0 * spread(unit(seed, index))).unwrap());
            Summary::Log(hist)
        }
    }
}

/// Observes windows of 200 and 1,000 answers. Returns the window in which the canary passes, and whether it ever failed.
fn play(spec: HypothesisSpec, control: f64, canary: f64, windows: u64, ends: bool) -> (Option<u64>, bool) {
    let mut hypothesis = Hypothesis::new(spec).unwrap();
    if !ends {
        hypothesis.without_ends();
    }
    hypothesis.observe_warmup(&draw(spec.measure, 1, 2000, control)).unwrap();
    let (mut passed, mut failed) = (None, false);
    for window in 1..=windows {
        let canary = draw(spec.measure, 2 * window, 200, canary);
        let control = draw(spec.measure, 2 * window + 1, 1000, control);
        hypothesis.observe(window as i64, &[Stratum { canary: &canary, control: &control }]).unwrap();
        passed = passed.or((hypothesis.ln_e_pass() >= 3.0).then_some(window));
        failed |= hypothesis.ln_e_fail() >= 4.6;
    }
    (passed, failed)
}

use Direction::{HigherIsBetter, LowerIsBetter};

/// Measures with a range, control's value on its scale, and margins that extend beyond the range there.
fn wide() -> Vec<(Measure, Direction, f64, Margin)> {
    let (unit, scores, capped) = (
        Measure::Mean { min: 0.0, max: 1.0 },
        Measure::Mean { min: -5.0, max: 5.0 },
        Measure::CappedMean { cap: 40.0 },
    );
    let both = |absolute, relative| Margin { absolute: Some(absolute), relative: Some(relative) };
    let mut all = vec![
        (Measure::Rate, HigherIsBetter, 0.01, Margin::absolute(0.02)),
        (Measure::Rate, HigherIsBetter, 0.0, Margin::absolute(0.02)),
        (Measure::Rate, HigherIsBetter, 0.5, Margin::absolute(0.6)),
        (Measure::Rate, HigherIsBetter, 0.01, both(0.02, 0.5)),
        (Measure::Rate, LowerIsBetter, 0.97, Margin::absolute(0.05)),
        (Measure::Rate, LowerIsBetter, 1.0, Margin::absolute(0.05)),
        (Measure::Rate, LowerIsBetter, 0.9, Margin::relative(0.2)),
        (Measure::Rate, LowerIsBetter, 1.0, Margin::relative(0.2)),
        (Measure::Rate, LowerIsBetter, 0.5, Margin::relative(20.0)),
        (unit, HigherIsBetter, 0.01, Margin::absolute(0.02)),
        (unit, HigherIsBetter, 0.0, Margin::absolute(0.02)),
        (unit, HigherIsBetter, 0.4, Margin::absolute(0.9)),
        (unit, LowerIsBetter, 0.99, Margin::absolute(0.02)),
        (unit, LowerIsBetter, 1.0, Margin::absolute(0.02)),
        (unit, LowerIsBetter, 0.95, Margin::relative(0.1)),
        (unit, LowerIsBetter, 0.9, both(0.05, 0.2)),
        (scores, HigherIsBetter, 0.01, Margin::absolute(0.5)),
        (scores, LowerIsBetter, 0.98, Margin::absolute(0.5)),
        (capped, HigherIsBetter, 0.02, Margin::absolute(2.0)),
        (capped, LowerIsBetter, 0.98, Margin::absolute(2.0)),
        (capped, LowerIsBetter, 0.95, Margin::relative(0.1)),
    ];
    for level in [0.05, 0.5, 0.99] {
        let quantile = Measure::Quantile { level };
        all.push((quantile, HigherIsBetter, 0.2, Margin::absolute(50.0)));
        all.push((quantile, HigherIsBetter, 0.0, Margin::absolute(1.0)));
    }
    all
}

#[test]
fn an_equal_canary_passes_where_no_canary_can_fail() {
    for (measure, direction, control, margin) in wide() {
        let spec = spec(measure, direction, margin);
        let (passed, failed) = play(spec, control, control, 20, true);
        assert!(passed.is_some() && !failed, "{measure:?} {direction:?} {control} {margin:?}: {passed:?}");
        // The worst possible canary does not fail either.
        let worst = if direction == LowerIsBetter { 1.0 } else { 0.0 };
        assert!(!play(spec, control, worst, 20, true).1, "{measure:?} {direction:?} {control} {margin:?}");
    }
}

/// With an absolute and a relative margin, harm must exceed both. A canary between them passes, whichever of the two is larger.
#[test]
fn the_larger_part_of_a_margin_decides() {
    let (unit, both) = (Measure::Mean { min: 0.0, max: 1.0 }, |absolute, relative| Margin {
        absolute: Some(absolute),
        relative: Some(relative),
    });
    for (measure, direction, control, between, beyond, margin) in [
        (Measure::Rate, LowerIsBetter, 0.1, 0.13, 0.25, both(0.08, 0.1)),
        (Measure::Rate, LowerIsBetter, 0.1, 0.13, 0.25, both(0.01, 0.8)),
        (Measure::Rate, HigherIsBetter, 0.5, 0.45, 0.2, both(0.15, 0.02)),
        (Measure::Rate, HigherIsBetter, 0.5, 0.45, 0.2, both(0.01, 0.3)),
        (unit, LowerIsBetter, 0.3, 0.33, 0.45, both(0.09, 0.02)),
        (unit, LowerIsBetter, 0.3, 0.33, 0.45, both(0.01, 0.3)),
        (Measure::Quantile { level: 0.5 }, LowerIsBetter, 0.2, 0.23, 0.4, both(9.0, 0.05)),
        (Measure::Quantile { level: 0.5 }, LowerIsBetter, 0.2, 0.23, 0.4, both(1.0, 0.5)),
    ] {
        let case = format!("{measure:?} {direction:?} {margin:?}");
        let spec = spec(measure, direction, margin);
        let (passed, failed) = play(spec, control, between, 60, true);
        assert!(passed.is_some() && !failed, "{case}: within the larger part: {passed:?} {failed}");
        let (passed, failed) = play(spec, control, beyond, 60, true);
        assert!(passed.is_none() && failed, "{case}: beyond both: {passed:?} {failed}");
        // Each part alone says whether a canary between them is too bad.
        for part in [Margin::absolute(margin.absolute.unwrap()), Margin::relative(margin.relative.unwrap())] {
            let smaller = part.at(100.0 * control) < margin.at(100.0 * control);
            let scaled = if matches!(measure, Measure::Quantile { .. }) {
                smaller
            } else {
                part.at(control) < margin.at(control)
            };
            let (passed, _) = play(self::spec(measure, direction, part), control, between, 60, true);
            assert!(!scaled || passed.is_none(), "{case}: beyond the smaller part {part:?}");
        }
    }
}

#[test]
fn rules_without_ends_are_as_before() {
    let never = wide().into_iter().filter(|(.., margin)| margin.absolute.is_none() || margin.relative.is_none());
    for (measure, direction, control, margin) in never {
        let spec = spec(measure, direction, margin);
        assert_eq!(play(spec, control, control, 20, false), (None, false), "{measure:?} {direction:?} {control}");
    }
}

#[test]
fn a_margin_that_ends_within_the_range_is_still_enforced() {
    // Control is so close to the end that the canary at the end is at the margin, or slightly beyond it.
    for (measure, direction, control, canary, margin) in [
        (Measure::Rate, HigherIsBetter, 0.02, 0.0, Margin::absolute(0.02)),
        (Measure::Rate, HigherIsBetter, 0.04, 0.0, Margin::absolute(0.02)),
        (Measure::Rate, LowerIsBetter, 0.95, 1.0, Margin::absolute(0.05)),
        (Measure::Rate, LowerIsBetter, 0.8, 1.0, Margin::relative(0.2)),
        (Measure::Mean { min: 0.0, max: 1.0 }, HigherIsBetter, 0.03, 0.0, Margin::absolute(0.02)),
        (Measure::CappedMean { cap: 40.0 }, LowerIsBetter, 0.9, 1.0, Margin::absolute(2.0)),
        (Measure::Quantile { level: 0.5 }, HigherIsBetter, 0.2, 0.0, Margin::absolute(10.0)),
    ] {
        let (passed, _) = play(spec(measure, direction, margin), control, canary, 60, true);
        assert_eq!(passed, None, "{measure:?} {direction:?} {control} {margin:?}");
    }
}

#[test]
fn planned_looks_pass_there_too() {
    let plan = LooksPlan { looks: 5, answers: 10_000, alpha: 0.05 };
    let passes = |spec: HypothesisSpec, control: f64, canary: f64, ends: bool| {
        let mut looks = PlannedLooks::new(&spec, plan).unwrap();
        if !ends {
            looks.without_ends();
        }
        for window in 1..=50 {
            let canary = draw(spec.measure, 2 * window, 200, canary);
            let control = draw(spec.measure, 2 * window + 1, 1000, control);
            looks.observe(&[Stratum { canary: &canary, control: &control }]);
        }
        looks.passed()
    };
    let one_line = |measure: Measure, margin: Margin| {
        !matches!(measure, Measure::Quantile { .. }) && margin.absolute.is_some() != margin.relative.is_some()
    };
    for (measure, direction, control, margin) in wide().into_iter().filter(|case| one_line(case.0, case.3)) {
        let spec = spec(measure, direction, margin);
        assert!(passes(spec, control, control, true), "{measure:?} {direction:?} {control} {margin:?}");
    }
    let rate = spec(Measure::Rate, HigherIsBetter, Margin::absolute(0.05));
    assert!(!passes(rate, 0.03, 0.03, false));
    assert!(!passes(rate, 0.08, 0.0, true));
    assert!(!passes(rate, 0.05, 0.0, true));
}
