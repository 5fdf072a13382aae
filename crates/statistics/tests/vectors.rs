//! Reference vectors: `data/stats_cases.json`, computed with independent implementations (mpmath, scipy, confseq).
//! Every kind in [`COVERED`] must pass, and only kinds in [`LATER`] may be left out.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use serde_json::Value;
use serin_sketches::{LogHist, Rate, upper_edge};
use serin_statistics::bets::{fail_rate_bets, pass_rate_bets};
use serin_statistics::two_means::{Sums, ln_e_grid, ln_e_moments};
use serin_statistics::two_rates::{RateBet, ln_e, project};
use serin_statistics::{Line, Mixture, PastHist, PastRate, counts, interval};

const COVERED: [&str; 18] = [
    "asymptotic_cs_radius",
    "bernoulli2_window_log_e",
    "bernoulli_cs",
    "beta_binomial_bound",
    "betting_hist2_log_e",
    "e_bh",
    "emp_bernstein2_log_e",
    "fail_eprocess_sequence",
    "multinomial2_window_log_e",
    "normal_mixture_bound",
    "normal_mixture_log",
    "p_adjust",
    "pass_eprocess_sequence",
    "poisson_conditional_log_e",
    "quantile_exceedance_counts",
    "restart_mixture",
    "srm_dirichlet_log_e",
    "weighted_e_average",
];

/// Kinds of tests that are not built yet: fixed-horizon tests, planning, clusters, group-sequential bounds.
const LATER: [&str; 20] = [
    "chisq_homogeneity",
    "cluster_ratio",
    "cuped",
    "dkw_lil_radius",
    "double_stitching_bound",
    "group_sequential_bounds",
    "ks_hist",
    "ks_two_sample",
    "mann_whitney",
    "mann_whitney_hist",
    "mcnemar_exact",
    "poisson_ratio_exact",
    "proportion_ci",
    "proportion_diff_ci_newcombe",
    "quantile_ci_ranks",
    "sample_size_mean",
    "sample_size_ni_proportion",
    "srm_chisquare",
    "two_proportions",
    "welch_noninferiority",
];

fn num(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap()
}

fn int(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|item| item.as_f64().unwrap()).collect()
}

fn ints(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|item| item.as_u64().unwrap()).collect()
}

fn line(input: &Value) -> Line {
    Line { v: num(input, "v"), c: num(input, "c"), sign: num(input, "sign") }
}

fn rates(window: &Value) -> (Rate, Rate) {
    let rate = |n, k| Rate::new(int(window, n), int(window, k)).unwrap();
    (rate("n_c", "k_c"), rate("n_s", "k_s"))
}

