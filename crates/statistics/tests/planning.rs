//! Planning against the simulated table of detection times, and the laws of its numbers.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;
use serin_statistics::planning::{Canary, Expected, PlanError, Planned, log_sd};
use serin_statistics::{Direction, Margin};

use Direction::{HigherIsBetter, LowerIsBetter};

/// Budget of one of eight overall hypotheses: half of 1 %.
const ALPHA: f64 = 0.01 / 16.0;

/// Latencies of the simulated table: p99 is about 3.2 times the median.
const LATENCY: Expected = Expected::Quantile { control: 800.0, level: 0.99, log_sd: 0.5 };

fn rate(control: f64) -> Expected {
    Expected::Rate { control }
}

/// Seconds until this many canary answers at a weight of 10 000 requests per minute, with the rest of the traffic as control.
fn seconds(weight: f64, n_c: f64) -> f64 {
    n_c / (10_000.0 / 60.0 * weight)
}

#[test]
fn forecasts_agree_with_simulated_medians() {
    // Statistical specification, table 8.2: regression, margin, then the medians at 5 % and 10 % weight.
    let conf = Expected::Mean { control: 0.8, sd: 0.1206 };
    let rows = [
        (rate(0.01), LowerIsBetter, Margin::absolute(0.002), 0.02, [520.0, 280.0]),
        (rate(0.01), LowerIsBetter, Margin::default(), 0.02, [330.0, 170.0]),
        (LATENCY, LowerIsBetter, Margin::relative(0.197), 1_200.0, [100.0, 60.0]),
        (conf, HigherIsBetter, Margin::relative(0.01), 0.76, [40.0, 20.0]),
        (conf, HigherIsBetter, Margin::relative(0.01), 0.784, [565.0, 300.0]),
        (Expected::Distribution, LowerIsBetter, Margin::absolute(0.1), 0.2, [70.0, 40.0]),
        (rate(0.05), HigherIsBetter, Margin::relative(0.01), 0.04, [1170.0, 610.0]),
        (rate(0.05), HigherIsBetter, Margin::relative(0.01), 0.045, [f64::NAN, 2760.0]),
    ];
    for (expected, direction, margin, canary, medians) in rows {
        for (weight, median) in [(0.05, medians[0]), (0.1, medians[1])] {
            let planned = Planned::against_control(expected, direction, margin, (1.0 - weight) / weight).unwrap();
            let got = seconds(weight, planned.n_to_fail(canary, ALPHA).unwrap());
            // Medians are whole windows of 10 s.
            let close = median.is_nan() || (0.85 * median - 10.0..=1.15 * median + 10.0).contains(&got);
            assert!(close, "{expected:?} {canary} {weight}: {got:.0} {median}");
        }
    }
    let rows = [
        (rate(0.01), LowerIsBetter, Margin::absolute(0.005), 0.05, [340.0, 190.0]),
        (rate(0.01), LowerIsBetter, Margin::absolute(0.002), 0.05, [1740.0, 960.0]),
        (LATENCY, LowerIsBetter, Margin::relative(0.197), 0.05, [125.0, 70.0]),
        // With restarts, as in the table: half of the prior is on the first window.
        (conf, HigherIsBetter, Margin::relative(0.01), 0.025, [220.0, 140.0]),
    ];
    for (expected, direction, margin, alpha, medians) in rows {
        for (weight, median) in [(0.05, medians[0]), (0.1, medians[1])] {
            let planned = Planned::against_control(expected, direction, margin, (1.0 - weight) / weight).unwrap();
            let got = seconds(weight, planned.n_to_pass(planned.control(), alpha).unwrap());
            // The forecast is a mean; the medians of skewed times are below it.
            let close = (0.8 * median - 20.0..=1.25 * median + 10.0).contains(&got);
            assert!(close, "PASS {expected:?} {margin:?} {weight}: {got:.0} {median}");
        }
    }
}

