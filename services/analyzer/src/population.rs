//! Whether both arms see the same population: the sample ratio in each segment value, and the mix of values in each dimension.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, Segment},
};
use serin_sketches::{ClassCounts, Summary};
use serin_statistics::{
    Against, Direction, Hypothesis, HypothesisSpec, Margin, Measure, Stratum,
    counts::{SPLIT_CONCENTRATION, splits_ln_e},
    rejects,
};

use crate::{
    arms::{ALPHA, Compared, Shares},
    plan::Plan,
};

/// Differences of a value's shares up to this are not findings.
const MIX_MARGIN: f64 = 0.01;

/// Counts of both arms per segment value within a step, compared with the configured split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Splits {
    step: i32,
    shares: Option<Shares>,
    values: BTreeMap<Segment, [u64; 2]>,
    broken: Option<(EventTime, Segment)>,
}

impl Splits {
    /// Adds one stratum of a window.
    pub(crate) fn add(&mut self, plan: &Plan, end: EventTime, stratum: &Compared<'_>) {
        if self.step != stratum.step || self.shares != Some(stratum.shares) {
            *self = Self { step: stratum.step, shares: Some(stratum.shares), ..Self::default() };
        }
        for (place, arm) in [Arm::Canary, Arm::Control].into_iter().enumerate() {
            for (segment, predictions) in of_arm(stratum, arm) {
                let counts = self.values.entry(segment.clone()).or_default();
                counts[place] = counts[place].saturating_add(predictions);
            }
        }
        if self.broken.is_some() {
            return;
        }
        // Every frozen value has its part of the bet, whether it was seen or not: the list must not depend on the counts.
        let values = plan.values();
        let counts: Vec<[u64; 2]> =
            values.iter().map(|&segment| self.values.get(segment).copied().unwrap_or_default()).collect();
        let weights = [f64::from(stratum.shares.canary), f64::from(stratum.shares.control)];
        let (ln_e, worst) = splits_ln_e(&counts, weights, SPLIT_CONCENTRATION);
        if let (true, Some(worst)) = (rejects(ln_e, ALPHA), worst) {
            self.broken = values.into_iter().nth(worst).map(|segment| (end, segment.clone()));
        }
    }

    /// Since when and in which segment the split of the current step is broken, with canary's and control's answers there.
    pub(crate) fn broken(&self, step: i32) -> Option<(EventTime, &Segment, [u64; 2])> {
        let (at, segment) = self.broken.as_ref().filter(|_| self.step == step)?;
        Some((*at, segment, self.values.get(segment).copied().unwrap_or_default()))
    }
}

/// The mix of one dimension's values in both arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mix {
    test: Hypothesis,
    /// The value that differs, with canary's and control's share.
    found: Option<(String, f64, f64)>,
}

/// The mixes of all dimensions within a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixes {
    dimensions: BTreeMap<String, Mix>,
}

impl Mixes {
    /// Adds one window, as its strata by generation.
    pub(crate) fn observe(&mut self, plan: &Plan, end: EventTime, strata: &[Compared<'_>]) {
        let dimensions: std::collections::BTreeSet<&str> =
            plan.values().into_iter().map(|segment| segment.dimension.as_str()).collect();
        let alpha = ALPHA / dimensions.len().max(1) as f64;
        for dimension in dimensions {
            let windows: Vec<(Summary, Summary)> = strata
                .iter()
                .map(|stratum| (mix_of(stratum, stratum.trial, dimension), mix_of(stratum, Arm::Control, dimension)))
                .collect();
            let Some(mix) = self.mix(plan, dimension) else { continue };
            let strata: Vec<Stratum<'_>> =
                windows.iter().map(|(canary, control)| Stratum { canary, control }).collect();
            // The only possible error is a window out of order, and windows are taken in order.
            if mix.test.observe(end.0, &strata).is_err() || mix.found.is_some() || !rejects(mix.test.ln_e_fail(), alpha)
            {
                continue;
            }
            let effect = mix.test.effect();
            mix.found = Some((
                mix.test.culprit().unwrap_or("some value").to_owned(),
                effect.canary.value.unwrap_or_default(),
                effect.control.value.unwrap_or_default(),
            ));
        }
    }

    fn mix(&mut self, plan: &Plan, dimension: &str) -> Option<&mut Mix> {
        if !self.dimensions.contains_key(dimension) {
            let spec = HypothesisSpec {
                measure: Measure::Classes,
                direction: Direction::LowerIsBetter,
                against: Against::Control(Margin::absolute(MIX_MARGIN)),
                horizon: plan.horizon(),
                interval_alpha: ALPHA,
            };
            let test = Hypothesis::new(spec).ok()?;
            self.dimensions.insert(dimension.to_owned(), Mix { test, found: None });
        }
        self.dimensions.get_mut(dimension)
    }

    /// The differences that are known: dimension, value, canary's share and control's share.
    pub(crate) fn different(&self) -> impl Iterator<Item = (&str, &str, f64, f64)> {
        let found = self.dimensions.iter().filter_map(|(name, mix)| Some((name, mix.found.as_ref()?)));
        found.map(|(name, (value, canary, control))| (name.as_str(), value.as_str(), *canary, *control))
    }
}

fn of_arm<'a>(stratum: &Compared<'a>, arm: Arm) -> impl Iterator<Item = (&'a Segment, u64)> {
    let all = (arm, Segment::all());
    let own = stratum.window.population.range(all..).take_while(move |((of, _), _)| *of == arm);
    own.map(|((_, segment), &predictions)| (segment, predictions))
}

fn mix_of(stratum: &Compared<'_>, arm: Arm, dimension: &str) -> Summary {
    let own = of_arm(stratum, arm).filter(|(segment, _)| segment.dimension == dimension);
    Summary::Classes(own.fold(ClassCounts::default(), |mut counts, (segment, predictions)| {
        // Counts that would overflow are left out of the check.
        let _ = counts.insert_many(&segment.value, predictions);
        counts
    }))
}
