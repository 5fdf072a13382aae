//! The statistics of Serin: anytime-valid tests of a canary against control, from mergeable summaries.
//!
//! Purpose: decide whether a canary is worse than a margin (FAIL) or proven not to be (PASS), while looking at every window,
//! every metric and every segment. The false-rollback probability over the whole rollout is at most the configured one.
//!
//! How it works: each closed window gives one e-value per hypothesis, exact for any sample sizes and split ([`two_rates`], [`two_means`],
//! [`one_rate`], [`one_mean`], [`counts`]). E-values are multiplied into e-processes with restarts ([`Mixture`]). A rollout is rolled
//! back when the weighted average of all e-processes reaches `1/alpha` ([`ln_weighted_average`]). [`Hypothesis`] combines this for one
//! metric in one segment. If a step requests it, [`PlannedLooks`] decides its PASS instead.
//!
//! For reports there are also fixed-horizon tests ([`fixed`]), bands ([`envelope`]), design effects ([`cluster`]), and
//! forecasts of what a rollout will be able to detect before it starts ([`planning`]). None of them decides.
//!
//! Invariants:
//! - Pure: no clock, I/O or random source. Everything that decides uses `libm` only, so equal inputs give equal bits on every platform.
//!   [`fixed`], [`planning`] (except its bounds of looks) and other reports that use [`laws`] may use `statrs`.
//! - Bets depend only on warm-up and earlier windows. The current window enters only through its counts.
//! - Invalid input (NaN, an empty arm, an impossible margin) gives no evidence or a clear error, never a verdict and never a panic.
//! - Everything sequential is computed in the log domain; persisted state is finite.
//!
//! Persistence: state is serialized with `serde`. JSON must be read with `serde_json`'s `float_roundtrip` to restore it bit for bit.

pub mod bets;
pub mod cluster;
mod combine;
pub mod counts;
pub mod envelope;
pub mod fixed;
pub mod fixed_sample;
pub mod handful;
mod hypothesis;
pub mod interval;
pub mod kayenta;
pub mod laws;
mod margin;
mod memory;
mod mixture;
mod numeric;
pub mod one_mean;
pub mod one_rate;
pub mod paired;
mod past;
pub mod planning;
mod score;
mod suspects;
pub mod two_means;
pub mod two_rates;

pub use combine::{
    Scope, bh_adjusted, by_adjusted, e_bh, group_ln_e, ln_weighted_average, rejects, rollback_weights,
    stable_is_out_of_date, weighted_holm, weighted_holm_adjusted,
};
pub use hypothesis::{
    About, Against, ArmEstimate, Effect, Hypothesis, HypothesisSpec, LooksError, LooksPlan, MOST_LOOKS, Measure,
    ObserveError, PartEvidence, PlannedLooks, Robustness, Stratum, StratumPasts, UnitEvidence,
};
pub use margin::{Direction, Line, Margin, SpecError};
pub use memory::{MIN_PAST, Memory};
pub use mixture::{Mixture, Starts, p_anytime};
pub use past::{FAST_FORGETTING, FORGETTING, PastHist, PastMean, PastRate};
pub use score::{Finding, Score, group_finding, score};
pub use suspects::closed_e_bh;