#[test]
fn unprovable_claims_have_no_number_of_answers() {
    let zero = Planned::against_control(rate(0.01), LowerIsBetter, Margin::default(), 9.0).unwrap();
    assert_eq!(zero.n_to_pass(0.01, 0.05), None, "nothing proves `not worse at all`");
    assert_eq!(zero.n_to_fail(0.01, 0.01), None);
    assert_eq!(zero.n_to_fail(0.005, 0.01), None, "a better canary never fails");
    let wide = Planned::against_control(rate(0.5), LowerIsBetter, Margin::absolute(0.6), 9.0).unwrap();
    assert_eq!((wide.fail_border(), wide.n_to_fail(0.99, 0.01), wide.detectable(1e9, 0.01)), (None, None, None));
    // Too few answers for any effect.
    assert_eq!(zero.detectable(1.0, 0.01), None);
    for alpha in [0.0, 1.0, -1.0, f64::NAN] {
        assert_eq!(zero.n_to_fail(0.02, alpha), None);
        assert_eq!(zero.fixed_n_to_fail(0.02, alpha, 0.8), None);
    }
    assert_eq!(zero.n_to_fail(f64::NAN, 0.01), None);
    assert_eq!(zero.detectable(f64::NAN, 0.01), None);
}

#[test]
fn invalid_arguments_are_named() {
    let of = |expected, margin, kappa| Planned::against_control(expected, LowerIsBetter, margin, kappa);
    let range = |planned: Result<Planned, PlanError>| matches!(planned, Err(PlanError::Range { .. }));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(range(of(rate(bad), Margin::default(), 1.0)));
        assert!(range(of(Expected::Events { control: bad }, Margin::default(), 1.0)));
        assert!(range(of(Expected::Mean { control: 1.0, sd: bad }, Margin::default(), 1.0)));
        assert!(range(of(Expected::Quantile { control: bad, level: 0.5, log_sd: 1.0 }, Margin::default(), 1.0)));
        assert!(range(of(Expected::Quantile { control: 1.0, level: 0.5, log_sd: bad }, Margin::default(), 1.0)));
        assert!(Planned::against_limit(rate(0.1), LowerIsBetter, bad, 0.2).is_err());
        assert!(Planned::against_limit(LATENCY, LowerIsBetter, 1.0, bad).is_err());
        assert_eq!(log_sd((0.5, bad), (0.99, 3.0)), None);
    }
    assert!(range(of(rate(0.1), Margin::default(), 0.0)));
    assert!(range(of(rate(0.1), Margin::default(), f64::NAN)));
    assert!(matches!(of(rate(0.1), Margin::absolute(-1.0), 1.0), Err(PlanError::Margin(_))));
    assert!(matches!(of(Expected::Distribution, Margin::relative(0.1), 1.0), Err(PlanError::Unsupported(_))));
    assert!(matches!(
        of(Expected::Events { control: 1.0 }, Margin::absolute(0.1), 1.0),
        Err(PlanError::Unsupported(_))
    ));
    assert!(Planned::against_limit(Expected::Distribution, LowerIsBetter, 0.1, 0.1).is_err());
    assert_eq!(log_sd((0.99, 1.0), (0.5, 3.0)), None);
}

#[test]
fn limits_need_no_control() {
    let planned = Planned::against_limit(rate(0.01), LowerIsBetter, 0.05, 0.06).unwrap();
    let (fail, pass) = (planned.n_to_fail(0.1, ALPHA).unwrap(), planned.n_to_pass(0.01, 0.05).unwrap());
    assert!((100.0..1_000.0).contains(&fail) && (50.0..500.0).contains(&pass), "{fail} {pass}");
    assert_eq!(planned.n_to_fail(0.055, ALPHA), None, "between the limits nothing is proven");
    let slow = Planned::against_limit(LATENCY, LowerIsBetter, 1_000.0, 1_000.0).unwrap();
    assert!(slow.n_to_pass(800.0, 0.05).is_some() && slow.n_to_fail(1_500.0, ALPHA).is_some());
    let low = Planned::against_limit(Expected::Mean { control: 0.8, sd: 0.1 }, HigherIsBetter, 0.7, 0.65).unwrap();
    assert!(low.n_to_pass(0.8, 0.05).is_some() && low.n_to_fail(0.6, ALPHA).is_some());
}

