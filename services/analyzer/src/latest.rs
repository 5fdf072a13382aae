//! The latest windows of one hypothesis, and those of them in which the canary was worst. The estimates of a rollout cover all its
//! windows, but the evidence against a canary that turns bad late is in the last few.
//!
//! These windows are for sentences only and decide nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Span},
    records::{Estimate, Harm},
};
use serin_sketches::Summary;
use serin_statistics::{ArmEstimate, Hypothesis};

use crate::arms::BothArms;

/// Number of windows that are kept.
const WINDOWS: usize = 6;

/// Both arms of one window.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    end: EventTime,
    canary: Summary,
    control: Summary,
}

/// The latest windows of one hypothesis.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Latest {
    windows: VecDeque<Window>,
    /// End of the first window ever taken.
    first: Option<EventTime>,
    /// Windows taken so far.
    taken: u64,
    /// How many of the newest windows have no row yet.
    unsaved: usize,
    /// The windows of a failure.
    harm: Option<Harm>,
}

/// The contents of a row.
#[derive(Serialize, Deserialize)]
pub(crate) enum Row {
    /// One window.
    Window { number: u64, first: EventTime, end: EventTime, canary: Vec<u8>, control: Vec<u8> },
    /// The windows of a failure.
    Harm(Harm),
}

/// Place of the row of a failure, after those of the windows.
const HARM_PLACE: u8 = u8::MAX;

impl Latest {
    /// Takes a window.
    pub(crate) fn take(&mut self, end: EventTime, pairs: &[BothArms]) {
        let sum = |of: fn(&BothArms) -> &Summary| -> Option<Summary> {
            let mut summaries = pairs.iter().map(of);
            let mut sum = summaries.next()?.clone();
            for summary in summaries {
                // A summary that would overflow is left out.
                let _ = sum.merge(summary);
            }
            Some(sum)
        };
        let Some((canary, control)) = sum(|pair| &pair.canary).zip(sum(|pair| &pair.control)) else { return };
        if canary.n() == 0 {
            return;
        }
        if self.windows.len() >= WINDOWS {
            self.windows.pop_front();
        }
        self.first.get_or_insert(end);
        self.taken += 1;
        self.unsaved = (self.unsaved + 1).min(WINDOWS);
        self.windows.push_back(Window { end, canary, control });
    }

    /// The rows that are out of date, with their places: one per window that is kept, and one for the failure.
    pub(crate) fn unsaved(&mut self) -> Vec<(u8, Row)> {
        let Some(first) = self.first else { return Vec::new() };
        let numbered = self.windows.iter().rev().zip((0..self.taken).rev()).take(std::mem::take(&mut self.unsaved));
        let row = |(window, number): (&Window, u64)| {
            let (canary, control) = (window.canary.encode(), window.control.encode());
            ((number % WINDOWS as u64) as u8, Row::Window { number, first, end: window.end, canary, control })
        };
        let harm = self.harm.clone().map(|harm| (HARM_PLACE, Row::Harm(harm)));
        numbered.map(row).chain(harm).collect()
    }

    /// Takes back the contents of a row. Rows come in the order of their places.
    pub(crate) fn restore(&mut self, row: Row) -> Result<(), serin_sketches::DecodeError> {
        match row {
            Row::Harm(harm) => self.harm = Some(harm),
            Row::Window { number, first, end, canary, control } => {
                let window = Window { end, canary: Summary::decode(&canary)?, control: Summary::decode(&control)? };
                let place = self.windows.partition_point(|known| known.end < end);
                self.windows.insert(place, window);
                self.taken = self.taken.max(number + 1);
                self.first = Some(first);
            }
        }
        Ok(())
    }

    /// Records the windows in which a failure showed. The first ones are kept.
    pub(crate) fn note(&mut self, test: &Hypothesis, length: Span) {
        if self.harm.is_none() {
            self.harm = self.worst(test, length);
        }
    }

    /// The windows in which a failure showed.
    pub(crate) fn harm(&self) -> Option<&Harm> {
        self.harm.as_ref()
    }

    /// The latest windows in which the canary was worst, by standard errors as far as they can be estimated without a variance.
    fn worst(&self, test: &Hypothesis, length: Span) -> Option<Harm> {
        let since = self.first?.minus(length);
        let (mut canary, mut control): (Option<Summary>, Option<Summary>) = (None, None);
        let mut worst: Option<(f64, Harm)> = None;
        let through = self.windows.back()?.end;
        for window in self.windows.iter().rev() {
            merge(&mut canary, &window.canary);
            merge(&mut control, &window.control);
            let (Some(canary), Some(control)) = (&canary, &control) else { continue };
            let effect = test.effect_of(canary, control);
            let Some(beyond) = test.beyond(&effect) else { continue };
            let (n_c, n_s) = (effect.canary.n as f64, effect.control.n as f64);
            let n = if n_s > 0.0 { n_c * n_s / (n_c + n_s) } else { n_c };
            let score = beyond * libm::sqrt(n);
            if worst.as_ref().is_none_or(|(best, _)| score > *best) {
                let harm = Harm {
                    from: window.end.minus(length),
                    through,
                    since,
                    canary: estimate(effect.canary),
                    control: estimate(effect.control),
                    difference: effect.difference,
                };
                worst = Some((score, harm));
            }
        }
        worst.map(|(_, harm)| harm)
    }
}

fn merge(sum: &mut Option<Summary>, more: &Summary) {
    match sum {
        Some(sum) => drop(sum.merge(more)),
        None => *sum = Some(more.clone()),
    }
}

fn estimate(arm: ArmEstimate) -> Estimate {
    Estimate { n: i64::try_from(arm.n).unwrap_or(i64::MAX), value: arm.value }
}
