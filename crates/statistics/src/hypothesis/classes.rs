//! A mix of classes: which classes are tested by name, and classes that are new to the canary.
//!
//! The named classes are fixed at the first window of evidence: those with at least 0.5 % of control's past, at most 32. All
//! others are pooled. This choice and every bet use only earlier windows.
//!
//! A class that control never had, neither in the past nor in the same window, is a *newcomer*. From the next window on it is tested
//! alone against "not more frequent than in control". The k-th newcomer gets a share of `1/(k(k+1))` of half of the evidence's budget.
//! Its start time depends only on the past and it starts with `E = 1`, so the average is still an e-process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_sketches::{ClassCounts, Rate};

use super::Views;
use super::view::View;
use crate::bets::{NEWCOMER_MULTIPLIERS, newcomer_bets};
use crate::numeric::{ln, ln_sum_exp};
use crate::two_rates::ln_e;
use crate::{FORGETTING, Line, Memory, Mixture, PastRate, Starts};

/// Smallest share of control's past for which a class is tested by name.
const NAMED_SHARE: f64 = 0.005;
/// Largest number of classes tested by name.
const MAX_NAMED: usize = 32;
/// Largest number of newcomers. Later ones only count in the pool.
const MAX_NEWCOMERS: usize = 16;
/// Largest number of classes remembered.
const MAX_REMEMBERED: usize = 256;

/// Classes of control's earlier windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PastClasses {
    counts: BTreeMap<String, Memory<f64>>,
    n: Memory<f64>,
    named: Vec<String>,
    /// Some class may have been seen without being remembered, so no class can be called new any more.
    incomplete: bool,
}

impl PastClasses {
    /// Adds a window, or another part of the same window.
    pub(super) fn push(&mut self, window: &ClassCounts, new_window: bool) {
        let add = |memory: &mut Memory<f64>, count: u64, forget| {
            memory.each(forget, |sum, phi| *sum = phi * *sum + count as f64);
        };
        if new_window {
            self.counts.values_mut().for_each(|count| add(count, 0, true));
        }
        for (class, count) in window.iter() {
            if let Some(memory) = self.counts.get_mut(class) {
                add(memory, count, false);
            } else if self.counts.len() < MAX_REMEMBERED {
                add(self.counts.entry(class.to_owned()).or_default(), count, false);
            } else {
                self.incomplete = true;
            }
        }
        self.incomplete |= window.other() > 0;
        add(&mut self.n, window.total(), new_window);
    }

    pub(super) fn n(&self) -> f64 {
        *self.n.slow()
    }

    /// Fixes the classes that are tested by name. Later calls have no effect.
    pub(super) fn fix_named(&mut self) -> usize {
        let least = NAMED_SHARE * self.n();
        let mut frequent: Vec<(&String, f64)> =
            self.counts.iter().map(|(class, count)| (class, *count.slow())).collect();
        frequent.retain(|&(_, count)| count > 0.0 && count >= least);
        // Ties keep the order of names.
        frequent.sort_by(|one, two| two.1.total_cmp(&one.1));
        self.named = frequent.into_iter().take(MAX_NAMED).map(|(class, _)| class.clone()).collect();
        self.named.len()
    }

    pub(super) fn named(&self, index: usize) -> Option<&str> {
        self.named.get(index).map(String::as_str)
    }

    /// The classes that are tested by name.
    pub(super) fn all_named(&self) -> &[String] {
        &self.named
    }

    pub(super) fn is_named(&self, class: &str) -> bool {
        self.named.iter().any(|named| named == class)
    }

    /// Past share of a named class (`None`: of all other classes together), strictly between 0 and 1.
    pub(super) fn share(&self, class: Option<usize>) -> f64 {
        if let Some(index) = class {
            return self.named(index).map_or(0.5, |class| self.share_of(class));
        }
        let named = self.named.iter().filter_map(|class| self.counts.get(class));
        let sum = named.fold((0.0, 0.0), |sum, count| (sum.0 + count.slow(), sum.1 + count.fast()));
        self.rate((self.n.slow() - sum.0).max(0.0), (self.n.fast() - sum.1).max(0.0))
    }

    fn share_of(&self, class: &str) -> f64 {
        self.counts.get(class).map_or_else(|| self.rate(0.0, 0.0), |count| self.rate(*count.slow(), *count.fast()))
    }

    fn rate(&self, slow: f64, fast: f64) -> f64 {
        let rates = Memory::of(PastRate::of(slow, *self.n.slow()), PastRate::of(fast, *self.n.fast()));
        rates.current().b_hat()
    }

