//! Kinds for fixed-horizon tests.

use serde_json::{Value, json};
use serin_statistics::fixed::{self, KsLaw, RankLaw, RateMethod, RateNull, Sample};
use serin_statistics::{Margin, bh_adjusted, by_adjusted, weighted_holm_adjusted};

use super::Compute;
use super::input::{CaseError, Input};

pub(super) const KINDS: &[(&str, Compute)] = &[
    ("chisq_homogeneity", chisq_homogeneity),
    ("ks_hist", ks_hist),
    ("ks_two_sample", ks_two_sample),
    ("mann_whitney", mann_whitney),
    ("mann_whitney_hist", mann_whitney_hist),
    ("mcnemar_exact", mcnemar_exact),
    ("p_adjust", p_adjust),
    ("poisson_ratio_exact", poisson_ratio_exact),
    ("proportion_ci", proportion_ci),
    ("proportion_diff_ci_newcombe", newcombe),
    ("quantile_ci_ranks", quantile_ci_ranks),
    ("srm_chisquare", srm_chisquare),
    ("two_proportions", two_proportions),
    ("welch_noninferiority", welch_noninferiority),
];

type Computed = Result<Value, CaseError>;

fn chisq_homogeneity(input: Input<'_>) -> Computed {
    let test = fixed::homogeneity(&input.table("table")?).ok_or(CaseError::NoResult)?;
    let (pearson, g) = (test.pearson, test.likelihood_ratio);
    Ok(json!({
        "chi2": pearson.chi2, "df": pearson.df, "p": pearson.p, "g": g.chi2, "g_p": g.p, "cramers_v": test.cramers_v,
    }))
}

fn srm_chisquare(input: Input<'_>) -> Computed {
    let test = fixed::goodness_of_fit(&input.ints("counts")?, &input.nums("weights")?).ok_or(CaseError::NoResult)?;
    Ok(json!({"chi2": test.chi2, "df": test.df, "p": test.p}))
}

fn ks_two_sample(input: Input<'_>) -> Computed {
    let law = [("exact", KsLaw::Exact), ("limit", KsLaw::Limit), ("auto", KsLaw::Auto)];
    let law = input.choice("method", &law)?;
    let test = fixed::ks(&input.nums("x")?, &input.nums("y")?, input.alternative()?, law);
    let test = test.ok_or(CaseError::NoResult)?;
    Ok(json!({"d": test.d, "p": test.p}))
}

fn ks_hist(input: Input<'_>) -> Computed {
    let test = fixed::ks_binned(&input.ints("x_counts")?, &input.ints("y_counts")?, input.alternative()?);
    let test = test.ok_or(CaseError::NoResult)?;
    Ok(json!({"d": test.d, "p": test.p}))
}

fn mann_whitney(input: Input<'_>) -> Computed {
    let continuity = input.flag_or("continuity", true)?;
    let (normal, auto) = (RankLaw::Normal { continuity }, RankLaw::Auto { continuity });
    let law = [("exact", RankLaw::Exact), ("asymptotic", normal), ("auto", auto)];
    let law = input.choice("method", &law)?;
    rank_result(fixed::mann_whitney(&input.nums("x")?, &input.nums("y")?, input.alternative()?, law))
}

fn mann_whitney_hist(input: Input<'_>) -> Computed {
    let (x, y) = (input.ints("x_counts")?, input.ints("y_counts")?);
    rank_result(fixed::mann_whitney_binned(&x, &y, input.alternative()?, input.flag_or("continuity", true)?))
}

fn rank_result(test: Option<fixed::MannWhitney>) -> Computed {
    let test = test.ok_or(CaseError::NoResult)?;
    Ok(json!({"u": test.u, "p": test.p, "prob_superiority": test.superiority}))
}

fn welch_noninferiority(input: Input<'_>) -> Computed {
    let sample = |arm: &str| {
        let arm = input.object(arm)?;
        Sample::new(arm.int("n")?, arm.num("mean")?, arm.num("sd")?).ok_or(CaseError::NoResult)
    };
    let margin = Margin { absolute: input.num_if_given("margin_abs")?, relative: input.num_if_given("margin_rel")? };
    let (canary, stable) = (sample("canary")?, sample("stable")?);
    let confidence = input.num_if_given("confidence")?.unwrap_or(0.95);
    let test = fixed::welch_non_inferiority(canary, stable, input.direction()?, margin, confidence);
    let test = test.ok_or(CaseError::NoResult)?;
    Ok(json!({
        "t": test.t, "df": test.df, "p_noninferiority": test.p_non_inferiority,
        "p_inferiority": test.p_inferiority, "harm_beyond_margin_upper": test.harm_beyond_margin_upper,
    }))
}

