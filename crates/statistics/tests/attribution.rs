//! Tests of what a mix of classes and a distribution report about *where* the canary differs, of tempering, and of "better".

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serin_sketches::{CappedHist, ClassCounts, LogHist, Rate, Summary};
use serin_statistics::{About, Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum};

fn spec(measure: Measure, margin: Margin) -> HypothesisSpec {
    let direction = Direction::LowerIsBetter;
    HypothesisSpec { measure, direction, against: Against::Control(margin), horizon: 60, interval_alpha: 0.05 }
}

fn mix() -> Hypothesis {
    Hypothesis::new(spec(Measure::Classes, Margin::absolute(0.02))).unwrap()
}

fn classes(counts: &[(&str, u64)]) -> Summary {
    let mut classes = ClassCounts::default();
    for &(class, count) in counts {
        for _ in 0..count {
            classes.insert(class).unwrap();
        }
    }
    Summary::Classes(classes)
}

fn observe(hypothesis: &mut Hypothesis, windows: std::ops::Range<i64>, canary: &Summary, control: &Summary) {
    for window in windows {
        hypothesis.observe(window, &[Stratum { canary, control }]).unwrap();
    }
}

const CONTROL: [(&str, u64); 4] = [("ham", 700), ("spam", 295), ("rare", 3), ("odd", 2)];

#[test]
fn an_equal_mix_passes_and_no_class_is_named() {
    let (mut hypothesis, control) = (mix(), classes(&CONTROL));
    hypothesis.observe_warmup(&control).unwrap();
    observe(&mut hypothesis, 0..60, &classes(&[("ham", 140), ("spam", 59), ("odd", 1)]), &control);
    assert!(hypothesis.ln_e_fail() < 0.0 && hypothesis.culprit().is_none());
    assert!(hypothesis.ln_e_pass() > 3.0, "{}", hypothesis.ln_e_pass());
    // Two named classes and the rest, in both directions. The rest (0.5 %) cannot fall by 2 points.
    assert_eq!(hypothesis.parts().len(), 6);
}

#[test]
fn the_class_that_moved_is_named() {
    let (mut hypothesis, control) = (mix(), classes(&CONTROL));
    hypothesis.observe_warmup(&control).unwrap();
    observe(&mut hypothesis, 0..20, &classes(&[("ham", 100), ("spam", 100)]), &control);
    assert!(hypothesis.ln_e_fail() > 10.0);
    assert!(hypothesis.ln_e_pass() < 0.0);
    let effect = hypothesis.effect();
    let difference = effect.difference.unwrap();
    match hypothesis.culprit().unwrap() {
        "spam" => assert!(difference > 0.19 && effect.low.unwrap() > 0.02),
        "ham" => assert!(difference < -0.19 && effect.high.unwrap() < -0.02),
        other => panic!("{other}"),
    }
    assert!(effect.low.unwrap() < difference && difference < effect.high.unwrap());
}

#[test]
fn a_class_that_only_the_canary_has_is_tested_alone() {
    // One answer in a hundred, which is well within the margin of 2 % for a class that control knows.
    let control = classes(&CONTROL);
    let (old, new) =
        (classes(&[("ham", 140), ("spam", 59), ("odd", 1)]), classes(&[("ham", 139), ("spam", 59), ("garbled", 2)]));
    let mut hypothesis = mix();
    hypothesis.observe_warmup(&control).unwrap();
    observe(&mut hypothesis, 0..3, &old, &control);
    let before = hypothesis.ln_e_fail();
    observe(&mut hypothesis, 3..4, &new, &control);
    assert!(hypothesis.ln_e_fail() <= before + 1e-9, "the window of the first appearance adds no evidence");
    observe(&mut hypothesis, 4..14, &new, &control);
    assert_eq!(hypothesis.culprit(), Some("garbled"));
    assert!(hypothesis.ln_e_fail() > 7.0, "{}", hypothesis.ln_e_fail());
    let worst = hypothesis.worst_part().unwrap();
    assert!(matches!(worst.about, About::NewClass("garbled")) && (worst.weight - 0.25).abs() < 1e-12);
    assert_eq!(hypothesis.effect().canary.value, Some(22.0 / 2800.0));
    // If control has the same class too, it is not a newcomer and is pooled.
    let mut hypothesis = mix();
    let control = classes(&[("ham", 700), ("spam", 290), ("garbled", 10)]);
    hypothesis.observe_warmup(&classes(&CONTROL)).unwrap();
    observe(&mut hypothesis, 0..14, &new, &control);
    assert!(hypothesis.ln_e_fail() < 0.0 && hypothesis.culprit().is_none());
}