    /// Shares of the named classes, then of all others together; `None` if the summary has no exact count.
    pub(super) fn shares_in(&self, window: &ClassCounts) -> Vec<Option<Rate>> {
        let mut counts: Vec<Option<u64>> = self.named.iter().map(|class| window.exact_count(class)).collect();
        let named: Option<u64> = counts.iter().copied().sum();
        counts.push(named.map(|named| window.total() - named));
        counts.into_iter().map(|count| Rate::new(window.total(), count?)).collect()
    }
}

/// A class that control did not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newcomer {
    class: String,
    canary: PastRate,
    fail: Mixture,
    windows: u64,
}

/// Classes that control did not have, by order of appearance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Newcomers(Vec<Newcomer>);

impl Newcomers {
    /// Multiplies a window into the evidence about newcomers that appeared before it.
    pub(super) fn advance(&mut self, past: &PastClasses, strata: &[&Views<'_>], horizon: u32, phi: f64) {
        let line = Line { v: 1.0, c: 0.0, sign: 1.0 };
        for newcomer in &mut self.0 {
            let bets = newcomer_bets(newcomer.canary.b_hat(), past.share_of(&newcomer.class));
            let mut steps = [0.0; NEWCOMER_MULTIPLIERS.len()];
            let mut seen = Rate::default();
            for (canary, control) in strata.iter().copied().filter_map(both) {
                let Some((c, s)) = rate_of(canary, &newcomer.class).zip(rate_of(control, &newcomer.class)) else {
                    continue;
                };
                for (step, bet) in steps.iter_mut().zip(bets) {
                    *step += ln_e(c, s, bet, line) / phi;
                }
                // On overflow, the rest of the window is not used for bets.
                let _ = seen.merge(&c);
            }
            newcomer.windows += 1;
            newcomer.fail.update(Starts::Restarts { horizon }.gamma(newcomer.windows), &steps);
            newcomer.canary.push(seen, FORGETTING);
        }
    }

    /// Records classes of the canary that control had neither before nor in this window.
    pub(super) fn appear(&mut self, past: &PastClasses, strata: &[Views<'_>]) {
        if past.incomplete || self.0.len() >= MAX_NEWCOMERS {
            return;
        }
        let mut counts = BTreeMap::<&str, u64>::new();
        let total: u64 = strata.iter().map(|stratum| stratum.0.n()).fold(0, u64::saturating_add);
        for (canary, _) in strata.iter().filter_map(both) {
            for (class, count) in canary.iter() {
                *counts.entry(class).or_default() += count;
            }
        }
        let absent =
            |class: &str| strata.iter().filter_map(both).all(|(_, control)| control.exact_count(class) == Some(0));
        let known = |class: &str| past.counts.contains_key(class) || self.0.iter().any(|one| one.class == class);
        let mut found: Vec<(&str, u64)> = counts.into_iter().filter(|&(c, _)| !known(c) && absent(c)).collect();
        // The most frequent come first; ties keep the order of names.
        found.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        for (class, count) in found.into_iter().take(MAX_NEWCOMERS - self.0.len()) {
            let mut canary = PastRate::default();
            canary.push(Rate::new(total, count).unwrap_or_default(), FORGETTING);
            let fail = Mixture::new(NEWCOMER_MULTIPLIERS.len());
            self.0.push(Newcomer { class: class.to_owned(), canary, fail, windows: 0 });
        }
    }

    /// `ln` of the weighted average over all newcomers that may ever appear. Future ones have `E = 1`.
    pub(super) fn ln_e(&self) -> f64 {
        let rest = 1.0 / (self.0.len() + 1) as f64;
        ln_sum_exp(self.parts().map(|(_, weight, ln_e)| ln(weight) + ln_e).chain([ln(rest)]))
    }

    /// Class, weight `1/(k(k+1))` and `ln E` of each newcomer.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, f64, f64)> + Clone {
        let weight = |k: usize| 1.0 / (k * (k + 1)) as f64;
        (1..).zip(&self.0).map(move |(k, one)| (one.class.as_str(), weight(k), one.fail.ln_e()))
    }
}

fn both<'a>(stratum: &Views<'a>) -> Option<(&'a ClassCounts, &'a ClassCounts)> {
    match stratum {
        (View::Classes(canary, _), View::Classes(control, _)) => Some((canary, control)),
        _ => None,
    }
}

fn rate_of(counts: &ClassCounts, class: &str) -> Option<Rate> {
    Rate::new(counts.total(), counts.exact_count(class)?)
}
