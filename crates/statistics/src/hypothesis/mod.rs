//! One metric in one segment: its FAIL and PASS e-processes, what it remembers of control, its estimates.
//!
//! FAIL's null is "not worse than the margin, in every window"; PASS's null is "worse by at least the margin". With both an
//! absolute and a relative margin, harm must exceed both: FAIL's null is a union (the smaller process counts), PASS's an
//! intersection (their average counts). For a distribution it is the other way round: any edge that differs fails.

mod effect;
mod past;
mod spec;
mod steps;

pub use effect::{ArmEstimate, Effect};
pub use past::MIN_PAST;
pub use spec::{Against, HypothesisSpec, Measure};

use serde::{Deserialize, Serialize};
use serin_sketches::{Summary, SummaryKind};

use crate::numeric::{ln, ln_sum_exp};
use crate::{Mixture, SpecError, Starts};
use effect::Totalled;
use past::Past;
use spec::Part;
use steps::{Steps, menu, steps};

/// Both arms of one window and generation.
#[derive(Clone, Copy, Debug)]
pub struct Stratum<'a> {
    /// The canary's summary.
    pub canary: &'a Summary,
    /// Control's summary.
    pub control: &'a Summary,
}

/// Why a window was not taken. The hypothesis is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// The window, or a later one, was taken before: it must be multiplied in exactly once, in order.
    #[error("the window that ends at {end} comes after the one at {last} was taken; each counts once, in order")]
    Replayed {
        /// End of the refused window.
        end: i64,
        /// End of the last window taken.
        last: i64,
    },
    /// The summary is not the kind that the measure needs.
    #[error("the hypothesis needs a {expected} summary, not a {found} summary")]
    Kind {
        /// What the measure needs.
        expected: SummaryKind,
        /// What was given.
        found: SummaryKind,
    },
    /// A histogram with another cap.
    #[error("the histogram's cap differs from the hypothesis's cap")]
    Cap,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    part: Part,
    fail: Mixture,
    pass: Mixture,
}

/// The evidence on one hypothesis; persist it with `serde`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    spec: HypothesisSpec,
    pairs: Vec<Pair>,
    past: Past,
    totals: Totalled,
    last_window: Option<i64>,
    windows: u64,
    pass_windows: u64,
    max_ln_e_fail: f64,
}

impl Hypothesis {
    /// A hypothesis without evidence.
    pub fn new(spec: HypothesisSpec) -> Result<Self, SpecError> {
        let mean = matches!(spec.measure, Measure::Mean { .. } | Measure::CappedMean { .. });
        let pair = |part| {
            let (fail, pass) = menu(part, mean);
            Pair { part, fail: Mixture::new(fail), pass: Mixture::new(pass) }
        };
        Ok(Self {
            pairs: spec.parts()?.into_iter().map(pair).collect(),
            past: Past::new(spec.measure),
            totals: Totalled::new(spec.measure),
            spec,
            last_window: None,
            windows: 0,
            pass_windows: 0,
            max_ln_e_fail: 0.0,
        })
    }

    /// What it is about.
    pub fn spec(&self) -> &HypothesisSpec {
        &self.spec
    }

    /// Takes one window of stable traffic before the canary: it only teaches the base rate.
    pub fn observe_warmup(&mut self, control: &Summary) -> Result<(), ObserveError> {
        self.check(control)?;
        self.past.push(&[control]);
        Ok(())
    }

    /// Takes one complete window: one stratum per generation. A window in which an arm has no answers adds no evidence.
    pub fn observe(&mut self, window_end: i64, strata: &[Stratum<'_>]) -> Result<(), ObserveError> {
        if let Some(last) = self.last_window.filter(|&last| window_end <= last) {
            return Err(ObserveError::Replayed { end: window_end, last });
        }
        for stratum in strata {
            self.check(stratum.canary)?;
            self.check(stratum.control)?;
        }
        self.last_window = Some(window_end);
        let one_arm = matches!(self.spec.against, Against::Limit(_));
        let usable = |stratum: &&Stratum<'_>| stratum.canary.n() > 0 && (one_arm || stratum.control.n() > 0);
        let usable: Vec<&Stratum<'_>> = strata.iter().filter(usable).collect();
        if !usable.is_empty() && (one_arm || self.past.suffices()) {
            self.advance(&usable);
        }
        let controls: Vec<&Summary> = strata.iter().map(|stratum| stratum.control).collect();
        self.past.push(&controls);
        Ok(())
    }

    fn advance(&mut self, strata: &[&Stratum<'_>]) {
        self.windows += 1;
        self.pass_windows += 1;
        let fail_gamma = Starts::Restarts { horizon: self.spec.horizon }.gamma(self.windows);
        let pass_gamma = Starts::First.gamma(self.pass_windows);
        for pair in &mut self.pairs {
            let mut sum = Steps::default();
            for stratum in strata {
                sum.add(&steps(pair.part, &self.past, stratum.canary, stratum.control));
            }
            pair.fail.update(fail_gamma, &sum.fail);
            pair.pass.update(pass_gamma, &sum.pass);
        }
        for stratum in strata {
            self.totals.push(&self.past, stratum.canary, stratum.control);
        }
        self.max_ln_e_fail = self.max_ln_e_fail.max(self.ln_e_fail());
    }

    /// Forgets the evidence for PASS: at each traffic step it must be shown again.
    pub fn reset_pass(&mut self) {
        self.pass_windows = 0;
        for pair in &mut self.pairs {
            pair.pass.reset();
        }
    }

    /// `ln E` against "not worse than the margin".
    pub fn ln_e_fail(&self) -> f64 {
        let processes = self.pairs.iter().map(|pair| pair.fail.ln_e());
        if self.spec.measure == Measure::Distribution { ln_mean(processes) } else { smallest(processes) }
    }

    /// The largest [`Self::ln_e_fail`] so far: [`crate::p_anytime`] of it is the anytime p-value.
    pub fn max_ln_e_fail(&self) -> f64 {
        self.max_ln_e_fail
    }

    /// `ln E` against "worse by at least the margin", since the last reset.
    pub fn ln_e_pass(&self) -> f64 {
        let processes = self.pairs.iter().map(|pair| pair.pass.ln_e());
        if self.spec.measure == Measure::Distribution { smallest(processes) } else { ln_mean(processes) }
    }

    /// Estimates of both arms and the effect over the windows that entered.
    pub fn effect(&self) -> Effect {
        self.totals.effect(&self.spec)
    }

    /// Number of windows that entered.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// End of the last window taken (with or without evidence).
    pub fn last_window(&self) -> Option<i64> {
        self.last_window
    }

    /// Whether enough is known of control to bet ([`MIN_PAST`]).
    pub fn is_ready(&self) -> bool {
        matches!(self.spec.against, Against::Limit(_)) || self.past.suffices()
    }

    fn check(&self, summary: &Summary) -> Result<(), ObserveError> {
        let (expected, found) = (self.spec.measure.summary(), summary.kind());
        if expected != found {
            return Err(ObserveError::Kind { expected, found });
        }
        match summary {
            // Caps are log edges: equal ones are equal to the bit.
            Summary::Capped(hist) if hist.cap().to_bits() != self.spec.scale().1.to_bits() => Err(ObserveError::Cap),
            _ => Ok(()),
        }
    }
}

fn smallest(ln_e: impl Iterator<Item = f64>) -> f64 {
    ln_e.fold(f64::INFINITY, f64::min)
}

fn ln_mean(ln_e: impl Iterator<Item = f64> + Clone) -> f64 {
    ln_sum_exp(ln_e.clone()) - ln(ln_e.count() as f64)
}
