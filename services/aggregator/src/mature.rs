//! Metrics that could not be computed at once: with labels, and of pairs of answers.

use serin_schemas::records::Arm;

use crate::{
    compiled::Measure,
    join::Join,
    joins::Joins,
    keys::{Group, JoinKey, WindowKey, place_of},
    rollout::{ActiveRollout, Work},
    value::Value,
    window::{Subject, Window, dither},
};

impl ActiveRollout {
    /// Computes a stream's metrics of what waits in a window.
    pub(crate) fn mature(&mut self, key: &WindowKey, window: &mut Window, work: &mut Work<'_>) {
        let lens = self.lenses.of(key.generation);
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
                labelled |= measure.has_label(join);
                // Nobody saw the answer of a mirror: what people did says nothing about it.
                if wait.shadow && !measure.is_of_answer() {
                    continue;
                }
                let Some(value) = measure.value(join) else { continue };
                if let Some(value) = metric.scaled(Value::Number(value)) {
                    let dither = dither(&wait.id, metric, buffer);
                    arm.add(&lens.layout, (index, metric), subject, &value, dither);
                } else {
                    work.tally.unusable += 1;
                }
            }
            arm.counts.labelled += i64::from(labelled);
        }
        if pairs {
            // What waited for the other answer only waits no longer.
            let only = |wait: &&JoinKey| joins.get(&wait.id, wait.shadow).is_some_and(|join| !join.sketched);
            let only: Vec<JoinKey> = joins.waiting(group).iter().filter(only).cloned().collect();
            for wait in only {
                work.joins.remove(&wait);
            }
        }
    }

    /// Adds the pair that an answer makes with the other one to the same call, in the window of the answer that was complete
    /// first, and counts the mirror as one that has its other half.
    fn pair(&self, join: &Join, wait: &JoinKey, window: &mut Window, joins: &Joins, buffer: &mut Vec<u8>) {
        let other = joins.get(&wait.id, !wait.shadow).filter(|other| other.rollout == self.number);
        let Some(other) = other.filter(|other| !join.halves.is_empty() && !other.halves.is_empty()) else { return };
        // Of two answers in one window, the live one counts the pair.
        if other.end < join.end || other.end == join.end && wait.shadow {
            return;
        }
        let layout = &self.lenses.of(join.generation).layout;
        let (shadow, live) = if wait.shadow { (join, other) } else { (other, join) };
        let arm = &mut window.arms[place_of(Arm::Shadow)];
        arm.counts.labelled += 1;
        for (place, &index) in self.compiled.paired.iter().enumerate() {
            let metric = &self.compiled.metrics[index];
            let Some((shadow, live)) = shadow.halves[place].zip(live.halves[place]) else { continue };
            let hash = dither(&wait.id, metric, buffer);
            let pair = metric.pairing.as_ref().and_then(|pairing| pairing.pair(shadow, live, hash));
            if let Some(pair) = pair {
                let subject = Subject { numbers: &join.numbers, unit: join.unit };
                arm.add_pair(layout, index, subject, pair);
            }
        }
    }
}
