//! Laws of the fixed-horizon tests, and that invalid input has no result.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use serin_sketches::Rate;
use serin_statistics::fixed::{
    Alternative, KsLaw, RankLaw, RateMethod, RateNull, Sample, binomial_test, clopper_pearson, goodness_of_fit,
    homogeneity, ks, ks_binned, mann_whitney, mann_whitney_binned, mcnemar, newcombe, poisson_ratio,
    quantile_rank_interval, two_rates, welch_non_inferiority, wilson,
};
use serin_statistics::{Direction, Margin};

const SIDES: [Alternative; 3] = [Alternative::TwoSided, Alternative::Less, Alternative::Greater];

fn rate(n: u64, k: u64) -> Rate {
    Rate::new(n, k).unwrap()
}

#[test]
fn an_empty_arm_has_no_result() {
    let (none, some) = (Rate::default(), rate(10, 5));
    let normal = RankLaw::Normal { continuity: true };
    for side in SIDES {
        for method in [RateMethod::MiettinenNurminen, RateMethod::FarringtonManning, RateMethod::Pooled] {
            assert_eq!(two_rates(none, some, RateNull::Difference(0.0), method, side), None);
            assert_eq!(two_rates(some, none, RateNull::Difference(0.0), method, side), None);
            for bad in [f64::NAN, 1.0, -1.0, f64::INFINITY] {
                assert_eq!(two_rates(some, some, RateNull::Difference(bad), method, side), None);
            }
            for bad in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
                assert_eq!(two_rates(some, some, RateNull::Ratio(bad), method, side), None);
            }
        }
        assert_eq!(mann_whitney(&[], &[1.0], side, normal), None);
        assert_eq!(mann_whitney(&[f64::NAN], &[1.0], side, normal), None);
        assert_eq!(mann_whitney(&[1.0; 200], &[1.0; 200], side, RankLaw::Exact), None);
        assert_eq!(mann_whitney_binned(&[1], &[1, 2], side, true), None);
        assert_eq!(mann_whitney_binned(&[0], &[3], side, true), None);
        assert_eq!(ks(&[1.0], &[], side, KsLaw::Auto), None);
        assert_eq!(ks(&[1.0], &[f64::NAN], side, KsLaw::Auto), None);
        assert_eq!(ks_binned(&[u64::MAX, 1], &[1, 1], side), None);
        assert_eq!(binomial_test(3, 2, 0.5, side), None);
        assert_eq!(poisson_ratio((1, 0.0), (1, 1.0), 1.0, side), None);
        assert_eq!(poisson_ratio((1, f64::NAN), (1, 1.0), 1.0, side), None);
        assert_eq!(poisson_ratio((u64::MAX, 1.0), (1, 1.0), 1.0, side), None);
    }
    for confidence in [0.0, 1.0, f64::NAN] {
        assert_eq!((wilson(some, confidence), clopper_pearson(some, confidence)), (None, None));
        assert_eq!(newcombe(some, some, confidence), None);
        assert_eq!(quantile_rank_interval(10, 0.5, confidence), None);
    }
    assert_eq!((wilson(none, 0.95), newcombe(none, some, 0.95)), (None, None));
    assert_eq!((mcnemar(0, 0), mcnemar(u64::MAX, 1)), (None, None));
    assert_eq!(goodness_of_fit(&[1, 2], &[1.0]), None);
    assert_eq!(goodness_of_fit(&[1, 2], &[1.0, 0.0]), None);
    assert_eq!(goodness_of_fit(&[0, 0], &[1.0, 1.0]), None);
    assert_eq!(homogeneity(&[]), None);
    assert_eq!(homogeneity(&[vec![1, 2], vec![1]]), None);
    assert_eq!(homogeneity(&[vec![1, 0], vec![1, 0]]), None, "one class only");
}

#[test]
fn means_without_spread_or_size_have_no_result() {
    let of =
        |canary, control| welch_non_inferiority(canary, control, Direction::LowerIsBetter, Margin::absolute(1.0), 0.95);
    let good = Sample::new(100, 5.0, 1.0).unwrap();
    let still = Sample::new(100, 5.0, 0.0).unwrap();
    assert_eq!(of(still, still), None);
    assert_eq!(of(Sample::new(1, 5.0, 1.0).unwrap(), good), None);
    assert_eq!(of(Sample::default(), good), None);
    assert!(Sample::new(3, f64::NAN, 1.0).is_none() && Sample::new(3, 1.0, -1.0).is_none());
    assert!(of(good, good).unwrap().p_non_inferiority < 1e-6);
    let bad_margin = Margin::absolute(f64::NAN);
    assert_eq!(welch_non_inferiority(good, good, Direction::LowerIsBetter, bad_margin, 0.95), None);
}

