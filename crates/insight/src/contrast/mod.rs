//! Contrast search: the value of a dimension, or the pair of values of two dimensions, in which the arms differ most.
//!
//! A contrast compares two differences between the arms: the one of the calls with these values, and the one of all other calls. A
//! canary that is worse everywhere therefore has no contrast. The search looks at many contrasts in the same data, and it looks once, at
//! an arbitrary time. So its result is a lead and never a verdict. [`Search::looked`] is the number of contrasts, and
//! [`Contrast::p_corrected`] is corrected for that number (Bonferroni).
//!
//! Sources: single declared segments from the records of `windows` ([`Windows`]); pairs of them, and dimensions that a metric does not
//! declare, from the predictions of `events` ([`Calls`]); fields of requests that the rollout file does not declare, from the records of
//! `captures` ([`Captures`]).

mod calls;
mod captures;
mod places;
mod windows;

use serde::{Deserialize, Serialize};
use serin_schemas::records::Segment;
use serin_sketches::Scatter;
use serin_spec::{MetricKind, MetricSpec};

pub use calls::Calls;
pub use captures::Captures;
pub use windows::Windows;

/// Level of a lead: at most this chance that any of the contrasts is as strong if the arms differ in the same way everywhere.
pub const LEVEL: f64 = 0.05;

/// Most contrasts in an answer.
pub const MOST_SHOWN: usize = 10;

/// Fewest answers on each side of a contrast. With fewer, the normal approximation does not hold.
pub const LEAST: f64 = 30.0;

/// Fewest events (and fewest other answers) in a contrast of shares.
const LEAST_EVENTS: f64 = 5.0;

/// Sums of one measure in both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arms {
    /// The canary's answers.
    pub canary: Scatter,
    /// The control arm's answers.
    pub control: Scatter,
}

impl Arms {
    /// The answers that are in `self` but not in `part`.
    fn without(self, part: Self) -> Self {
        Self { canary: without(self.canary, part.canary), control: without(self.control, part.control) }
    }
}

fn without(whole: Scatter, part: Scatter) -> Scatter {
    Scatter {
        n: (whole.n - part.n).max(0.0),
        sum: whole.sum - part.sum,
        squares: (whole.squares - part.squares).max(0.0),
    }
}

fn add(to: &mut Scatter, value: f64) {
    to.merge(Scatter { n: 1.0, sum: value, squares: value * value });
}

/// What a mean of positions means in the unit of the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Each position is 0 or 1.
    Share,
    /// The position is the value, scaled from this range to `[0, 1]`.
    Range {
        /// Position 0.
        min: f64,
        /// Position 1.
        max: f64,
    },
    /// The position is `ln(1 + value)`.
    Log,
}

impl Scale {
    /// The scale of a metric's values, or of its shares above `threshold`; `None` if its values have no mean that can be compared.
    fn of(metric: &MetricSpec, threshold: Option<f64>) -> Option<Self> {
        match metric.kind {
            MetricKind::Rate => Some(Self::Share),
            MetricKind::Mean { min, max } => Some(Self::Range { min, max }),
            MetricKind::CappedMean { cap } => Some(Self::Range { min: 0.0, max: cap }),
            MetricKind::Count => Some(Self::Range { min: 0.0, max: serin_kinds::MOST_EVENTS }),
            MetricKind::Quantile { .. } if threshold.is_some() => Some(Self::Share),
            MetricKind::Quantile { .. } | MetricKind::Distribution => Some(Self::Log),
            MetricKind::Classes | MetricKind::Disagreement => None,
        }
    }
}

impl Scale {
    /// The value in the unit of the metric.
    fn value(self, position: f64) -> f64 {
        match self {
            Self::Share => position,
            Self::Range { min, max } => min + (max - min) * position,
            Self::Log => libm::expm1(position),
        }
    }

    /// Estimate and variance of the mean of positions. A share is moved to the middle by one event and one other answer (Agresti and
    /// Caffo, 2000), so that a share of 0 has a variance.
    fn mean(self, sums: Scatter) -> Option<(f64, f64)> {
        if sums.n < LEAST {
            return None;
        }
        if self == Self::Share {
            let share = (sums.sum + 1.0) / (sums.n + 2.0);
            return Some((share, share * (1.0 - share) / (sums.n + 2.0)));
        }
        let variance = sums.variance()? * sums.n / (sums.n - 1.0);
        Some((sums.sum / sums.n, variance / sums.n))
    }
}

