//! Tests with a fixed horizon, on summaries: one look at the end of a rollout, for reports and for comparison with other tools.
//!
//! Purpose: the results that a data scientist expects to see next to the sequential verdict. Never use them as a repeated
//! gate: the p-values are valid for a single look only.
//!
//! Convention: the canary comes first (`x`, arm 1), control second (`y`, arm 2).
//!
//! Invariants: pure; counts are exact integers; invalid input (NaN, an empty arm, a level out of range) gives `None`.

mod chi_square;
mod exact;
mod ks;
mod mann_whitney;
mod quantile;
mod rates;
mod welch;

pub use chi_square::{ChiSquare, Homogeneity, goodness_of_fit, homogeneity};
pub use exact::{McNemar, binomial_test, mcnemar, poisson_ratio};
pub use ks::{Ks, KsLaw, ks, ks_binned, ks_exact_is_feasible};
pub use mann_whitney::{MAX_EXACT_PAIRS, MannWhitney, RankLaw, mann_whitney, mann_whitney_binned};
pub use quantile::{QuantileRanks, quantile_rank_interval};
pub use rates::{RateMethod, RateNull, ZTest, clopper_pearson, newcombe, two_rates, wilson};
pub use welch::{NonInferiority, Sample, welch_non_inferiority};

/// The alternative hypothesis of a test, always about the canary (first arm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    /// The canary differs.
    TwoSided,
    /// The canary is smaller.
    Less,
    /// The canary is larger.
    Greater,
}

impl Alternative {
    /// The p-value of a statistic that is standard normal under the null and grows with the canary's value.
    fn p_of_z(self, z: f64) -> f64 {
        use crate::laws::normal_sf;
        match self {
            Self::TwoSided => (2.0 * normal_sf(z.abs())).min(1.0),
            Self::Less => normal_sf(-z),
            Self::Greater => normal_sf(z),
        }
    }
}