#[test]
fn of_several_new_classes_the_one_that_rose_is_named() {
    // "early" came once. "flood" first appears in the window that decides and has no evidence of its own yet.
    let control = classes(&CONTROL);
    let once = classes(&[("ham", 140), ("spam", 59), ("early", 1)]);
    let flood = classes(&[("ham", 100), ("spam", 39), ("flood", 60), ("early", 1)]);
    let mut hypothesis = mix();
    hypothesis.observe_warmup(&control).unwrap();
    observe(&mut hypothesis, 0..1, &once, &control);
    observe(&mut hypothesis, 1..2, &flood, &control);
    assert!(hypothesis.ln_e_fail() > 7.0, "{}", hypothesis.ln_e_fail());
    let worst = hypothesis.worst_part().unwrap();
    assert!(worst.about == About::NewClass("flood"), "{worst:?}");
    assert!(hypothesis.effect().difference.unwrap() > 0.1);
}

#[test]
fn a_new_class_is_not_named_for_changes_of_other_classes() {
    let control = classes(&CONTROL);
    let run = |control: &Summary, canary: &Summary| {
        let mut hypothesis = mix();
        hypothesis.observe_warmup(control).unwrap();
        observe(&mut hypothesis, 0..6, canary, control);
        hypothesis
    };
    // "odd", which control knows, floods the pool of rare classes. A new class also appears once.
    let known = run(&control, &classes(&[("ham", 1000), ("spam", 390), ("odd", 600), ("new", 1)]));
    assert_eq!(known.worst_part().map(|part| (part.about, part.sign)), Some((About::OtherClasses, 1.0)));
    assert_eq!(known.culprit(), None);
    // The rare classes of control vanish, which the new class did not cause.
    let many: Vec<String> = (0..100).map(|i| format!("rare {i}")).collect();
    let rare: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 4)).chain([("ham", 600)]).collect();
    let fewer = run(&classes(&rare), &classes(&[("ham", 999), ("new", 1)]));
    assert!(fewer.ln_e_fail() > 7.0 && fewer.culprit() != Some("new"), "{:?}", fewer.worst_part());
}

#[test]
fn many_new_classes_stay_bounded() {
    let mut hypothesis = mix();
    hypothesis.observe_warmup(&classes(&CONTROL)).unwrap();
    for window in 0..30 {
        let names: Vec<String> = (0..50).map(|i| format!("{window}-{i}")).collect();
        let counts: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        observe(&mut hypothesis, window..window + 1, &classes(&counts), &classes(&CONTROL));
    }
    assert!(hypothesis.parts().len() <= 2 * 33 + 16);
    assert!(serde_json::to_string(&hypothesis).unwrap().len() < 60_000);
    // The pool of unknown classes contains all of the canary's answers.
    assert!(hypothesis.ln_e_fail() > 7.0);
}

#[test]
fn with_a_million_classes_in_control_no_class_is_new() {
    let mut many = ClassCounts::default();
    for class in 0..2_000 {
        many.insert(&format!("class {class}")).unwrap();
    }
    let mut hypothesis = mix();
    hypothesis.observe_warmup(&Summary::Classes(many.clone())).unwrap();
    observe(&mut hypothesis, 0..20, &classes(&[("unheard", 1), ("class 7", 199)]), &Summary::Classes(many));
    assert!(hypothesis.parts().iter().all(|part| !matches!(part.about, About::NewClass(_))));
}

fn hist(scale: f64, tail: f64) -> Summary {
    let mut hist = LogHist::new();
    for i in 1..=1000 {
        let value = scale * f64::from(i);
        hist.insert(if i > 900 { value * tail } else { value }).unwrap();
    }
    Summary::Log(hist)
}

