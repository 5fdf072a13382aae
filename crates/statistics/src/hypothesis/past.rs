//! What a hypothesis remembers of control, in the form its measure needs.

use serde::{Deserialize, Serialize};
use serin_sketches::Summary;

use super::spec::Measure;
use super::steps::grid;
use crate::{FORGETTING, PastHist, PastMean, PastRate};

/// Smallest forgotten number of control's answers before anything is bet: with fewer, the base rate is a guess, and a bad
/// guess costs a process evidence that it does not regain. Windows before that only teach.
pub const MIN_PAST: f64 = 30.0;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Past {
    Rate(PastRate),
    Mean(PastMean),
    Hist(PastHist),
}

impl Past {
    pub(super) fn new(measure: Measure) -> Self {
        match measure {
            Measure::Rate => Self::Rate(PastRate::default()),
            Measure::Mean { .. } | Measure::CappedMean { .. } => Self::Mean(PastMean::default()),
            Measure::Quantile { .. } | Measure::Distribution => Self::Hist(PastHist::default()),
        }
    }

    /// Adds one window (all its strata); an empty one leaves the past as it is.
    pub(super) fn push(&mut self, window: &[&Summary]) {
        let mut phi = FORGETTING;
        for &summary in window.iter().filter(|summary| summary.n() > 0) {
            match (&mut *self, summary) {
                (Self::Rate(past), Summary::Rate(rate)) => past.push(*rate, phi),
                (Self::Mean(past), summary) => past.push(&grid(summary), phi),
                (Self::Hist(past), Summary::Log(hist)) => past.push(hist.iter(), phi),
                _ => {}
            }
            // The window is forgotten into once, however many strata it has.
            phi = 1.0;
        }
    }

    pub(super) fn n(&self) -> f64 {
        match self {
            Self::Rate(past) => past.n(),
            Self::Mean(past) => past.n(),
            Self::Hist(past) => past.n(),
        }
    }

    pub(super) fn suffices(&self) -> bool {
        self.n() >= MIN_PAST
    }

    /// Control's past rate (of exceeding `key`), once it is known.
    pub(super) fn healthy_rate(&self, key: Option<i32>) -> Option<f64> {
        match (self, key) {
            (Self::Rate(past), None) if self.suffices() => Some(past.b_hat()),
            (Self::Hist(past), Some(key)) if self.suffices() => Some(past.tail(key)),
            _ => None,
        }
    }
}