#[test]
fn equal_values_prove_nothing() {
    let normal = RankLaw::Normal { continuity: true };
    let test = mann_whitney(&[2.0; 30], &[2.0; 40], Alternative::TwoSided, normal).unwrap();
    assert_eq!((test.p.to_bits(), test.superiority.to_bits()), (1.0_f64.to_bits(), 0.5_f64.to_bits()));
    let test = ks(&[2.0; 30], &[2.0; 40], Alternative::TwoSided, KsLaw::Exact).unwrap();
    assert_eq!((test.d.to_bits(), test.p.to_bits()), (0.0_f64.to_bits(), 1.0_f64.to_bits()));
}

#[test]
fn the_interval_of_a_quantile_has_the_stated_coverage() {
    let ranks = quantile_rank_interval(1_000, 0.9, 0.95).unwrap();
    assert!(ranks.coverage >= 0.95 && ranks.lower < 900 && ranks.upper > 900, "{ranks:?}");
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.01..100.0_f64, 1..12)
}

/// Whether a p-value is a probability; no result is also accepted.
fn is_probability(p: Option<f64>) -> bool {
    p.is_none_or(|p| (0.0..=1.0).contains(&p))
}

proptest! {
    #[test]
    fn sides_of_a_test_mirror_each_other(n_c in 1..200_u64, n_s in 1..2000_u64, a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
        let canary = rate(n_c, (a * n_c as f64) as u64);
        let control = rate(n_s, (b * n_s as f64) as u64);
        let of = |x, y, side| two_rates(x, y, RateNull::Difference(0.0), RateMethod::FarringtonManning, side);
        if let Some(less) = of(canary, control, Alternative::Less) {
            let greater = of(control, canary, Alternative::Greater).unwrap();
            prop_assert!((less.p - greater.p).abs() < 1e-9);
            let two = of(canary, control, Alternative::TwoSided).unwrap();
            prop_assert!((two.p - 2.0 * less.p.min(1.0 - less.p)).abs() < 1e-9);
        }
        for confidence in [0.5, 0.95, 0.999] {
            let value = canary.value().unwrap();
            for (low, high) in [wilson(canary, confidence).unwrap(), clopper_pearson(canary, confidence).unwrap()] {
                prop_assert!((0.0..=value + 1e-12).contains(&low) && (value - 1e-12..=1.0).contains(&high));
            }
        }
    }

    #[test]
    fn ranks_ignore_the_scale(x in values(), y in values()) {
        let cubes = |values: &[f64]| values.iter().map(|value| value.powi(3) * 1e-9).collect::<Vec<_>>();
        for side in SIDES {
            let of = |x: &[f64], y: &[f64]| mann_whitney(x, y, side, RankLaw::Exact).unwrap();
            prop_assert_eq!(of(&x, &y), of(&cubes(&x), &cubes(&y)));
            prop_assert!((0.0..=1.0).contains(&of(&x, &y).p));
            let of = |x: &[f64], y: &[f64]| ks(x, y, side, KsLaw::Exact).unwrap();
            prop_assert_eq!(of(&x, &y), of(&cubes(&x), &cubes(&y)));
            prop_assert!((0.0..=1.0).contains(&of(&x, &y).p));
        }
    }

    #[test]
    fn merged_samples_are_the_sample_of_all(values in prop::collection::vec(-1e3..1e3_f64, 2..40), cut in 1..39_usize) {
        let sample = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            Sample::new(values.len() as u64, mean, (squares / (n - 1.0).max(1.0)).sqrt())
        };
        let cut = cut.min(values.len() - 1);
        let merged = sample(&values[..cut]).unwrap().merge(sample(&values[cut..]).unwrap());
        let whole = sample(&values).unwrap();
        prop_assert!((merged.mean() - whole.mean()).abs() < 1e-9);
        prop_assert!((merged.variance().unwrap() - whole.variance().unwrap()).abs() < 1e-5);
    }

    #[test]
    fn any_counts_give_a_probability_or_none(k: u64, n: u64, p: f64, t: f64) {
        for side in SIDES {
            for got in [binomial_test(k, n, p, side), poisson_ratio((k % 10_000, t), (n % 10_000, p), 1.0, side)] {
                prop_assert!(is_probability(got), "{got:?}");
            }
            prop_assert!(is_probability(mann_whitney_binned(&[k, n], &[n, k], side, true).map(|test| test.p)));
            prop_assert!(is_probability(ks_binned(&[k, n], &[n, k], side).map(|test| test.p)));
        }
        prop_assert!(quantile_rank_interval(n, p, 0.95).is_none_or(|ranks| ranks.lower < ranks.upper));
        prop_assert!(is_probability(homogeneity(&[vec![k, n], vec![n, k]]).map(|test| test.pearson.p)));
    }
}