#[test]
fn a_distribution_passes_and_names_the_level_that_moved() {
    let new = || {
        let mut hypothesis = Hypothesis::new(spec(Measure::Distribution, Margin::absolute(0.1))).unwrap();
        hypothesis.observe_warmup(&hist(1.0, 1.0)).unwrap();
        hypothesis
    };
    let (mut same, mut moved) = (new(), new());
    observe(&mut same, 0..10, &hist(1.0, 1.0), &hist(1.0, 1.0));
    assert!(same.ln_e_pass() > 3.0, "{}", same.ln_e_pass());
    assert!(same.worst_part().is_none());
    let effect = same.effect();
    assert!(effect.low == Some(0.0) && effect.high.unwrap() < 0.2, "{effect:?}");
    observe(&mut moved, 0..10, &hist(1.5, 1.0), &hist(1.0, 1.0));
    let worst = moved.worst_part().unwrap();
    // The canary's distribution function is too low around the upper levels: 1 - 1/1.5 of the way at 1000.
    let About::Level { level, value } = worst.about else { panic!("{worst:?}") };
    assert!(worst.sign < 0.0 && level > 0.5 && value > 400.0, "{worst:?}");
    assert!(moved.ln_e_fail() > 20.0 && moved.ln_e_pass() < 0.0);
}

#[test]
fn tempering_divides_evidence_and_widens_intervals() {
    let rate = |n, k| Summary::Rate(Rate::new(n, k).unwrap());
    let run = |phi: f64| {
        let mut hypothesis = Hypothesis::new(spec(Measure::Rate, Margin::absolute(0.002))).unwrap();
        hypothesis.observe_warmup(&rate(10_000, 100)).unwrap();
        hypothesis.temper(phi);
        observe(&mut hypothesis, 0..12, &rate(1000, 20), &rate(10_000, 100));
        hypothesis
    };
    let (plain, tempered) = (run(1.0), run(4.0));
    assert!(plain.ln_e_fail() > 20.0 && tempered.ln_e_fail() > 3.0);
    assert!(tempered.ln_e_fail() < 0.4 * plain.ln_e_fail());
    let width = |hypothesis: &Hypothesis| hypothesis.effect().high.unwrap() - hypothesis.effect().low.unwrap();
    assert!((width(&tempered) / width(&plain) - 2.0).abs() < 0.1, "{} {}", width(&tempered), width(&plain));
    for invalid in [f64::NAN, 0.0, -3.0, f64::INFINITY, 0.5] {
        assert_eq!(run(invalid).ln_e_fail().to_bits(), plain.ln_e_fail().to_bits());
    }
}

#[test]
fn better_is_reported_on_the_good_side_only() {
    use Direction::{HigherIsBetter, LowerIsBetter};
    let rate = |n, k| Summary::Rate(Rate::new(n, k).unwrap());
    let run = |direction, k_c| {
        let spec = HypothesisSpec { direction, ..spec(Measure::Rate, Margin::absolute(0.01)) };
        let mut hypothesis = Hypothesis::new(spec).unwrap();
        hypothesis.observe_warmup(&rate(10_000, 1_000)).unwrap();
        observe(&mut hypothesis, 0..10, &rate(1000, k_c), &rate(10_000, 1_000));
        hypothesis.effect().better
    };
    assert!(run(LowerIsBetter, 60) && !run(LowerIsBetter, 100) && !run(LowerIsBetter, 140));
    assert!(!run(HigherIsBetter, 60) && !run(HigherIsBetter, 100) && run(HigherIsBetter, 140));
    let quantile = |scale| {
        let measure = Measure::Quantile { level: 0.9 };
        let mut hypothesis = Hypothesis::new(spec(measure, Margin::relative(0.2))).unwrap();
        hypothesis.observe_warmup(&hist(1.0, 1.0)).unwrap();
        observe(&mut hypothesis, 0..10, &hist(scale, 1.0), &hist(1.0, 1.0));
        hypothesis.effect().better
    };
    assert!(quantile(0.8) && !quantile(1.0) && !quantile(1.3));
}

#[test]
fn the_share_of_values_at_the_cap_is_reported() {
    let summary = || {
        let mut hist = CappedHist::new(100.0).unwrap();
        for i in 0..1000_u64 {
            hist.insert(if i < 30 { 500.0 } else { 20.0 }, 0).unwrap();
        }
        Summary::Capped(hist)
    };
    let mut hypothesis = Hypothesis::new(spec(Measure::CappedMean { cap: 100.0 }, Margin::relative(0.1))).unwrap();
    hypothesis.observe_warmup(&summary()).unwrap();
    observe(&mut hypothesis, 0..3, &summary(), &summary());
    assert_eq!(hypothesis.effect().at_cap, Some(0.03));
}
