//! Laws of the group-sequential test for PASS. For how often it passes see `examples/gates`, part "PASS by planned looks".

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use serin_sketches::{LogHist, Rate, Summary};
use serin_statistics::{
    Against, Direction, HypothesisSpec, LooksError, LooksPlan, MOST_LOOKS, Margin, Measure, PlannedLooks, Stratum,
};

const PLAN: LooksPlan = LooksPlan { looks: 4, answers: 40_000, alpha: 0.05 };

fn spec(measure: Measure, margin: Margin) -> HypothesisSpec {
    HypothesisSpec {
        measure,
        direction: Direction::LowerIsBetter,
        against: Against::Control(margin),
        horizon: 60,
        interval_alpha: 0.05,
    }
}

fn rate() -> PlannedLooks {
    PlannedLooks::new(&spec(Measure::Rate, Margin::absolute(0.005)), PLAN).unwrap()
}

fn window(test: &mut PlannedLooks, canary: (u64, u64), control: (u64, u64)) {
    let rate = |(n, k)| Summary::Rate(Rate::new(n, k).unwrap());
    let (canary, control) = (rate(canary), rate(control));
    test.observe(&[Stratum { canary: &canary, control: &control }]);
}

#[test]
fn looks_come_at_the_planned_fractions_and_end() {
    let mut test = rate();
    let mut seen = Vec::new();
    for _ in 0..25 {
        // Exactly at the margin it never passes.
        window(&mut test, (2_000, 30), (20_000, 200));
        seen.push(test.taken());
    }
    assert_eq!(seen[..20], [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4]);
    assert_eq!(seen[20..], [4; 5]);
    assert!(test.is_over() && !test.passed());
    // Not even the best canary passes now, because the horizon is fixed.
    window(&mut test, (100_000, 0), (100_000, 1000));
    assert!(!test.passed());
}

#[test]
fn a_healthy_canary_passes_at_a_look_and_stays() {
    let mut test = rate();
    for _ in 0..4 {
        window(&mut test, (2_000, 10), (20_000, 200));
        assert!(!test.passed());
    }
    window(&mut test, (2_000, 10), (20_000, 200));
    assert!(test.passed() && test.is_over());
    window(&mut test, (2_000, 2_000), (20_000, 200));
    assert!(test.passed());
    assert_eq!(test.taken(), 1);
}

#[test]
fn a_large_window_makes_one_look_of_several() {
    let mut test = rate();
    window(&mut test, (23_000, 345), (230_000, 2_300));
    assert_eq!(test.taken(), 1);
    // 25,000 of 40,000 is too close to the last look; 31,000 is the third planned look.
    window(&mut test, (2_000, 30), (20_000, 200));
    assert_eq!(test.taken(), 1);
    window(&mut test, (6_000, 90), (60_000, 600));
    assert_eq!(test.taken(), 2);
    // At 38,000 the last look is still not due.
    window(&mut test, (7_000, 105), (70_000, 700));
    assert_eq!((test.taken(), test.is_over()), (2, false));
    window(&mut test, (3_000, 45), (30_000, 300));
    assert_eq!((test.taken(), test.is_over()), (3, true));
}

#[test]
fn too_few_answers_for_the_normal_approximation_make_no_look() {
    let plan = LooksPlan { looks: 4, answers: 4_000, alpha: 0.05 };
    let mut test = PlannedLooks::new(&spec(Measure::Rate, Margin::absolute(0.005)), plan).unwrap();
    // At 0.6 % an answer's squared skewness is 164: 4,101 answers are needed.
    for _ in 0..4 {
        window(&mut test, (1_000, 0), (10_000, 10));
    }
    assert_eq!((test.taken(), test.passed(), test.is_over()), (0, false, true));
}

#[test]
fn invalid_input_makes_no_look() {
    let mut test = rate();
    for (canary, control) in [((0, 0), (0, 0)), ((1, 0), (50_000, 0)), ((50_000, 0), (1, 1)), ((50_000, 0), (0, 0))] {
        window(&mut test, canary, control);
    }
    let hist = Summary::Log(LogHist::new());
    test.observe(&[Stratum { canary: &hist, control: &hist }]);
    assert_eq!((test.taken(), test.is_over()), (0, false));
    // The values do not vary at all, so there is no variance to use.
    let mean = spec(Measure::Mean { min: 0.0, max: 1.0 }, Margin::absolute(0.01));
    let mut test = PlannedLooks::new(&mean, PLAN).unwrap();
    let same = Summary::decode(&lin(0.5, 50_000).encode()).unwrap();
    test.observe(&[Stratum { canary: &same, control: &same }]);
    assert_eq!((test.taken(), test.passed()), (0, false));
}

fn lin(value: f64, n: u64) -> Summary {
    let mut hist = serin_sketches::LinHist::new();
    for unit in 0..n {
        hist.insert(value, unit).unwrap();
    }
    Summary::Lin(hist)
}

#[test]
fn what_cannot_be_planned_is_named() {
    let margin = Margin::absolute(0.01);
    let of = |spec: HypothesisSpec, plan| PlannedLooks::new(&spec, plan).unwrap_err();
    let rate = spec(Measure::Rate, margin);
    assert_eq!(of(rate, LooksPlan { looks: 0, ..PLAN }), LooksError::Looks(0));
    assert_eq!(of(rate, LooksPlan { looks: MOST_LOOKS + 1, ..PLAN }), LooksError::Looks(MOST_LOOKS + 1));
    assert_eq!(of(rate, LooksPlan { answers: 3, ..PLAN }), LooksError::Answers { answers: 3, looks: 4 });
    assert_eq!(of(rate, LooksPlan { alpha: 1.0, ..PLAN }), LooksError::Alpha(1.0));
    let both = Margin { absolute: Some(0.01), relative: Some(0.1) };
    for unsupported in [
        spec(Measure::Rate, both),
        spec(Measure::Quantile { level: 0.99 }, Margin::relative(0.2)),
        spec(Measure::Distribution, margin),
        spec(Measure::Count, Margin::relative(0.1)),
        spec(Measure::Counts { most: 1e6 }, Margin::relative(0.1)),
        HypothesisSpec { against: Against::limit(0.05), ..rate },
    ] {
        assert_eq!(of(unsupported, PLAN), LooksError::Unsupported);
    }
}
