//! What a feedback says, and how it meets what waits under its request id.

use std::collections::BTreeMap;

use serin_schemas::ids::EventTime;

use crate::{
    early::{Asked, Named, find, set},
    join::{Label, Met, meet},
    plan::class_hash,
};

/// Longest name or class that waits for a prediction. What rollouts read is shorter.
pub(crate) const MAX_WAITING_BYTES: usize = 256;

/// Names with a zero byte are the aggregator's own.
fn is_name(name: &str) -> bool {
    !name.contains('\0')
}

/// What a feedback says.
pub(crate) struct Truths<'a> {
    pub(crate) labels: Vec<(&'a str, Label)>,
    /// Hashes of classes.
    pub(crate) classes: Vec<(&'a str, Label<u64>)>,
}

impl<'a> Truths<'a> {
    /// Without what is no number, and without names that no label can have.
    pub(crate) fn of(revision: i64, values: &[(&'a str, f64)], classes: &[(&'a str, &str)]) -> Self {
        let usable = values.iter().filter(|(name, value)| is_name(name) && value.is_finite());
        let labels = usable.map(|&(name, value)| (name, Label { revision, value }));
        let classes = classes.iter().filter(|(name, _)| is_name(name));
        let classes = classes.map(|&(name, class)| (name, Label { revision, value: class_hash(class) }));
        Self { labels: labels.collect(), classes: classes.collect() }
    }

    /// The same, and with each label whose time is needed its time: `names` has the name that it then has.
    pub(crate) fn timed(mut self, names: &'a BTreeMap<String, String>, at: EventTime) -> Self {
        let found = self.labels.iter().map(|(name, label)| (*name, label.revision));
        let found = found.chain(self.classes.iter().map(|(name, label)| (*name, label.revision)));
        let time = |(name, revision)| Some((names.get(name)?.as_str(), Label { revision, value: at.0 as f64 }));
        let times: Vec<(&str, Label)> = found.filter_map(time).collect();
        self.labels.extend(times);
        self
    }

    /// What waits for a prediction.
    pub(crate) fn waiting(labels: &'a Named<Label>, truths: &'a Named<Label<u64>>) -> Self {
        let labels = labels.iter().map(|(name, label)| (&**name, *label));
        let classes = truths.iter().map(|(name, label)| (&**name, *label));
        Self { labels: labels.collect(), classes: classes.collect() }
    }

    /// Without what no rollout reads.
    pub(crate) fn asked(mut self, asked: &dyn Asked) -> Self {
        let fits = |name: &str| name.len() <= MAX_WAITING_BYTES;
        self.labels.retain(|(name, _)| asked.label(name) && fits(name));
        self.classes.retain(|(name, _)| asked.truth(name) && fits(name));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.classes.is_empty()
    }
}

/// Keeps labels until their prediction comes.
pub(crate) fn wait<T: Copy>(there: &mut Named<Label<T>>, labels: Vec<(&str, Label<T>)>) {
    for (name, label) in labels {
        let mut known = find(there, name).copied();
        meet(&mut known, label);
        if let Some(label) = known {
            set(there, name, label);
        }
    }
}

/// Puts labels where they are waited for.
pub(crate) fn place<T: Copy>(names: &[String], into: &mut [Option<Label<T>>], labels: &[(&str, Label<T>)]) -> Vec<Met> {
    let known = labels.iter().filter_map(|(name, label)| Some((names.iter().position(|known| known == name)?, label)));
    known.map(|(index, label)| meet(&mut into[index], *label)).collect()
}
