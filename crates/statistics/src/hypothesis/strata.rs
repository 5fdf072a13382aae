//! Control's past per stratum, for windows that are stratified further than by generation ([`super::Hypothesis::observe_by`]).
//!
//! With a common past, the bets of a segment with half the base rate would expect the average rate and lose. The pasts are
//! kept separate from the hypothesis, so that hypotheses without strata do not change.

use serde::{Deserialize, Serialize};
use serin_sketches::Summary;

use super::past::Past;
use super::spec::Measure;
use super::view::View;
use super::{Hypothesis, ObserveError, Stratum};

/// Control's past per stratum; see the module documentation. It is bounded: strata from [`Self::MOST`] on use the common past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StratumPasts(Vec<Past>);

impl StratumPasts {
    /// Largest number of strata that have a separate past.
    pub const MOST: usize = 101;

    /// The past of a stratum, once it is large enough to bet on. Until then the common past is used.
    pub(super) fn ready(&self, place: usize) -> Option<&Past> {
        self.0.get(place).filter(|past| past.suffices())
    }

    /// Adds one window of a stratum, with all its generations.
    pub(super) fn push(&mut self, measure: Measure, place: usize, summaries: &[&Summary]) {
        if place >= Self::MOST {
            return;
        }
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || Past::new(measure));
        }
        let views: Vec<View<'_>> = summaries.iter().map(|summary| self.0[place].view(measure, summary)).collect();
        self.0[place].push(views.iter());
    }
}

impl Hypothesis {
    /// Takes one stratum's window of stable traffic from before the canary, like [`Self::observe_warmup`] does for the common past.
    pub fn warm_up_stratum(
        &self,
        place: usize,
        control: &Summary,
        pasts: &mut StratumPasts,
    ) -> Result<(), ObserveError> {
        self.check(control)?;
        pasts.push(self.spec.measure, place, &[control]);
        Ok(())
    }
}

/// Control's summaries of each place, in the order in which places first occur.
pub(super) fn by_place<'a>(strata: &[Stratum<'a>], places: &[usize]) -> Vec<(usize, Vec<&'a Summary>)> {
    let mut by_place: Vec<(usize, Vec<&Summary>)> = Vec::new();
    for (stratum, &place) in strata.iter().zip(places) {
        match by_place.iter_mut().find(|known| known.0 == place) {
            Some(known) => known.1.push(stratum.control),
            None => by_place.push((place, vec![stratum.control])),
        }
    }
    by_place
}