/// Where the answers of a contrast come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// The records of `windows`.
    Windows,
    /// The predictions of `events`.
    Events,
    /// The records of `captures`. The contrast is between captured pairs of answers that differ and those that agree.
    Captures,
}

/// A contrast to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name of the metric.
    pub metric: String,
    /// What the values are, if they are not the metric's own values.
    pub measure: Option<String>,
    /// One or two values of dimensions.
    pub place: Vec<Segment>,
    /// Where the answers come from.
    pub from: ReadFrom,
    /// The scale of the sums.
    pub scale: Scale,
    /// Whether higher values are worse.
    pub higher_is_worse: bool,
    /// Number of answers that count as one independent answer.
    pub design_effect: f64,
    /// The answers at this place. For captures, `canary` has the pairs and `control` is empty.
    pub inside: Arms,
    /// All other answers.
    pub outside: Arms,
}

/// A mean or share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Number of answers.
    pub n: f64,
    /// The value in the unit of the metric.
    pub value: f64,
}

/// Both arms in one part of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Both {
    /// The canary. For captures: the pairs whose answers differ, among all captured pairs.
    pub canary: Value,
    /// The control arm. `None` for captures.
    pub control: Option<Value>,
}

/// A contrast that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// Name of the metric.
    pub metric: String,
    /// What the values are, if they are not the metric's own values.
    pub measure: Option<String>,
    /// One or two values of dimensions.
    pub place: Vec<Segment>,
    /// Where the answers come from.
    pub from: ReadFrom,
    /// The arms at this place.
    pub here: Both,
    /// The arms in all other calls.
    pub elsewhere: Both,
    /// The difference between both differences, in standard errors. It is positive if the canary is worse here than elsewhere.
    pub z: f64,
    /// Two-sided p of this contrast alone.
    pub p: f64,
    /// `p` times the number of contrasts that were looked at, at most 1 (Bonferroni).
    pub p_corrected: f64,
    /// Whether `p_corrected` is at most [`LEVEL`].
    pub lead: bool,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// Number of contrasts that were looked at.
    pub looked: u64,
    /// Number of contrasts with too few answers to look at.
    pub too_few: u64,
    /// The strongest contrasts in which the canary is worse than elsewhere, strongest first.
    pub strongest: Vec<Contrast>,
}

/// Looks at all candidates and keeps the strongest ones in which the canary is worse than elsewhere.
pub fn search(candidates: impl IntoIterator<Item = Candidate>) -> Search {
    let mut search = Search::default();
    for candidate in candidates {
        let Some(z) = z_of(&candidate) else {
            search.too_few += 1;
            continue;
        };
        search.looked += 1;
        if z > 0.0 {
            let place = search.strongest.partition_point(|other| other.z >= z);
            if place < MOST_SHOWN {
                search.strongest.insert(place, shown(candidate, z));
                search.strongest.truncate(MOST_SHOWN);
            }
        }
    }
    for contrast in &mut search.strongest {
        contrast.p_corrected = (contrast.p * search.looked as f64).min(1.0);
        contrast.lead = contrast.p_corrected <= LEVEL;
    }
    search
}

/// The contrast in standard errors; `None` with too few answers.
fn z_of(candidate: &Candidate) -> Option<f64> {
    let Candidate { scale, inside, outside, .. } = candidate;
    let sides = if candidate.from == ReadFrom::Captures {
        vec![(1.0, inside.canary), (-1.0, outside.canary)]
    } else {
        vec![(1.0, inside.canary), (-1.0, inside.control), (-1.0, outside.canary), (1.0, outside.control)]
    };
    if *scale == Scale::Share {
        let (n, events) = sides.iter().fold((0.0, 0.0), |(n, sum), (_, side)| (n + side.n, sum + side.sum));
        if events < LEAST_EVENTS || n - events < LEAST_EVENTS {
            return None;
        }
    }
    let (mut difference, mut variance) = (0.0, 0.0);
    for (sign, side) in sides {
        let (mean, spread) = scale.mean(side)?;
        difference += sign * mean;
        variance += spread * candidate.design_effect.max(1.0);
    }
    let z = difference / libm::sqrt(variance);
    z.is_finite().then_some(if candidate.higher_is_worse { z } else { -z })
}

