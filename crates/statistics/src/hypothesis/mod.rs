//! One metric in one segment: its FAIL and PASS e-processes, its memory of control and its estimates.
//!
//! FAIL's null is "not worse than the margin, in every window"; PASS's null is "worse by at least the margin". With an
//! absolute and a relative margin, harm must exceed both: FAIL's null is a union (the smaller process counts), PASS's an
//! intersection (their average counts). For a distribution or a mix of classes it is the other way round: any level or class
//! that differs fails (the average counts), and all must pass (the smallest process counts).

mod classes;
mod counts;
mod effect;
mod looks;
mod parts;
mod past;
mod spec;
mod steps;
mod strata;
mod units;
mod view;

pub use effect::{ArmEstimate, Effect};
pub use looks::{LooksError, LooksPlan, MOST_LOOKS, PlannedLooks};
pub use parts::{About, PartEvidence};
pub use spec::{Against, HypothesisSpec, Measure};
pub use strata::StratumPasts;
pub use units::{Robustness, UnitEvidence};

use serde::{Deserialize, Serialize};
use serin_sketches::{Summary, SummaryKind};

use crate::numeric::{ln, ln_sum_exp};
use crate::{Mixture, SpecError, Starts};
use classes::Newcomers;
use effect::Totalled;
use past::Past;
use spec::Part;
use steps::{Steps, menu, steps};
use view::View;

/// Both arms of one window and generation.
#[derive(Clone, Copy, Debug)]
pub struct Stratum<'a> {
    /// The canary's summary.
    pub canary: &'a Summary,
    /// Control's summary. It is ignored against a limit. For pairs, whose summary covers both arms, pass any summary of the same kind.
    pub control: &'a Summary,
}

/// Why a window was refused. The hypothesis is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// This window or a later one was already observed. Each window must be observed exactly once, in order.
    #[error(
        "the window that ends at {end} was observed after the window that ends at {last}; windows must be observed once, in order"
    )]
    Replayed {
        /// End of the refused window.
        end: i64,
        /// End of the last observed window.
        last: i64,
    },
    /// The summary is not of the kind that the measure needs.
    #[error("the hypothesis needs a {expected} summary, not a {found} summary")]
    Kind {
        /// The kind that the measure needs.
        expected: SummaryKind,
        /// The kind that was given.
        found: SummaryKind,
    },
    /// The histogram has another cap.
    #[error("the histogram's cap differs from the hypothesis's cap")]
    Cap,
}

/// What a measure reads from both arms of a stratum.
type Views<'a> = (View<'a>, View<'a>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    part: Part,
    fail: Mixture,
    pass: Mixture,
    /// Whether the canary could break the margin at all in this part, as of the last window.
    room: bool,
}

impl Pair {
    fn new(part: Part, measure: Measure) -> Self {
        let (fail, pass) = menu(part, measure.is_mean());
        Self { part, fail: Mixture::new(fail), pass: Mixture::new(pass), room: false }
    }
}

/// The evidence about one hypothesis; persist it with `serde`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    spec: HypothesisSpec,
    pairs: Vec<Pair>,
    newcomers: Newcomers,
    past: Past,
    totals: Totalled,
    last_window: Option<i64>,
    windows: u64,
    pass_windows: u64,
    max_ln_e_fail: f64,
    /// Design effect that divides the evidence of future windows.
    phi: f64,
    /// Whether PASS may rest on the end of the metric's range; see [`Self::without_ends`].
    #[serde(skip, default = "yes")]
    ends: bool,
}

const fn yes() -> bool {
    true
}

impl Hypothesis {
    /// Creates a hypothesis without evidence.
    pub fn new(spec: HypothesisSpec) -> Result<Self, SpecError> {
        Ok(Self {
            pairs: spec.parts()?.into_iter().map(|part| Pair::new(part, spec.measure)).collect(),
            newcomers: Newcomers::default(),
            past: Past::new(spec.measure),
            totals: Totalled::new(spec.measure),
            spec,
            last_window: None,
            windows: 0,
            pass_windows: 0,
            max_ln_e_fail: 0.0,
            phi: 1.0,
            ends: true,
        })
    }

