//! How one version's answers are distributed, metric by metric, as far as the metric's own number says.
//!
//! The laws are those of `serin_kinds`. A mix of classes has five, its number is the share of the first. The answers of mirrored calls
//! differ at random. Values are drawn from tables of some thousand cells.

use serin_kinds::{CLASS_COUNT, CONCENTRATION, SIGMA};
use serin_sketches::{Pair, Summary};
use serin_spec::{MetricKind, MetricSpec, Rules};
use serin_statistics::laws::{normal_isf, normal_sf};

use super::dice::{Dice, Table};

/// Cells of a table of values.
const CELLS: usize = 4096;
/// Most events per answer: beyond, `exp(-mean)` is 0.
const MOST_EVENTS: f64 = 500.0;
/// Normal scores beyond which nothing is drawn.
const REACH: f64 = 5.0;

/// Classes of a mix; the first is the one whose share changes.
const CLASSES: [&str; CLASS_COUNT] = ["class-1", "class-2", "class-3", "class-4", "class-5"];

/// How answers are distributed.
#[derive(Clone, Debug)]
pub(crate) enum Law {
    /// Something is true for this share of the answers.
    Rate(f64),
    /// Values with probabilities, as a summary takes them.
    Values(Vec<f64>, Table),
}

/// Why a metric's number cannot be what was asked for; `None`: it can.
pub(crate) fn impossible(metric: &MetricSpec, value: f64) -> Option<String> {
    let (delay, maturity) = (metric.source.is_delay(), metric.maturity);
    if delay && value > maturity.0.as_secs_f64() {
        return Some(format!(
            "{value} is later than labels are waited for ({maturity}): the delay of labels is a plain number of seconds"
        ));
    }
    match metric.kind {
        MetricKind::Rate | MetricKind::Classes | MetricKind::Disagreement => {
            (!(0.0..=1.0).contains(&value)).then(|| format!("{value} is no share: it must lie between 0 and 1"))
        }
        MetricKind::Mean { min, max } => (!(value > min && value < max))
            .then(|| format!("{value} is no mean of values from {min} to {max}: it must lie between them")),
        MetricKind::Count => {
            (!(0.0..=MOST_EVENTS).contains(&value)).then(|| format!("{value} is no number of events per answer"))
        }
        MetricKind::Quantile { .. } | MetricKind::Distribution | MetricKind::CappedMean { .. } => {
            (value <= 0.0).then(|| format!("{value} is not possible: it must be above 0"))
        }
    }
}

/// The law under which the metric's number is `value`. `tail`: only this share of the answers is slower than under `base`.
pub(crate) fn law(metric: &MetricSpec, base: f64, value: f64, tail: Option<f64>) -> Law {
    match metric.kind {
        MetricKind::Rate => Law::Rate(value),
        MetricKind::Mean { min, max } => beta((value - min) / (max - min)),
        MetricKind::Quantile { level } => match tail {
            None => log_normal(level, value, None),
            Some(share) => log_normal(level, base, Some((share, slow_factor(level, value / base, share)))),
        },
        MetricKind::Distribution => log_normal(0.5, value, None),
        MetricKind::CappedMean { .. } => log_normal(0.5, value * (-0.5 * SIGMA * SIGMA).exp(), None),
        MetricKind::Classes => {
            let rest = (1.0 - value) / (CLASSES.len() - 1) as f64;
            let shares: Vec<f64> = (0..CLASSES.len()).map(|class| if class == 0 { value } else { rest }).collect();
            Law::Values((0..CLASSES.len()).map(|class| class as f64).collect(), Table::new(&shares))
        }
        MetricKind::Count => poisson(value),
        MetricKind::Disagreement => Law::Values(vec![0.0, 1.0], Table::new(&[1.0 - value, value])),
    }
}

/// Events per answer.
fn poisson(mean: f64) -> Law {
    let most = (mean + 12.0 * mean.sqrt() + 12.0).ceil() as usize;
    let mut weight = (-mean).exp();
    let weights: Vec<f64> = (1..=most)
        .map(|next| {
            let own = weight;
            weight *= mean / next as f64;
            own
        })
        .collect();
    Law::Values((0..most).map(|events| events as f64).collect(), Table::new(&weights))
}

