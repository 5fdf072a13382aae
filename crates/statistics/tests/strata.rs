//! Laws of windows that are stratified further than by generation. For the purpose see `examples/gates`, part "Stratified by segment".

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use serin_sketches::{LinHist, Rate, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, ObserveError, Stratum, StratumPasts,
};

fn hypothesis() -> Hypothesis {
    Hypothesis::new(HypothesisSpec {
        measure: Measure::Rate,
        direction: Direction::LowerIsBetter,
        against: Against::Control(Margin::absolute(0.005)),
        horizon: 60,
        interval_alpha: 0.05,
    })
    .unwrap()
}

fn rate(n: u64, k: u64) -> Summary {
    Summary::Rate(Rate::new(n, k).unwrap())
}

#[test]
fn one_stratum_is_the_plain_test_to_the_bit() {
    let (mut plain, mut stratified, mut pasts) = (hypothesis(), hypothesis(), StratumPasts::default());
    let warm = rate(1000, 10);
    plain.observe_warmup(&warm).unwrap();
    stratified.observe_warmup(&warm).unwrap();
    stratified.warm_up_stratum(0, &warm, &mut pasts).unwrap();
    for window in 1..30_u64 {
        let (canary, control) = (rate(200, window % 7), rate(2000, 20 + window % 5));
        let strata = [Stratum { canary: &canary, control: &control }];
        plain.observe(window as i64, &strata).unwrap();
        stratified.observe_by(window as i64, &strata, &[0], &mut pasts).unwrap();
    }
    assert_eq!(plain, stratified);
}

#[test]
fn a_window_is_the_product_of_its_strata() {
    // Two windows that each show one value, or one window that shows both: with a separate past per stratum and no restarts
    // in between, the evidence for PASS is the same.
    let values = [(rate(1000, 5), rate(300, 1), rate(3000, 15)), (rate(1000, 100), rate(100, 9), rate(1000, 100))];
    let mut pasts = StratumPasts::default();
    let mut both = hypothesis();
    for (place, (warm, ..)) in values.iter().enumerate() {
        both.observe_warmup(warm).unwrap();
        both.warm_up_stratum(place, warm, &mut pasts).unwrap();
    }
    let mut apart = both.clone();
    let mut own = pasts.clone();
    let strata: Vec<_> = values.iter().map(|(_, canary, control)| Stratum { canary, control }).collect();
    both.observe_by(1, &strata, &[0, 1], &mut pasts).unwrap();
    apart.observe_by(1, &strata[..1], &[0], &mut own).unwrap();
    apart.observe_by(2, &strata[1..], &[1], &mut own).unwrap();
    assert!((both.ln_e_pass() - apart.ln_e_pass()).abs() < 1e-9, "{} {}", both.ln_e_pass(), apart.ln_e_pass());
    assert!(both.ln_e_pass() != 0.0);
}

#[test]
fn invalid_input_changes_nothing() {
    let mut pasts = StratumPasts::default();
    let mut one = hypothesis();
    one.observe_warmup(&rate(1000, 10)).unwrap();
    let other = Summary::Lin(LinHist::new());
    let control = rate(100, 1);
    let before = (one.clone(), pasts.clone());
    let wrong = [Stratum { canary: &other, control: &control }];
    assert!(matches!(one.observe_by(1, &wrong, &[0], &mut pasts), Err(ObserveError::Kind { .. })));
    assert!(matches!(one.warm_up_stratum(0, &other, &mut pasts), Err(ObserveError::Kind { .. })));
    assert_eq!((one.clone(), pasts.clone()), before);
    // A place beyond the bound, or no place at all: the common past is used.
    let strata = [Stratum { canary: &control, control: &control }];
    one.observe_by(1, &strata, &[usize::MAX], &mut pasts).unwrap();
    one.observe_by(2, &strata, &[], &mut pasts).unwrap();
    assert_eq!(pasts, StratumPasts::default());
    let mut plain = before.0;
    plain.observe(1, &strata).unwrap();
    plain.observe(2, &strata).unwrap();
    assert_eq!(one, plain);
    assert!(matches!(one.observe_by(2, &strata, &[0], &mut pasts), Err(ObserveError::Replayed { .. })));
}