/// What we compute for a case, in the shape of its `expected`.
fn computed(kind: &str, input: &Value) -> Value {
    match kind {
        "bernoulli2_window_log_e" => {
            let (canary, control) = rates(input);
            let bet = RateBet { a: num(input, "a_star"), b: num(input, "b_star") };
            let point = project(canary.n() as f64, control.n() as f64, bet, line(input)).unwrap();
            serde_json::json!({"a0": point.a, "b0": point.b, "log_e": ln_e(canary, control, bet, line(input))})
        }
        "poisson_conditional_log_e" => {
            let canary = (int(input, "k_c"), num(input, "exposure_c"));
            let control = (int(input, "k_s"), num(input, "exposure_s"));
            let (null, bet) = (num(input, "ratio_null"), num(input, "ratio_alt"));
            serde_json::json!({"log_e": counts::poisson_ln_e(canary, control, null, bet)})
        }
        "multinomial2_window_log_e" => {
            let (c, s) = (ints(&input["counts_c"]), ints(&input["counts_s"]));
            let ln_e = counts::classes_ln_e(&c, &s, &list(&input["theta_c"]), &list(&input["theta_s"]));
            serde_json::json!({"log_e": ln_e})
        }
        "srm_dirichlet_log_e" => {
            let (n, weights) = (ints(&input["counts"]), list(&input["weights"]));
            serde_json::json!({"log_e": counts::split_ln_e(&n, &weights, num(input, "concentration"))})
        }
        "emp_bernstein2_log_e" => {
            let sums = |arm: &str| {
                let arm = &input[arm];
                Sums { n: num(arm, "n"), s1: num(arm, "s1"), s2: num(arm, "s2") }
            };
            let centers = (num(input, "center_c"), num(input, "center_s"));
            let ln_e = ln_e_moments(sums("canary"), sums("stable"), centers, num(input, "lam"), line(input));
            serde_json::json!({"log_e": ln_e})
        }
        "betting_hist2_log_e" => {
            let grid =
                |key: &str| -> Vec<(f64, u64)> { list(&input["grid"]).into_iter().zip(ints(&input[key])).collect() };
            let (lam, b0) = (num(input, "lam"), num(input, "b0"));
            serde_json::json!({"log_e": ln_e_grid(&grid("counts_c"), &grid("counts_s"), lam, b0, line(input))})
        }
        "restart_mixture" => {
            let mut process = Mixture::new(1);
            let steps = list(&input["gamma"]).into_iter().zip(list(&input["log_e"]));
            let path = steps.map(|(gamma, step)| {
                process.update(gamma, &[step]);
                process.ln_e()
            });
            serde_json::json!({"log_E": path.collect::<Vec<f64>>()})
        }
        "weighted_e_average" => {
            let pairs: Vec<_> = list(&input["weights"]).into_iter().zip(list(&input["log_e"])).collect();
            let ln_e = serin_statistics::ln_weighted_average(&pairs);
            serde_json::json!({"log_E": ln_e, "reject": serin_statistics::rejects(ln_e, num(input, "alpha"))})
        }
        "e_bh" => {
            let ln_e: Vec<f64> = list(&input["e"]).into_iter().map(f64::ln).collect();
            let reject = serin_statistics::e_bh(&ln_e, num(input, "alpha"));
            serde_json::json!({"k": reject.iter().filter(|&&rejected| rejected).count(), "reject": reject})
        }
        "p_adjust" => {
            let (p, alpha) = (list(&input["p"]), num(input, "alpha"));
            let equal: Vec<_> = p.iter().map(|&p| (1.0 / 16.0, p)).collect();
            let adjusted = match input["method"].as_str().unwrap() {
                "holm" => serin_statistics::weighted_holm_adjusted(&equal),
                "bh" => serin_statistics::bh_adjusted(&p),
                other => panic!("unknown method {other}"),
            };
            let reject: Vec<bool> = adjusted.iter().map(|&p| p <= alpha).collect();
            serde_json::json!({"adjusted": adjusted, "reject": reject})
        }
        "fail_eprocess_sequence" | "pass_eprocess_sequence" => sequence(kind == "fail_eprocess_sequence", input),
        "quantile_exceedance_counts" => exceedances(input),
        _ => intervals(kind, input),
    }
}

fn intervals(kind: &str, input: &Value) -> Value {
    let scale = || interval::mixture_scale(num(input, "v_opt"), num(input, "alpha_opt"), one_sided(input));
    match kind {
        "normal_mixture_bound" => {
            let bound = interval::normal_mixture_bound(num(input, "v"), num(input, "alpha"), scale(), one_sided(input));
            serde_json::json!({"bound": bound})
        }
        "normal_mixture_log" => {
            let ln_e = interval::normal_mixture_ln_e(num(input, "s"), num(input, "v"), scale(), one_sided(input));
            serde_json::json!({"log_e": ln_e})
        }
        "asymptotic_cs_radius" => {
            let (n, rho) = (num(input, "n"), num(input, "rho"));
            let bound = interval::normal_mixture_bound(n, num(input, "alpha"), 1.0 / (rho * rho), false);
            serde_json::json!({"radius": bound / n * num(input, "sd")})
        }
        "beta_binomial_bound" => {
            let (v, v_opt) = (num(input, "v"), num(input, "v_opt"));
            let (alpha, alpha_opt) = (num(input, "alpha"), num(input, "alpha_opt"));
            let bound = interval::beta_binomial_bound(
                v,
                alpha,
                (v_opt, alpha_opt),
                (num(input, "g"), num(input, "h")),
                one_sided(input),
            );
            serde_json::json!({"bound": bound})
        }
        "bernoulli_cs" => {
            let (k, n) = (int(input, "k"), int(input, "n"));
            let (low, high) = interval::rate_interval(k, n, num(input, "alpha"), num(input, "t_opt")).unwrap();
            serde_json::json!({"ci": [low, high]})
        }
        other => panic!("no code for kind {other}"),
    }
}

