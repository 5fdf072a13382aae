//! What a feedback says, and how it meets what waits under its request id.

use std::collections::BTreeMap;

use serin_schemas::ids::EventTime;
use serin_stream::fold::Poison;

use crate::{
    fold::poison,
    join::{Label, Met, meet},
    plan::class_hash,
};

/// Most names of each kind that wait under one request id for its prediction.
const MAX_WAITING_NAMES: usize = 64;
/// Longest name or class that waits.
pub(crate) const MAX_WAITING_BYTES: usize = 256;

/// Keeps a value that waits, unless its name is too long or one too many.
pub(crate) fn keep<T>(values: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    let fits = name.len() <= MAX_WAITING_BYTES && (values.len() < MAX_WAITING_NAMES || values.contains_key(name));
    if fits {
        values.insert(name.to_owned(), value);
    }
    fits
}

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
    pub(crate) fn waiting(labels: &'a BTreeMap<String, Label>, truths: &'a BTreeMap<String, Label<u64>>) -> Self {
        let labels = labels.iter().map(|(name, label)| (name.as_str(), *label));
        let classes = truths.iter().map(|(name, label)| (name.as_str(), *label));
        Self { labels: labels.collect(), classes: classes.collect() }
    }
}

/// Keeps labels until their prediction comes; returns how many were one too many.
pub(crate) fn wait<T: Copy>(there: &mut BTreeMap<String, Label<T>>, labels: Vec<(&str, Label<T>)>) -> usize {
    let mut refused = 0;
    for (name, label) in labels {
        let mut known = there.get(name).copied();
        meet(&mut known, label);
        refused += usize::from(known.is_some_and(|label| !keep(there, name, label)));
    }
    refused
}

/// Puts labels where they are waited for.
pub(crate) fn place<T: Copy>(names: &[String], into: &mut [Option<Label<T>>], labels: &[(&str, Label<T>)]) -> Vec<Met> {
    let known = labels.iter().filter_map(|(name, label)| Some((names.iter().position(|known| known == name)?, label)));
    known.map(|(index, label)| meet(&mut into[index], *label)).collect()
}

/// An error for values that were not kept.
pub(crate) fn too_many(refused: usize) -> Result<(), Poison> {
    if refused == 0 {
        return Ok(());
    }
    poison(
        "too_many_values",
        format!(
            "{refused} values were not kept: up to {MAX_WAITING_NAMES} of a kind, of {MAX_WAITING_BYTES} bytes each, wait \
             for a prediction"
        ),
    )
}
