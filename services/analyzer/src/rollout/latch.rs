//! What the evidence has shown for good: failures of metrics and groups, and the crossing that causes the rollback. They are never
//! withdrawn.
//!
//! Where a key assigns the arm, evidence does not count while it rests on a handful of units: it fails nothing, and adds no more to
//! an average than no evidence would. So every finding would also be made without that condition, and no error rate grows by it.

use serin_schemas::ids::EventTime;
use serin_statistics::{group_ln_e, ln_weighted_average, p_anytime, rejects, weighted_holm};

use super::Rollout;
use crate::{
    evidence::Evidence,
    head::{Crossing, GroupState},
    plan::OTHER,
};

impl Rollout {
    /// Records what has failed by now. Failures and the crossing are never withdrawn.
    pub(super) fn latch(&mut self, end: EventTime) {
        if self.plan.rules.need_data() {
            self.guards.mixed.extend(self.head.health.mixed().map(str::to_owned));
        }
        let alpha = self.plan.spec.decision.false_rollback;
        let failed = weighted_holm(&self.weighted(|evidence| p_anytime(evidence.test.max_ln_e_fail())), alpha);
        for (index, failed) in failed.into_iter().enumerate() {
            let evidence = &self.evidence[index];
            // A watched metric has no share of the budget and is judged by its own e-value.
            let watched = self.plan.hypotheses[index].weight <= 0.0;
            let failed = failed || (watched && rejects(evidence.test.max_ln_e_fail(), alpha));
            // A finding that crossed while it rested on few units does not count later: the evidence must also be sufficient now.
            let present = !self.plan.guarded || rejects(evidence.test.ln_e_fail(), alpha);
            if failed && present && evidence.failed_at.is_none() && self.counts(index) {
                self.evidence[index].failed_at = Some(end);
                self.note_harm(index);
                self.dirty.insert(index);
            }
        }
        self.latch_groups(end);
        let current = self.counted();
        if self.head.crossed.is_none() && rejects(ln_weighted_average(&current), alpha) {
            // Finite logarithms of positive numbers. A weight of 0 sorts last.
            let share =
                |(weight, ln_e): &(f64, f64)| if *weight > 0.0 { libm::log(*weight) + ln_e } else { f64::NEG_INFINITY };
            let largest = (0..current.len()).max_by(|&a, &b| share(&current[a]).total_cmp(&share(&current[b])));
            self.head.crossed = largest.map(|largest| Crossing { at: end, largest: largest as u32 });
            if let Some(largest) = largest {
                self.note_harm(largest);
                self.dirty.insert(largest);
            }
        }
    }

    /// Records the windows in which a finding against the canary showed.
    fn note_harm(&mut self, index: usize) {
        let window = self.plan.spec.window.0;
        let evidence = &mut self.evidence[index];
        evidence.latest.note(&evidence.test, window);
    }

    /// Finds the groups that have failed by now. A group is the joint claim of its members over all traffic. Holm's procedure over the
    /// single hypotheses leaves it the budget of those that are rejected. Both are shortcuts of one closed test whose local
    /// tests are weighted averages, so the chance of any false finding, of a metric or a group, stays within the budget.
    fn latch_groups(&mut self, end: EventTime) {
        self.head.groups.resize(self.plan.groups.len(), GroupState::default());
        for place in 0..self.plan.groups.len() {
            let own = self.group_hypotheses(place);
            let open = |index: &usize| !own.contains(index) && self.evidence[*index].failed_at.is_none();
            let others = (0..self.evidence.len()).filter(open).map(|index| self.plan.hypotheses[index].weight);
            let others: f64 = others.sum();
            let (weight, ln_e) = self.group_evidence(place);
            let state = &mut self.head.groups[place];
            state.max_ln_e = state.max_ln_e.max(ln_e);
            let p = p_anytime(state.max_ln_e) * (weight + others) / weight;
            if weight > 0.0 && p <= self.plan.spec.decision.false_rollback && state.failed_at.is_none() {
                state.failed_at = Some(end);
            }
        }
    }

    fn group_hypotheses(&self, place: usize) -> Vec<usize> {
        self.plan.groups[place].members.iter().filter_map(|&(metric, _)| self.plan.overall(metric)).collect()
    }

    /// A group's share of the budget and its `ln E`, the average of its members over all traffic, weighted like the budget.
    pub(crate) fn group_evidence(&self, place: usize) -> (f64, f64) {
        let own = self.group_hypotheses(place);
        let members: Vec<(f64, f64)> =
            own.iter().map(|&index| (self.plan.hypotheses[index].weight, self.counted_ln_e(index))).collect();
        (members.iter().map(|member| member.0).sum(), group_ln_e(&members))
    }

    /// Whether a hypothesis's evidence against the canary rests on few units.
    fn rests_on_few(&self, index: usize) -> bool {
        let evidence = &self.evidence[index];
        self.plan.guarded && evidence.test.fail_robustness(&evidence.units.sums).rests_on.is_some()
    }

    /// Whether a hypothesis's evidence against the canary counts. It must rest on enough units, and must not be about `other` in a
    /// dimension in which the arms serve different populations: the contents of `other` differ then too, and a comparison within
    /// values does not protect against that.
    fn counts(&self, index: usize) -> bool {
        let segment = &self.plan.hypotheses[index].segment;
        let others = segment.value == OTHER && self.guards.mixed.contains(&segment.dimension);
        !others && !self.rests_on_few(index)
    }

    /// A hypothesis's `ln E` as far as it counts.
    fn counted_ln_e(&self, index: usize) -> f64 {
        let ln_e = self.evidence[index].test.ln_e_fail();
        if ln_e > 0.0 && !self.counts(index) { 0.0 } else { ln_e }
    }

    /// Each hypothesis's weight and how much of its evidence counts.
    pub(crate) fn counted(&self) -> Vec<(f64, f64)> {
        let hypotheses = self.plan.hypotheses.iter().take(self.evidence.len()).enumerate();
        hypotheses.map(|(index, plan)| (plan.weight, self.counted_ln_e(index))).collect()
    }

    /// Each hypothesis's weight with a value of its evidence.
    pub(crate) fn weighted(&self, of: impl Fn(&Evidence) -> f64) -> Vec<(f64, f64)> {
        self.plan.hypotheses.iter().zip(&self.evidence).map(|(plan, evidence)| (plan.weight, of(evidence))).collect()
    }
}