fn shown(candidate: Candidate, z: f64) -> Contrast {
    let Candidate { metric, measure, place, from, scale, inside, outside, .. } = candidate;
    let value = |sums: Scatter| Value { n: sums.n, value: scale.value(sums.sum / sums.n) };
    let both = |arms: Arms| Both {
        canary: value(arms.canary),
        control: (from != ReadFrom::Captures).then(|| value(arms.control)),
    };
    let p = libm::erfc(z.abs() / std::f64::consts::SQRT_2);
    let (here, elsewhere) = (both(inside), both(outside));
    Contrast { metric, measure, place, from, here, elsewhere, z, p, p_corrected: 1.0, lead: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(n: f64, events: f64) -> Scatter {
        Scatter { n, sum: events, squares: events }
    }

    fn candidate(name: &str, [canary, control, others, control_others]: [Scatter; 4]) -> Candidate {
        Candidate {
            metric: "failed".to_owned(),
            measure: None,
            place: vec![Segment::of("origin", name)],
            from: ReadFrom::Windows,
            scale: Scale::Share,
            higher_is_worse: true,
            design_effect: 1.0,
            inside: Arms { canary, control },
            outside: Arms { canary: others, control: control_others },
        }
    }

    #[test]
    fn the_strongest_contrast_comes_first_and_its_level_is_corrected() {
        let bad = candidate("LGA", [share(300.0, 60.0), share(3000.0, 30.0), share(700.0, 7.0), share(7000.0, 70.0)]);
        let same = |name: &str| {
            candidate(name, [share(300.0, 4.0), share(3000.0, 30.0), share(700.0, 7.0), share(7000.0, 70.0)])
        };
        let few = candidate("SFO", [share(10.0, 10.0), share(3000.0, 30.0), share(700.0, 7.0), share(7000.0, 70.0)]);
        let found = search(vec![same("JFK"), bad.clone(), few, same("EWR")]);
        assert_eq!((found.looked, found.too_few), (3, 1));
        let first = &found.strongest[0];
        assert_eq!((first.place[0].value.as_str(), first.lead), ("LGA", true));
        assert!((first.p_corrected / first.p - 3.0).abs() < 1e-9, "{first:?}");
        assert!(
            (first.here.canary.value - 0.2).abs() < 1e-9 && first.elsewhere.control.unwrap().n > 6999.0,
            "{first:?}"
        );
        assert!(found.strongest.iter().skip(1).all(|contrast| !contrast.lead), "{found:?}");
        // One answer in ten is independent.
        let clustered = Candidate { design_effect: 10.0, ..bad };
        assert!((z_of(&clustered).unwrap() * libm::sqrt(10.0) - first.z).abs() < 1e-9);
    }

    #[test]
    fn a_canary_that_is_worse_everywhere_has_no_contrast() {
        let found = search([candidate(
            "LGA",
            [share(300.0, 60.0), share(3000.0, 30.0), share(700.0, 140.0), share(7000.0, 70.0)],
        )]);
        assert!(found.strongest.iter().all(|contrast| !contrast.lead && contrast.p > 0.2), "{found:?}");
    }

    #[test]
    fn a_contrast_in_the_good_direction_counts_but_is_not_shown() {
        let better =
            candidate("LGA", [share(300.0, 0.0), share(3000.0, 300.0), share(700.0, 70.0), share(7000.0, 700.0)]);
        assert_eq!(search([better.clone()]), Search { looked: 1, ..Search::default() });
        let worse = search([Candidate { higher_is_worse: false, ..better }]);
        assert!(worse.strongest[0].lead, "{worse:?}");
    }

    /// Equal arms: the chance of any lead is at most the level, for rare events too.
    #[test]
    fn equal_arms_give_few_leads() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = serin_sketches::hash::hash64(b"contrast", &state.to_le_bytes());
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for rate in [0.01, 0.1, 0.5] {
            let mut leads = 0;
            for _ in 0..200 {
                let mut draw =
                    |n: u32| share(f64::from(n), (0..n).map(|_| f64::from(u8::from(uniform() < rate))).sum());
                let candidates: Vec<Candidate> =
                    (0..5).map(|_| candidate("x", [draw(60), draw(200), draw(200), draw(600)])).collect();
                leads += usize::from(search(candidates).strongest.iter().any(|contrast| contrast.lead));
            }
            // The level is 5 % for both directions together.
            assert!(leads <= 12, "{leads} of 200 at {rate}");
        }
    }
}
