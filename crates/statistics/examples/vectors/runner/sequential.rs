//! Kinds for e-values and e-processes.

use serde_json::{Value, json};
use serin_statistics::bets::{fail_rate_bet, pass_rate_bet};
use serin_statistics::two_means::{Sums, ln_e_grid, ln_e_moments};
use serin_statistics::two_rates::{RateBet, ln_e, project};
use serin_statistics::{Mixture, PastHist, PastRate, counts, e_bh, ln_weighted_average, rejects};

use super::Compute;
use super::input::{CaseError, Input};

pub(super) const KINDS: &[(&str, Compute)] = &[
    ("bernoulli2_window_log_e", bernoulli2),
    ("betting_hist2_log_e", betting),
    ("e_bh", e_benjamini_hochberg),
    ("emp_bernstein2_log_e", empirical_bernstein),
    ("fail_eprocess_sequence", fail_sequence),
    ("multinomial2_window_log_e", multinomial),
    ("pass_eprocess_sequence", pass_sequence),
    ("poisson_conditional_log_e", poisson),
    ("quantile_exceedance_counts", exceedances),
    ("restart_mixture", restarts),
    ("srm_dirichlet_log_e", split),
    ("weighted_e_average", weighted_average),
];

type Computed = Result<Value, CaseError>;

fn bernoulli2(input: Input<'_>) -> Computed {
    let (canary, control) = (input.rate("k_c", "n_c")?, input.rate("k_s", "n_s")?);
    let (bet, line) = (RateBet { a: input.num("a_star")?, b: input.num("b_star")? }, input.line()?);
    // A bet on the line is its own projection.
    let point = project(canary.n() as f64, control.n() as f64, bet, line).unwrap_or(bet);
    Ok(json!({"a0": point.a, "b0": point.b, "log_e": ln_e(canary, control, bet, line)}))
}

fn poisson(input: Input<'_>) -> Computed {
    let canary = (input.int("k_c")?, input.num("exposure_c")?);
    let control = (input.int("k_s")?, input.num("exposure_s")?);
    Ok(json!({"log_e": counts::poisson_ln_e(canary, control, input.num("ratio_null")?, input.num("ratio_alt")?)}))
}

fn multinomial(input: Input<'_>) -> Computed {
    let (c, s) = (input.ints("counts_c")?, input.ints("counts_s")?);
    Ok(json!({"log_e": counts::classes_ln_e(&c, &s, &input.nums("theta_c")?, &input.nums("theta_s")?)}))
}

fn split(input: Input<'_>) -> Computed {
    let concentration = input.num_if_given("concentration")?.unwrap_or(counts::SPLIT_CONCENTRATION);
    Ok(json!({"log_e": counts::split_ln_e(&input.ints("counts")?, &input.nums("weights")?, concentration)}))
}

fn empirical_bernstein(input: Input<'_>) -> Computed {
    let sums = |arm: &str| {
        let arm = input.object(arm)?;
        Ok::<_, CaseError>(Sums { n: arm.num("n")?, s1: arm.num("s1")?, s2: arm.num("s2")? })
    };
    let centers = (input.num("center_c")?, input.num("center_s")?);
    let ln_e = ln_e_moments(sums("canary")?, sums("stable")?, centers, input.num("lam")?, input.line()?);
    Ok(json!({"log_e": ln_e}))
}

fn betting(input: Input<'_>) -> Computed {
    let points = input.nums("grid")?;
    let grid = |key: &str| {
        let counts = input.ints(key)?;
        let same = counts.len() == points.len();
        same.then(|| points.iter().copied().zip(counts).collect::<Vec<_>>()).ok_or(CaseError::NoResult)
    };
    let (canary, control) = (grid("counts_c")?, grid("counts_s")?);
    Ok(json!({"log_e": ln_e_grid(&canary, &control, input.num("lam")?, input.num("b0")?, input.line()?)}))
}

fn restarts(input: Input<'_>) -> Computed {
    let (gammas, steps) = (input.nums("gamma")?, input.nums("log_e")?);
    let mut process = Mixture::new(1);
    let path = gammas.into_iter().zip(steps).map(|(gamma, step)| {
        process.update(gamma, &[step]);
        process.ln_e()
    });
    Ok(json!({"log_E": path.collect::<Vec<f64>>()}))
}

fn weighted_average(input: Input<'_>) -> Computed {
    let pairs: Vec<_> = input.nums("weights")?.into_iter().zip(input.nums("log_e")?).collect();
    let ln_e = ln_weighted_average(&pairs);
    Ok(json!({"log_E": ln_e, "reject": rejects(ln_e, input.num("alpha")?)}))
}

fn e_benjamini_hochberg(input: Input<'_>) -> Computed {
    let ln_e: Vec<f64> = input.nums("e")?.into_iter().map(f64::ln).collect();
    let reject = e_bh(&ln_e, input.num("alpha")?);
    Ok(json!({"k": reject.iter().filter(|&&rejected| rejected).count(), "reject": reject}))
}

fn fail_sequence(input: Input<'_>) -> Computed {
    sequence(input, "odds_multipliers", true)
}

fn pass_sequence(input: Input<'_>) -> Computed {
    sequence(input, "kappa", false)
}

/// Combines the menu of bets, the memory of control and the mixture, over windows.
fn sequence(input: Input<'_>, menu: &str, fail: bool) -> Computed {
    let (line, phi, warmup) = (input.line()?, input.num("forgetting")?, input.object("warmup")?);
    let (menu, windows, gammas) = (input.object("bets")?.nums(menu)?, input.objects("windows")?, input.nums("gamma")?);
    if windows.len() != gammas.len() {
        return Err(CaseError::NoResult);
    }
    let mut past = PastRate::default();
    past.push(warmup.rate("k_s", "n_s")?, phi);
    let mut process = Mixture::new(menu.len());
    let (mut b_hats, mut path) = (Vec::new(), Vec::new());
    for (window, gamma) in windows.iter().zip(gammas) {
        let (canary, control) = (window.rate("k_c", "n_c")?, window.rate("k_s", "n_s")?);
        let b_hat = past.b_hat();
        let step = |&size: &f64| {
            if fail {
                fail_rate_bet(b_hat, line, size).map(|bet| ln_e(canary, control, bet, line))
            } else {
                pass_rate_bet(b_hat, b_hat, line, size).map(|bet| ln_e(canary, control, bet, line.reversed()))
            }
        };
        // A bet that cannot be made adds no evidence.
        let steps: Vec<f64> = menu.iter().map(|size| step(size).unwrap_or(0.0)).collect();
        process.update(gamma, &steps);
        past.push(control, phi);
        b_hats.push(b_hat);
        path.push(process.ln_e());
    }
    Ok(json!({"b_hat": b_hats, "log_E": path}))
}

fn exceedances(input: Input<'_>) -> Computed {
    let bins = |key: &str| {
        let mut hist = PastHist::default();
        hist.push((0..).zip(input.ints(key)?), 1.0);
        Ok::<_, CaseError>(hist)
    };
    let (past, canary, stable) = (bins("past_stable")?, bins("canary")?, bins("stable")?);
    let k_star = past.key_at(input.num("p")?).ok_or(CaseError::NoResult)?;
    let shifted = k_star + input.signed("shift_bins")?;
    let whole = |count: f64| count as u64;
    Ok(json!({
        "k_star": k_star, "n_c": whole(canary.n()), "n_s": whole(stable.n()),
        "exceed_c": whole(canary.above(shifted)), "exceed_s": whole(stable.above(k_star)),
    }))
}
