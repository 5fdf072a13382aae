//! Metrics that are computed when a window matures: those with labels, and those of pairs of answers.

use serin_schemas::records::Arm;

use crate::{
    compiled::Measure,
    join::Join,
    joins::Joins,
    keys::{Group, JoinKey, WindowKey, place_of},
    rollout::{ActiveRollout, Work},
    value::{Observed, Value},
    window::{Subject, Window, dither},
};

impl ActiveRollout {
    /// Computes the metrics of one stream over the predictions that wait in a window.
    pub(crate) fn mature(&mut self, key: &WindowKey, window: &mut Window, work: &mut Work<'_>) {
        let view = self.views.of(key.generation);
        let group = Group { rollout: self.number, end: key.end, generation: key.generation };
        let buffer = &mut work.scratch.buffer;
        let own = || self.compiled.metrics.iter().filter(|metric| metric.stream == key.stream);
        let (pairs, labels) =
            (own().any(|metric| metric.pairing.is_some()), own().any(|metric| metric.pairing.is_none()));
        let joins = &*work.joins;
        for wait in joins.waiting(group) {
            let Some(join) = joins.get(&wait.id, wait.shadow) else { continue };
            if pairs {
                self.pair(join, wait, window, joins, buffer);
            }
            if !join.sketched {
                continue;
            }
            let arm = &mut window.arms[usize::from(join.arm)];
            if labels || wait.shadow {
                arm.counts.predictions += 1;
                arm.counts.errors += i64::from(join.error);
                arm.counts.invalid += i64::from(join.invalid);
            }
            let mut labelled = false;
            let subject = Subject { numbers: &join.numbers, unit: join.unit };
            for (index, metric) in self.compiled.metrics.iter().enumerate().filter(|(_, m)| m.stream == key.stream) {
                let Measure::Label(measure) = &metric.measure else { continue };
                labelled |= metric.has_labels(measure, join);
                // Users do not see the answer of a mirror, so their behavior is not evidence about it.
                if wait.shadow && !measure.is_of_answer() {
                    continue;
                }
                if measure.zero_if_missing && self.compiled.rules.need_data() {
                    *arm.labelled.entry(index).or_default() += i64::from(measure.has_label(join));
                }
                let Some(value) = measure.value(join).filter(|_| metric.counts(join)) else { continue };
                if let Some(value) = metric.scaled(Value::Number(value)) {
                    let dither = dither(&wait.id, metric, buffer);
                    arm.add(&view.layout, (index, metric), subject, &Observed::one(value), dither);
                } else {
                    work.tally.unusable += 1;
                }
            }
            arm.counts.labelled += i64::from(labelled);
        }
        if pairs {
            // Predictions that waited only for the other answer no longer wait.
            let only = |wait: &&JoinKey| joins.get(&wait.id, wait.shadow).is_some_and(|join| !join.sketched);
            let only: Vec<JoinKey> = joins.waiting(group).iter().filter(only).cloned().collect();
            for wait in only {
                work.joins.remove(&wait);
            }
        }
    }

    /// Adds the pair of an answer and the other answer to the same call to the window of the answer that completed
    /// first, and counts the mirror as paired.
    fn pair(&self, join: &Join, wait: &JoinKey, window: &mut Window, joins: &Joins, buffer: &mut Vec<u8>) {
        let other = joins.get(&wait.id, !wait.shadow).filter(|other| other.rollout == self.number);
        let Some(other) = other.filter(|other| !join.sides.is_empty() && !other.sides.is_empty()) else { return };
        // If both answers are in the same window, the live answer counts the pair.
        if other.end < join.end || other.end == join.end && wait.shadow {
            return;
        }
        let layout = &self.views.of(join.generation).layout;
        let (shadow, live) = if wait.shadow { (join, other) } else { (other, join) };
        let arm = &mut window.arms[place_of(Arm::Shadow)];
        arm.counts.labelled += 1;
        for (place, &index) in self.compiled.paired.iter().enumerate() {
            let metric = &self.compiled.metrics[index];
            let Some((shadow, live)) = shadow.sides[place].zip(live.sides[place]) else { continue };
            let hash = dither(&wait.id, metric, buffer);
            let pair = metric.pairing.as_ref().and_then(|pairing| pairing.pair(shadow, live, hash));
            if let Some(pair) = pair {
                let subject = Subject { numbers: &join.numbers, unit: join.unit };
                arm.add_pair(layout, index, subject, pair);
            }
        }
    }
}
