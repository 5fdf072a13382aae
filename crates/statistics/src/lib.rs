//! The statistics of Serin: anytime-valid tests of a canary against control, from mergeable summaries.
//!
//! Purpose: decide whether a canary is worse than a margin (FAIL) or proven not to be (PASS) while looking at every window,
//! at every metric and segment, with a false-rollback probability over the whole rollout of at most what was asked for.
//!
//! How: each closed window gives one e-value per hypothesis, exact for any sample sizes and split ([`two_rates`],
//! [`two_means`], [`one_rate`], [`one_mean`], [`counts`]); they multiply into e-processes with restarts ([`Mixture`]); a rollout is rolled
//! back when the weighted average of all of them reaches `1/alpha` ([`ln_weighted_average`]). [`Hypothesis`] ties this
//! together for one metric in one segment. Where a step asks for it, [`PlannedLooks`] decides its PASS instead.
//!
//! Beside it, for people: fixed-horizon tests ([`fixed`]), bands ([`envelope`]), design effects ([`cluster`]), and what a
//! rollout will be able to see before it starts ([`planning`]). None of them decides.
//!
//! Invariants:
//! - Pure: no clock, I/O or random source. Everything that decides uses `libm` only, so equal inputs give equal bits on
//!   every platform; [`fixed`], [`planning`] (but for its bounds of looks) and what else reports through [`laws`] may use `statrs`.
//! - Bets depend on warm-up and earlier windows alone; the current window enters only through its counts.
//! - Nonsense (NaN, an empty arm, an impossible margin) is no evidence or a clear error, never a verdict, never a panic.
//! - Everything sequential is in the log domain; persisted state is finite.
//!
//! Persisting: state is `serde`. JSON must be read with `serde_json`'s `float_roundtrip` to come back bit for bit.

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
    About, Against, ArmEstimate, Effect, Hypothesis, HypothesisSpec, LooksError, LooksPlan, MIN_PAST, MOST_LOOKS,
    Measure, ObserveError, PartEvidence, PlannedLooks, Standing, Stratum, StratumPasts, UnitEvidence,
};
pub use margin::{Direction, Line, Margin, SpecError};
pub use memory::Memory;
pub use mixture::{Mixture, Starts, p_anytime};
pub use past::{FAST_FORGETTING, FORGETTING, PastHist, PastMean, PastRate};
pub use score::{Finding, Score, group_finding, score};
pub use suspects::{closed_e_bh, ln_adjusted_max};
