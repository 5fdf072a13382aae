//! The labels of one feedback, and how they are joined with the predictions or values that wait under its request id.

use std::{borrow::Cow, collections::BTreeMap};

use serin_schemas::{ids::EventTime, pattern, view::CredentialView};

use crate::{
    early::{Named, Pending, ReadNames, find, set},
    label::{BY, Label, LabelUpdate, apply_label, rights},
    value::class_hash,
};

/// Longest name or class of a waiting label, in bytes. Names that rollouts read are shorter.
pub(crate) const MAX_WAITING_BYTES: usize = 256;

/// Separates the models in a list of patterns.
const AND: char = '\0';

/// Waits with the labels of a prediction whose labels contradicted each other before it arrived. The value counts them.
const CONTRADICTED: &str = "\0contradicted";

/// Whether an event may use this name. Names with a zero byte are internal to the aggregator.
fn is_name(name: &str) -> bool {
    !name.contains('\0')
}

/// The labels of one feedback.
pub(crate) struct FeedbackLabels<'a> {
    pub(crate) labels: Vec<(&'a str, Label)>,
    /// Hashes of classes.
    pub(crate) classes: Vec<(&'a str, Label<u64>)>,
    /// The models that the writer may judge, as patterns separated by [`AND`]. `None`: every model.
    models: Option<Cow<'a, str>>,
}

impl<'a> FeedbackLabels<'a> {
    /// Collects the usable labels: drops values that are not finite, and names that no label can have.
    pub(crate) fn of(
        revision: i64,
        values: &[(&'a str, f64)],
        classes: &[(&'a str, &str)],
        credential: Option<&CredentialView<'_>>,
    ) -> Self {
        let usable = values.iter().filter(|(name, value)| is_name(name) && value.is_finite());
        let labels = usable.map(|&(name, value)| (name, Label { revision, value }));
        let classes = classes.iter().filter(|(name, _)| is_name(name));
        let classes = classes.map(|&(name, class)| (name, Label { revision, value: class_hash(class) }));
        let bound = credential.filter(|credential| !credential.models.contains(&"*"));
        let models = bound.map(|credential| Cow::Owned(credential.models.join("\0")));
        Self { labels: labels.collect(), classes: classes.collect(), models }
    }

    /// Whether the writer may judge a model.
    pub(crate) fn may_judge(&self, model: &str) -> bool {
        self.models.as_deref().is_none_or(|models| models.split(AND).any(|pattern| pattern::matches(pattern, model)))
    }

    /// Adds the time of each label whose time is read. `names` maps a label to the name of its time.
    pub(crate) fn timed(mut self, names: &'a BTreeMap<String, String>, at: EventTime) -> Self {
        let found = self.labels.iter().map(|(name, label)| (*name, label.revision));
        let found = found.chain(self.classes.iter().map(|(name, label)| (*name, label.revision)));
        let time = |(name, revision)| Some((names.get(name)?.as_str(), Label { revision, value: at.0 as f64 }));
        let times: Vec<(&str, Label)> = found.filter_map(time).collect();
        self.labels.extend(times);
        self
    }

    /// The waiting labels, grouped by the rights of their writers.
    pub(crate) fn waiting(labels: &'a Named<Label>, truths: &'a Named<Label<u64>>) -> Vec<Self> {
        let mut found: BTreeMap<Option<&'a str>, Self> = BTreeMap::new();
        let of = |models: Option<&'a str>| Self {
            labels: Vec::new(),
            classes: Vec::new(),
            models: models.map(Cow::Borrowed),
        };
        for (name, label) in labels {
            let (name, models) = rights(name);
            found.entry(models).or_insert_with(|| of(models)).labels.push((name, *label));
        }
        for (name, label) in truths {
            let (name, models) = rights(name);
            found.entry(models).or_insert_with(|| of(models)).classes.push((name, *label));
        }
        found.into_values().collect()
    }

    /// Stores the labels until their prediction arrives. Returns whether one of them contradicts a waiting label.
    pub(crate) fn wait(self, pending: &mut Pending) -> bool {
        let models = self.models.as_deref();
        let labels = wait(&mut pending.labels, self.labels, models);
        let classes = wait(&mut pending.truths, self.classes, models);
        if labels || classes {
            let name = named_by(CONTRADICTED, models);
            let before = find(&pending.labels, &name).map_or(0.0, |known| known.value);
            set(&mut pending.labels, &name, Label { revision: 0, value: before + 1.0 });
        }
        labels || classes
    }

    /// How many feedbacks contradicted the waiting ones.
    pub(crate) fn contradictions(&self) -> i64 {
        self.labels.iter().find(|(name, _)| *name == CONTRADICTED).map_or(0, |(_, label)| label.value as i64)
    }

    /// Drops the labels that no rollout reads.
    pub(crate) fn retain_read(mut self, read: &dyn ReadNames) -> Self {
        let fits = |name: &str| name.len() <= MAX_WAITING_BYTES;
        self.labels.retain(|(name, _)| read.label(name) && fits(name));
        self.classes.retain(|(name, _)| read.truth(name) && fits(name));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.classes.is_empty()
    }
}

/// Applies a label. The same label with a different time is not a contradiction.
fn apply_named<T: PartialEq>(name: &str, there: &mut Option<Label<T>>, label: Label<T>) -> LabelUpdate {
    match apply_label(there, label) {
        LabelUpdate::Contradicts if !is_name(name) => LabelUpdate::Repeated,
        update => update,
    }
}

/// The name under which a label waits.
fn named_by<'a>(bare: &'a str, models: Option<&str>) -> Cow<'a, str> {
    models.map_or(Cow::Borrowed(bare), |models| Cow::Owned(format!("{bare}{BY}{models}")))
}

/// Stores labels until their prediction arrives. Returns whether one of them contradicts a waiting label.
fn wait<T: Copy + PartialEq>(there: &mut Named<Label<T>>, labels: Vec<(&str, Label<T>)>, models: Option<&str>) -> bool {
    let mut contradicts = false;
    for (bare, label) in labels {
        let name = named_by(bare, models);
        let mut known = find(there, &name).copied();
        contradicts |= apply_named(bare, &mut known, label) == LabelUpdate::Contradicts;
        if let Some(label) = known {
            set(there, &name, label);
        }
    }
    contradicts
}

/// Stores labels in the slots of their names.
pub(crate) fn place<T: Copy + PartialEq>(
    names: &[String],
    into: &mut [Option<Label<T>>],
    labels: &[(&str, Label<T>)],
) -> Vec<LabelUpdate> {
    let place = |name: &str| names.iter().position(|known| known == name);
    labels.iter().filter_map(|(name, label)| Some(apply_named(name, &mut into[place(name)?], *label))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(revision: i64, value: f64) -> Label {
        Label { revision, value }
    }

    #[test]
    fn another_value_under_the_same_revision_is_a_contradiction_and_the_first_one_stays() {
        let names = ["late".to_owned(), "time\0of".to_owned()];
        let mut there = [None, None];
        let mut send = |name, label| place(&names, &mut there, &[(name, label)])[0];
        assert_eq!(send("late", label(0, 1.0)), LabelUpdate::First);
        assert_eq!(send("late", label(0, 1.0)), LabelUpdate::Repeated);
        assert_eq!(send("late", label(0, 0.0)), LabelUpdate::Contradicts);
        assert_eq!(send("late", label(1, 0.0)), LabelUpdate::Revised);
        assert_eq!(send("late", label(0, 1.0)), LabelUpdate::Older);
        assert_eq!(send("time\0of", label(0, 5.0)), LabelUpdate::First);
        assert_eq!(send("time\0of", label(0, 6.0)), LabelUpdate::Repeated, "the same label at another time");
        assert_eq!(there, [Some(label(1, 0.0)), Some(label(0, 5.0))]);
    }

    #[test]
    fn a_contradiction_is_found_before_the_prediction_arrives() {
        let mut pending = Pending::default();
        let mut send = |value: f64, class: &str| {
            FeedbackLabels::of(0, &[("late", value)], &[("kind", class)], None).wait(&mut pending)
        };
        assert!(!send(1.0, "a"));
        assert!(!send(1.0, "a"));
        assert!(send(0.0, "a"));
        assert!(send(1.0, "b"));
        let waiting = FeedbackLabels::waiting(&pending.labels, &pending.truths);
        assert_eq!(waiting.iter().map(FeedbackLabels::contradictions).collect::<Vec<_>>(), [2]);
    }
}
