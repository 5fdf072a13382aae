//! Kinds for planning, clusters, covariates, and intervals that hold at every look.

use serde_json::{Value, json};
use serin_statistics::cluster::{ClusterRatio, CovariateSums, cuped as adjust};
use serin_statistics::envelope::{self, Stitching};
use serin_statistics::interval;
use serin_statistics::planning::{Spending, group_sequential_bounds, n_for_mean, n_for_rates};

use super::Compute;
use super::input::{CaseError, Input};

pub(super) const KINDS: &[(&str, Compute)] = &[
    ("asymptotic_cs_radius", asymptotic_cs_radius),
    ("bernoulli_cs", bernoulli_cs),
    ("beta_binomial_bound", beta_binomial_bound),
    ("cluster_ratio", cluster_ratio),
    ("cuped", cuped),
    ("dkw_lil_radius", dkw_lil_radius),
    ("double_stitching_bound", double_stitching_bound),
    ("group_sequential_bounds", group_sequential),
    ("normal_mixture_bound", normal_mixture_bound),
    ("normal_mixture_log", normal_mixture_log),
    ("sample_size_mean", sample_size_mean),
    ("sample_size_ni_proportion", sample_size_ni_proportion),
];

type Computed = Result<Value, CaseError>;

fn sample_size_mean(input: Input<'_>) -> Computed {
    let (alpha, power, ratio) = (input.num("alpha")?, input.num("power")?, input.num("ratio")?);
    let sides = if input.is_given("sides") { input.int("sides")? } else { 1 };
    let sides = u8::try_from(sides).map_err(|_| CaseError::NoResult)?;
    let n = n_for_mean(alpha, power, input.num("sigma")?, input.num("d")?, ratio, sides).ok_or(CaseError::NoResult)?;
    Ok(json!({"n_canary": n, "n_stable": n * ratio, "n_canary_ceil": n.ceil() as u64}))
}

fn sample_size_ni_proportion(input: Input<'_>) -> Computed {
    let (p_c, p_s, g) = (input.num("p_canary")?, input.num("p_stable")?, input.direction()?.sign());
    let v = 1.0 + g * input.num_if_given("margin_rel")?.unwrap_or(0.0);
    let distance = input.num_if_given("margin_abs")?.unwrap_or(0.0) - g * (p_c - v * p_s);
    let (alpha, power, ratio) = (input.num("alpha")?, input.num("power")?, input.num("ratio")?);
    let n = n_for_rates(alpha, power, (p_c, p_s), v, distance, ratio).ok_or(CaseError::NoResult)?;
    Ok(json!({"n_canary": n, "n_stable": n * ratio, "n_canary_ceil": n.ceil() as u64}))
}

fn group_sequential(input: Input<'_>) -> Computed {
    let spending =
        [("obf", Spending::ObrienFleming), ("obrien_fleming", Spending::ObrienFleming), ("pocock", Spending::Pocock)];
    let looks = u32::try_from(input.int("looks")?).map_err(|_| CaseError::NoResult)?;
    let spending = input.choice("spending", &spending)?;
    let bounds = group_sequential_bounds(looks, input.num("alpha")?, spending, input.flag_or("one_sided", true)?);
    Ok(json!({"z": bounds.map_err(|_| CaseError::NoResult)?}))
}

fn cluster_ratio(input: Input<'_>) -> Computed {
    let (sums, sizes) = (input.nums("cluster_sums")?, input.nums("cluster_sizes")?);
    if sums.len() != sizes.len() {
        return Err(CaseError::NoResult);
    }
    let ratio = ClusterRatio::new(sums.into_iter().zip(sizes)).ok_or(CaseError::NoResult)?;
    let effect = ratio.design_effect_of_rate();
    Ok(json!({"ratio": ratio.ratio, "var": ratio.variance, "deff_vs_bernoulli": effect}))
}

fn cuped(input: Input<'_>) -> Computed {
    let sums = CovariateSums {
        n: input.num("n")?,
        sx: input.num("sx")?,
        sy: input.num("sy")?,
        sxx: input.num("sxx")?,
        sxy: input.num("sxy")?,
        syy: input.num("syy")?,
    };
    let adjusted = adjust(sums, input.num("covariate_mean")?).ok_or(CaseError::NoResult)?;
    Ok(json!({
        "theta": adjusted.theta, "adjusted_mean": adjusted.adjusted_mean,
        "variance_ratio": adjusted.variance_ratio, "adjusted_var_of_mean": adjusted.adjusted_var_of_mean,
    }))
}

fn dkw_lil_radius(input: Input<'_>) -> Computed {
    let a = input.num_if_given("A")?.unwrap_or(0.85);
    let radius = envelope::dkw_lil_radius(input.num("t")?, input.num("alpha")?, input.num("t_min")?, a);
    Ok(json!({"radius": radius.ok_or(CaseError::NoResult)?}))
}

fn double_stitching_bound(input: Input<'_>) -> Computed {
    let or = |key: &str, default: f64| Ok::<_, CaseError>(input.num_if_given(key)?.unwrap_or(default));
    let shape =
        Stitching { t_opt: input.num("t_opt")?, delta: or("delta", 0.5)?, s: or("s", 1.4)?, eta: or("eta", 2.0)? };
    let bound = envelope::double_stitching_bound(input.num("quantile_p")?, input.num("t")?, input.num("alpha")?, shape);
    Ok(json!({"bound": bound.ok_or(CaseError::NoResult)?}))
}

fn scale(input: Input<'_>) -> Result<(f64, bool), CaseError> {
    let one_sided = input.flag("one_sided")?;
    Ok((interval::mixture_scale(input.num("v_opt")?, input.num("alpha_opt")?, one_sided), one_sided))
}

fn normal_mixture_bound(input: Input<'_>) -> Computed {
    let (r, one_sided) = scale(input)?;
    Ok(json!({"bound": interval::normal_mixture_bound(input.num("v")?, input.num("alpha")?, r, one_sided)}))
}

fn normal_mixture_log(input: Input<'_>) -> Computed {
    let (r, one_sided) = scale(input)?;
    Ok(json!({"log_e": interval::normal_mixture_ln_e(input.num("s")?, input.num("v")?, r, one_sided)}))
}

fn asymptotic_cs_radius(input: Input<'_>) -> Computed {
    let (n, rho) = (input.num("n")?, input.num("rho")?);
    let bound = interval::normal_mixture_bound(n, input.num("alpha")?, 1.0 / (rho * rho), false);
    Ok(json!({"radius": bound / n * input.num("sd")?}))
}

fn beta_binomial_bound(input: Input<'_>) -> Computed {
    let (v, alpha) = (input.num("v")?, input.num("alpha")?);
    let tuning = (input.num("v_opt")?, input.num_if_given("alpha_opt")?.unwrap_or(0.05));
    let range = (input.num("g")?, input.num("h")?);
    Ok(json!({"bound": interval::beta_binomial_bound(v, alpha, tuning, range, input.flag("one_sided")?)}))
}

fn bernoulli_cs(input: Input<'_>) -> Computed {
    let tuning = (input.num("t_opt")?, input.num_if_given("alpha_opt")?.unwrap_or(0.05));
    let interval = interval::rate_interval_tuned(input.int("k")?, input.int("n")?, input.num("alpha")?, tuning);
    let (low, high) = interval.ok_or(CaseError::NoResult)?;
    Ok(json!({"ci": [low, high]}))
}