    /// Makes PASS depend on the margin alone, for rollouts under rules that did so. If control's value minus the margin is
    /// beyond the end of the metric's range, no canary can be that bad, and PASS is then never shown. Not persisted.
    pub fn without_ends(&mut self) {
        self.ends = false;
    }

    /// Whether PASS may rest on the end of the metric's range.
    pub fn has_ends(&self) -> bool {
        self.ends
    }

    /// The specification of the hypothesis.
    pub fn spec(&self) -> &HypothesisSpec {
        &self.spec
    }

    /// Takes one window of stable traffic from before the canary. It only informs the base rate.
    pub fn observe_warmup(&mut self, control: &Summary) -> Result<(), ObserveError> {
        self.check(control)?;
        let view = self.past.view(self.spec.measure, control);
        self.past.push([&view].into_iter());
        Ok(())
    }

    /// Divides the evidence of all later windows by `phi`, the design effect of clustered units (section "clusters" of the
    /// specification). Use the larger one of both arms, computed from windows before the next one. Values below 1 (or not a
    /// number) count as 1.
    pub fn temper(&mut self, phi: f64) {
        self.phi = if phi >= 1.0 && phi.is_finite() { phi } else { 1.0 };
    }

    /// Takes one complete window, with one stratum per generation. A window in which an arm has no answers adds no evidence.
    pub fn observe(&mut self, window_end: i64, strata: &[Stratum<'_>]) -> Result<(), ObserveError> {
        self.take(window_end, strata, |_| None)
    }

    /// Takes one complete window that is stratified further, for example by segment. The e-value of the window is the
    /// product over the strata, so a mix that differs between the arms does not count as a difference. The null is then "not
    /// worse than the margin, in every stratum" (for PASS "worse by at least the margin, in every one"). `places` selects
    /// the past on which each stratum's bets rest; each place must occur in one stratum per generation.
    pub fn observe_by(
        &mut self,
        window_end: i64,
        strata: &[Stratum<'_>],
        places: &[usize],
        pasts: &mut StratumPasts,
    ) -> Result<(), ObserveError> {
        self.take(window_end, strata, |index| pasts.ready(*places.get(index)?))?;
        for (place, summaries) in strata::by_place(strata, places) {
            pasts.push(self.spec.measure, place, &summaries);
        }
        Ok(())
    }

    /// `past_of` returns the past on which the bets of a stratum (by its index) rest, if it is not the common past.
    fn take<'p>(
        &mut self,
        window_end: i64,
        strata: &[Stratum<'_>],
        past_of: impl Fn(usize) -> Option<&'p Past>,
    ) -> Result<(), ObserveError> {
        if let Some(last) = self.last_window.filter(|&last| window_end <= last) {
            return Err(ObserveError::Replayed { end: window_end, last });
        }
        for stratum in strata {
            self.check(stratum.canary)?;
            self.check(stratum.control)?;
        }
        self.last_window = Some(window_end);
        let one_arm = self.spec.one_arm();
        let usable = |stratum: &Stratum<'_>| stratum.canary.n() > 0 && (one_arm || stratum.control.n() > 0);
        let evidence = self.is_ready() && strata.iter().any(usable);
        if evidence {
            self.fix_classes();
        }
        let view = |summary| self.past.view(self.spec.measure, summary);
        let views: Vec<Views<'_>> = strata.iter().map(|one| (view(one.canary), view(one.control))).collect();
        if evidence {
            let usable = strata.iter().zip(&views).enumerate().filter(|(_, (stratum, _))| usable(stratum));
            self.advance(&usable.map(|(index, (_, views))| (views, past_of(index))).collect::<Vec<_>>());
            if let Past::Classes(past) = &self.past {
                self.newcomers.appear(past, &views);
            }
        }
        // Against a limit (and for pairs), the past is that of the canary itself.
        self.past.push(views.iter().map(|(canary, control)| if one_arm { canary } else { control }));
        Ok(())
    }

    /// Fixes the classes that are tested by name, before the first evidence about a mix of classes.
    fn fix_classes(&mut self) {
        if let (Past::Classes(past), true) = (&mut self.past, self.pairs.is_empty()) {
            let parts = self.spec.class_parts(past.fix_named());
            self.pairs = parts.into_iter().map(|part| Pair::new(part, self.spec.measure)).collect();
        }
    }

    /// Adds the evidence of strata, each with the past on which its bets rest, if it is not the common past.
    fn advance(&mut self, strata: &[(&Views<'_>, Option<&Past>)]) {
        self.windows += 1;
        self.pass_windows += 1;
        let fail_gamma = Starts::Restarts { horizon: self.spec.horizon }.gamma(self.windows);
        let pass_gamma = Starts::First.gamma(self.pass_windows);
        for pair in &mut self.pairs {
            let mut sum = Steps::default();
            for ((canary, control), own) in strata {
                sum.add(&steps(pair.part, own.unwrap_or(&self.past), canary, control, self.ends));
            }
            sum.temper(self.phi);
            pair.room = sum.room;
            pair.fail.update(fail_gamma, &sum.fail);
            pair.pass.update(pass_gamma, &sum.pass);
        }
        if let Past::Classes(past) = &self.past {
            let views: Vec<&Views<'_>> = strata.iter().map(|(views, _)| *views).collect();
            self.newcomers.advance(past, &views, self.spec.horizon, self.phi);
        }
        for (views, own) in strata {
            self.totals.push(&self.spec, own.unwrap_or(&self.past), views, self.phi);
        }
        self.max_ln_e_fail = self.max_ln_e_fail.max(self.ln_e_fail());
    }

    /// Discards the evidence for PASS, which must be shown again at each traffic step.
    pub fn reset_pass(&mut self) {
        self.pass_windows = 0;
        for pair in &mut self.pairs {
            pair.pass.reset();
        }
    }

    /// `ln E` against "not worse than the margin".
    pub fn ln_e_fail(&self) -> f64 {
        let processes = self.pairs.iter().map(|pair| pair.fail.ln_e());
        match self.spec.measure {
            // Half of the budget is for classes that are new to the canary.
            Measure::Classes => ln_mean([ln_mean(processes), self.newcomers.ln_e()].into_iter()),
            Measure::Distribution => ln_mean(processes),
            _ => smallest(processes),
        }
    }

    /// The largest [`Self::ln_e_fail`] so far. [`crate::p_anytime`] converts it to the anytime p-value.
    pub fn max_ln_e_fail(&self) -> f64 {
        self.max_ln_e_fail
    }

    /// `ln E` against "worse by at least the margin", since the last reset.
    pub fn ln_e_pass(&self) -> f64 {
        if self.spec.measure.has_many_parts() {
            smallest(self.pairs.iter().filter(|pair| pair.room).map(|pair| pair.pass.ln_e()))
        } else {
            ln_mean(self.pairs.iter().map(|pair| pair.pass.ln_e()))
        }
    }

    /// Estimates of both arms and the effect over the windows that entered.
    pub fn effect(&self) -> Effect {
        self.totals.effect(&self.spec, self.culprit())
    }

    /// Gives an effect that has no interval yet a wider one, which holds from the first answer on.
    pub fn bound_early(&self, effect: &mut Effect) {
        self.totals.bound_early(&self.spec, effect);
    }

    /// The largest difference, over all thresholds, between the share of the canary's values above the threshold and control's share: the
    /// one-sided Kolmogorov-Smirnov distance. For quantiles and distributions; 0 if the canary's values are nowhere larger.
    pub fn excess(&self) -> Option<f64> {
        self.totals.excess()
    }

    /// Estimates for these summaries alone, without intervals.
    pub fn effect_of(&self, canary: &Summary, control: &Summary) -> Effect {
        let view = |summary| self.past.view(self.spec.measure, summary);
        let mut totals = Totalled::new(self.spec.measure);
        totals.push(&self.spec, &self.past, &(view(canary), view(control)), 1.0);
        Effect { low: None, high: None, better: false, ..totals.effect(&self.spec, self.culprit()) }
    }

    /// How far an effect is beyond the margin or the limit on the bad side; at or below 0 it is not beyond. `None` if there is no effect.
    pub fn beyond(&self, effect: &Effect) -> Option<f64> {
        let worse = match self.spec.measure {
            Measure::Distribution | Measure::Classes => effect.difference?.abs(),
            _ => self.spec.direction.sign() * effect.difference?,
        };
        Some(worse - effect.margin.unwrap_or(0.0))
    }

    /// Narrows the interval of an effect by what a PASS shows: the canary is not worse by the margin, or not beyond the PASS limit. If
    /// the whole interval is beyond that (either can be wrong, within its error rate), it is reduced to the border.
    pub fn bound_by_pass(&self, effect: &mut Effect) {
        let (below, above) = match (self.spec.against, self.spec.measure) {
            (Against::Limit { pass, fail }, _) if self.spec.direction.sign() > 0.0 => (None, Some(pass - fail)),
            (Against::Limit { pass, fail }, _) => (Some(pass - fail), None),
            // A change in either direction counts, so a margin below 0 leaves no room.
            (_, Measure::Classes) => {
                let margin = effect.margin.map(|margin| margin.max(0.0));
                (margin.map(|margin| -margin), margin)
            }
            _ if self.spec.direction.sign() > 0.0 => (None, effect.margin),
            _ => (effect.margin.map(|margin| -margin), None),
        };
        let within = |end: f64| {
            let end = below.map_or(end, |below| end.max(below));
            above.map_or(end, |above| end.min(above))
        };
        effect.low = effect.low.map(within).or(below);
        effect.high = effect.high.map(within).or(above);
    }

    /// Narrows the interval of an effect by what a FAIL shows: the canary is worse by the margin, or beyond the FAIL limit.
    /// It does so only if the estimate over all windows agrees, because a failure may be about some windows only.
    pub fn bound_by_fail(&self, effect: &mut Effect) {
        if self.beyond(effect).is_none_or(|by| by <= 0.0) {
            return;
        }
        let margin = effect.margin.unwrap_or(0.0);
        let upwards = match self.spec.measure {
            Measure::Distribution => true,
            Measure::Classes => effect.difference.is_some_and(|difference| difference > 0.0),
            _ => self.spec.direction.sign() > 0.0,
        };
        if upwards {
            effect.low = Some(effect.low.map_or(margin, |low| low.max(margin)));
            effect.high = effect.high.map(|high| high.max(margin));
        } else {
            effect.high = Some(effect.high.map_or(-margin, |high| high.min(-margin)));
            effect.low = effect.low.map(|low| low.min(-margin));
        }
    }

    /// Number of windows that entered.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// End of the last observed window, with or without evidence.
    pub fn last_window(&self) -> Option<i64> {
        self.last_window
    }

    /// Whether enough is known about control to bet ([`crate::MIN_PAST`]).
    pub fn is_ready(&self) -> bool {
        self.spec.one_arm() || self.spec.measure == Measure::Count || self.past.suffices()
    }

    fn check(&self, summary: &Summary) -> Result<(), ObserveError> {
        let (expected, found) = (self.spec.measure.summary(), summary.kind());
        if expected != found {
            return Err(ObserveError::Kind { expected, found });
        }
        match summary {
            // Caps are log edges, so equal caps are equal bit for bit.
            Summary::Capped(hist) if Some(hist.cap().to_bits()) != self.spec.measure.cap().map(f64::to_bits) => {
                Err(ObserveError::Cap)
            }
            _ => Ok(()),
        }
    }
}

/// The smallest value; 0 (no evidence) if there is none.
fn smallest(ln_e: impl Iterator<Item = f64>) -> f64 {
    ln_e.reduce(f64::min).unwrap_or(0.0)
}

/// `ln` of the average; 0 (no evidence) if there is none.
fn ln_mean(ln_e: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = ln_e.clone().count();
    if count == 0 { 0.0 } else { ln_sum_exp(ln_e) - ln(count as f64) }
}