fn two_proportions(input: Input<'_>) -> Computed {
    let value = input.num("value")?;
    let null = input.choice("compare", &[("diff", RateNull::Difference(value)), ("ratio", RateNull::Ratio(value))])?;
    let methods = [
        ("score_mn", RateMethod::MiettinenNurminen),
        ("score_fm", RateMethod::FarringtonManning),
        ("pooled_z", RateMethod::Pooled),
        ("unpooled_z", RateMethod::Unpooled),
        ("wald", RateMethod::Unpooled),
        ("log", RateMethod::Unpooled),
    ];
    let (canary, stable) = (input.rate("k1", "n1")?, input.rate("k2", "n2")?);
    let test = fixed::two_rates(canary, stable, null, input.choice("method", &methods)?, input.alternative()?);
    let test = test.ok_or(CaseError::NoResult)?;
    Ok(json!({"z": test.z, "p": test.p}))
}

fn proportion_ci(input: Input<'_>) -> Computed {
    let (rate, confidence) = (input.rate("k", "n")?, input.num("confidence")?);
    let pair = |interval: Option<(f64, f64)>| interval.map(|(low, high)| [low, high]).ok_or(CaseError::NoResult);
    let (wilson, exact) = (fixed::wilson(rate, confidence), fixed::clopper_pearson(rate, confidence));
    Ok(json!({"wilson": pair(wilson)?, "clopper_pearson": pair(exact)?}))
}

fn newcombe(input: Input<'_>) -> Computed {
    let (canary, stable) = (input.rate("k1", "n1")?, input.rate("k2", "n2")?);
    let (low, high) = fixed::newcombe(canary, stable, input.num("confidence")?).ok_or(CaseError::NoResult)?;
    Ok(json!({"ci": [low, high]}))
}

fn quantile_ci_ranks(input: Input<'_>) -> Computed {
    let ranks = fixed::quantile_rank_interval(input.int("n")?, input.num("p")?, input.num("confidence")?);
    let ranks = ranks.ok_or(CaseError::NoResult)?;
    Ok(json!({"lower_rank": ranks.lower, "upper_rank": ranks.upper, "coverage": ranks.coverage}))
}

fn mcnemar_exact(input: Input<'_>) -> Computed {
    let test = fixed::mcnemar(input.int("b")?, input.int("c")?).ok_or(CaseError::NoResult)?;
    Ok(json!({"p_two_sided": test.p_two_sided, "p_canary_worse": test.p_canary_worse}))
}

fn poisson_ratio_exact(input: Input<'_>) -> Computed {
    let canary = (input.int("k1")?, input.num("exposure1")?);
    let stable = (input.int("k2")?, input.num("exposure2")?);
    let p = fixed::poisson_ratio(canary, stable, input.num("ratio_null")?, input.alternative()?);
    Ok(json!({"p": p.ok_or(CaseError::NoResult)?}))
}

fn p_adjust(input: Input<'_>) -> Computed {
    let (p, alpha) = (input.nums("p")?, input.num("alpha")?);
    // Equal weights that are a power of two, so that dividing by them is exact.
    let holm = |p: &[f64]| weighted_holm_adjusted(&p.iter().map(|&p| (0.0625, p)).collect::<Vec<_>>());
    let bonferroni = |p: &[f64]| p.iter().map(|&one| (one * p.len() as f64).min(1.0)).collect::<Vec<_>>();
    let adjusted = match input.text("method")? {
        "holm" => holm(&p),
        "bh" | "fdr_bh" => bh_adjusted(&p),
        "by" | "fdr_by" => by_adjusted(&p),
        "bonferroni" => bonferroni(&p),
        other => return Err(CaseError::Option { key: "method".to_owned(), value: other.to_owned() }),
    };
    let reject: Vec<bool> = adjusted.iter().map(|&p| p <= alpha).collect();
    Ok(json!({"adjusted": adjusted, "reject": reject}))
}