#[test]
fn a_harm_beyond_both_margins_is_needed() {
    let margin = Margin { absolute: Some(0.002), relative: Some(0.5) };
    let both = Planned::against_control(rate(0.01), LowerIsBetter, margin, 9.0).unwrap();
    let laxer = Planned::against_control(rate(0.01), LowerIsBetter, Margin::relative(0.5), 9.0).unwrap();
    assert_eq!(both.fail_border(), Some(0.015));
    assert_eq!(both.n_to_fail(0.02, ALPHA), laxer.n_to_fail(0.02, ALPHA));
    assert_eq!(both.n_to_fail(0.014, ALPHA), None);
    assert!(both.n_to_pass(0.01, 0.05) > laxer.n_to_pass(0.01, 0.05), "two alternatives cost ln 2");
}

#[test]
fn risk_of_the_worked_example() {
    // Section 7: 1 % -> 2 % takes 3 900 to 4 700 canary requests, which is 39 to 47 extra errors.
    let planned = Planned::against_control(rate(0.01), LowerIsBetter, Margin::absolute(0.002), 19.0).unwrap();
    let n_c = planned.n_to_fail(0.02, ALPHA).unwrap();
    let canary = Canary { per_second: 10_000.0 / 60.0, weight: 0.05, window_seconds: 10.0, react_seconds: 0.0 };
    let risk = canary.at_risk(n_c, planned.harm(0.02)).unwrap();
    assert!((38.0..48.0).contains(&risk.harm), "{risk:?}");
}

fn planned() -> impl Strategy<Value = Planned> {
    let expected = prop_oneof![
        (0.001..0.999).prop_map(rate),
        (-10.0..10.0, 0.1..10.0).prop_map(|(control, sd)| Expected::Mean { control, sd }),
        (0.1..1e4, 0.5..0.99, 0.1..2.0).prop_map(|(control, level, log_sd)| Expected::Quantile {
            control,
            level,
            log_sd
        }),
        (0.01..100.0).prop_map(|control| Expected::Events { control }),
    ];
    let margin = prop_oneof![Just(0.0), 0.001..0.5].prop_map(Margin::relative);
    let kappa = prop_oneof![Just(f64::INFINITY), 0.1..99.0];
    (expected, prop_oneof![Just(LowerIsBetter), Just(HigherIsBetter)], margin, kappa).prop_map(
        |(expected, direction, margin, kappa)| Planned::against_control(expected, direction, margin, kappa).unwrap(),
    )
}

proptest! {
    #[test]
    fn a_detectable_effect_needs_the_given_number_of_answers(planned in planned(), n in 100.0..1e6_f64) {
        if let Some(canary) = planned.detectable(n, ALPHA) {
            let took = planned.n_to_fail(canary, ALPHA).unwrap();
            prop_assert!((took / n - 1.0).abs() < 1e-3, "{took} {n}");
        }
    }

    #[test]
    fn more_answers_detect_smaller_effects(planned in planned(), n in 100.0..1e5_f64) {
        let border = planned.fail_border();
        let distance =
            |seen: Option<f64>| border.zip(seen).map_or(f64::INFINITY, |(border, seen)| (seen - border).abs());
        let base = distance(planned.detectable(n, ALPHA));
        prop_assert!(distance(planned.detectable(2.0 * n, ALPHA)) <= base);
        prop_assert!(distance(planned.detectable(n, 0.05)) <= base);
        prop_assert!(distance(planned.averaged_over(8).detectable(n, ALPHA)) >= base);
    }

    #[test]
    fn any_figures_give_a_number_or_none(planned in planned(), canary: f64, alpha: f64, power: f64, n: f64) {
        for got in [
            planned.n_to_fail(canary, alpha), planned.n_to_pass(canary, alpha),
            planned.fixed_n_to_fail(canary, alpha, power), planned.fixed_n_to_pass(canary, alpha, power),
        ] {
            prop_assert!(got.is_none_or(|got| got > 0.0 && got.is_finite()));
        }
        prop_assert!(planned.detectable(n, alpha).is_none_or(f64::is_finite));
    }
}