fn one_sided(input: &Value) -> bool {
    input["one_sided"].as_bool().unwrap()
}

fn sequence(fail: bool, input: &Value) -> Value {
    let (line, phi) = (line(input), num(input, "forgetting"));
    let mut past = PastRate::default();
    past.push(Rate::new(int(&input["warmup"], "n_s"), int(&input["warmup"], "k_s")).unwrap(), phi);
    let mut process = Mixture::new(if fail { 9 } else { 4 });
    let (mut b_hats, mut path) = (Vec::new(), Vec::new());
    for (window, gamma) in input["windows"].as_array().unwrap().iter().zip(list(&input["gamma"])) {
        let (canary, control) = rates(window);
        let b_hat = past.b_hat();
        let steps: Vec<f64> = if fail {
            fail_rate_bets(b_hat, line).unwrap().map(|bet| ln_e(canary, control, bet, line)).to_vec()
        } else {
            let bets = pass_rate_bets(b_hat, b_hat, line).unwrap();
            bets.map(|bet| ln_e(canary, control, bet, line.reversed())).to_vec()
        };
        process.update(gamma, &steps);
        past.push(control, phi);
        b_hats.push(b_hat);
        path.push(process.ln_e());
    }
    serde_json::json!({"b_hat": b_hats, "log_E": path})
}

fn exceedances(input: &Value) -> Value {
    let hist = |key: &str| {
        let mut hist = LogHist::new();
        for (bin, count) in (0..).zip(ints(&input[key])) {
            for _ in 0..count {
                hist.insert(upper_edge(bin) * 0.99).unwrap();
            }
        }
        hist
    };
    let mut past = PastHist::default();
    past.push(hist("past_stable").iter(), 1.0);
    let k_star = past.key_at(num(input, "p")).unwrap();
    let (canary, stable) = (hist("canary"), hist("stable"));
    let shifted = k_star + i32::try_from(int(input, "shift_bins")).unwrap();
    serde_json::json!({
        "k_star": k_star, "n_c": canary.total(), "n_s": stable.total(),
        "exceed_c": canary.count_above(shifted), "exceed_s": stable.count_above(k_star),
    })
}

/// `|got - expected| <= atol + rtol |expected|` for every number; everything else is equal.
fn assert_close(id: &str, got: &Value, expected: &Value, rtol: f64, atol: f64) {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{id}");
            for (key, value) in expected {
                assert_close(id, &got[key], value, rtol, atol);
            }
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{id}");
            for (got, expected) in got.iter().zip(expected) {
                assert_close(id, got, expected, rtol, atol);
            }
        }
        (Value::Number(got), Value::Number(expected)) => {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((got - expected).abs() <= atol + rtol * expected.abs(), "{id}: got {got}, expected {expected}");
        }
        _ => assert_eq!(got, expected, "{id}"),
    }
}

#[test]
fn every_covered_kind_matches_its_vectors() {
    let file: Value = serde_json::from_str(include_str!("data/stats_cases.json")).unwrap();
    let (mut passed, mut left_out) = (BTreeSet::new(), BTreeSet::new());
    for case in file["cases"].as_array().unwrap() {
        let kind = case["kind"].as_str().unwrap();
        if !COVERED.contains(&kind) {
            left_out.insert(kind);
            continue;
        }
        let got = computed(kind, &case["input"]);
        assert_close(case["id"].as_str().unwrap(), &got, &case["expected"], num(case, "rtol"), num(case, "atol"));
        passed.insert(kind);
    }
    assert_eq!(passed, BTreeSet::from(COVERED));
    assert_eq!(left_out, BTreeSet::from(LATER));
}