/// A beta law with this mean.
fn beta(mean: f64) -> Law {
    let (a, b) = (CONCENTRATION * mean, CONCENTRATION * (1.0 - mean));
    let values: Vec<f64> = (0..CELLS).map(|cell| (cell as f64 + 0.5) / CELLS as f64).collect();
    let ln: Vec<f64> = values.iter().map(|x| (a - 1.0) * x.ln() + (b - 1.0) * (1.0 - x).ln()).collect();
    let largest = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = ln.iter().map(|ln| (ln - largest).exp()).collect();
    // Extreme means pile up in the first or last cell: what the cells get wrong is put right from the other end.
    let seen = values.iter().zip(&weights).map(|(x, weight)| x * weight).sum::<f64>() / weights.iter().sum::<f64>();
    let right = |x: f64| if mean > 0.5 { 1.0 - (1.0 - x) * (1.0 - mean) / (1.0 - seen) } else { x * mean / seen };
    let values = values.iter().map(|x| right(*x).clamp(0.0, 1.0)).collect();
    Law::Values(values, Table::new(&weights))
}

/// A log-normal law whose `level`-quantile is `at`. `slow`: a share of the answers takes this many times as long.
fn log_normal(level: f64, at: f64, slow: Option<(f64, f64)>) -> Law {
    let z_level = normal_isf(1.0 - level);
    let width = 2.0 * REACH / CELLS as f64;
    let scores: Vec<f64> = (0..CELLS).map(|cell| (cell as f64 + 0.5) * width - REACH).collect();
    let quick = scores.iter().map(|z| at * (SIGMA * (z - z_level)).exp());
    let weights = scores.iter().map(|z| (-0.5 * z * z).exp());
    let Some((share, factor)) = slow else {
        return Law::Values(quick.collect(), Table::new(&weights.collect::<Vec<_>>()));
    };
    let values = quick.clone().chain(quick.map(|value| value * factor)).collect();
    let weights: Vec<f64> = weights.clone().map(|w| w * (1.0 - share)).chain(weights.map(|w| w * share)).collect();
    Law::Values(values, Table::new(&weights))
}

/// How many times as long a slow share must take for the quantile to grow by `growth`.
fn slow_factor(level: f64, growth: f64, share: f64) -> f64 {
    let score = normal_isf(1.0 - level) + growth.ln() / SIGMA;
    let above = |factor: f64| {
        let slow = normal_sf(score - factor.ln() / SIGMA);
        (1.0 - share) * normal_sf(score) + share * slow
    };
    let (mut low, mut high) = (1.0, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if above(middle) < 1.0 - level { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Whether a slow share can move the quantile at all: it must hold more than what lies above it.
pub(crate) fn tail_can_move(level: f64, share: f64) -> bool {
    share > 1.0 - level
}

/// An empty summary for a metric.
pub(crate) fn empty(metric: &MetricSpec) -> Summary {
    metric.kind.empty(Rules::CURRENT.count_by_value())
}

/// Adds one value to the summary that counts it. Values of a law fit their summary, and counts stay far below 2^53.
pub(crate) fn insert(into: &mut Summary, value: f64, dice: &mut Dice) {
    let _ = match into {
        Summary::Lin(hist) => hist.insert(value, dice.bits()),
        Summary::Log(hist) => hist.insert(value),
        Summary::Capped(hist) => hist.insert(value, dice.bits()),
        Summary::Classes(counts) => counts.insert(CLASSES.get(value as usize).copied().unwrap_or_default()),
        Summary::Pairs(pairs) => pairs.insert(Pair::Same(value == 0.0)),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(law: &Law, n: usize) -> Vec<f64> {
        let Law::Values(values, table) = law else { panic!("values") };
        let mut dice = Dice::of(1, 0);
        let mut drawn: Vec<f64> = (0..n).map(|_| values[dice.case(table)]).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn a_mean_is_what_was_asked_for() {
        for mean in [0.05, 0.5, 0.8, 0.97] {
            let drawn = draws(&beta(mean), 200_000);
            let seen = drawn.iter().sum::<f64>() / 200_000.0;
            let sd = (mean * (1.0 - mean) / 11.0).sqrt();
            assert!((seen - mean).abs() < 5.0 * sd / 200_000_f64.sqrt(), "{mean}: {seen}");
        }
    }

    #[test]
    fn a_quantile_is_what_was_asked_for_by_scaling_and_by_a_slow_path() {
        let p99 = |law: &Law| draws(law, 400_000)[396_000];
        assert!((p99(&log_normal(0.99, 100.0, None)) / 100.0 - 1.0).abs() < 0.02);
        let factor = slow_factor(0.99, 1.5, 0.03);
        assert!((p99(&log_normal(0.99, 100.0, Some((0.03, factor)))) / 150.0 - 1.0).abs() < 0.02, "{factor}");
        assert!(tail_can_move(0.99, 0.03) && !tail_can_move(0.99, 0.005));
    }
}
