//! The conditions of a metric (`where`), compiled: names are indexes, classes are hashes.
//!
//! Invariant: an answer for which a condition cannot be decided does not count.

use std::cmp::Ordering;

use serin_spec::{Filter, FilterSubject, FilterTest};

use crate::{
    join::Join,
    value::{Value, class_hash},
};

/// One condition on an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// A number that the answer brings; the index is in `CompiledSpec::outputs`.
    Output(usize, Range),
    /// A class that the answer brings, by its hash; the index is in `CompiledSpec::classes`.
    Class(usize, u64),
    /// A numeric label; the index is in `CompiledSpec::labels`.
    Label(usize, Range),
    /// A label that names a class, by its hash; the index is in `CompiledSpec::truths`.
    Truth(usize, u64),
}

/// The numbers that meet a condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    at_least: f64,
    below: f64,
    /// `below` belongs to the range too: a condition on one exact number.
    closed: bool,
}

impl Range {
    fn of(test: FilterTest<'_>) -> Option<Self> {
        match test {
            FilterTest::Class(_) => None,
            FilterTest::Range { at_least, below } => Some(Self { at_least, below, closed: false }),
            FilterTest::Number(number) => Some(Self { at_least: number, below: number, closed: true }),
        }
    }

    fn holds(self, number: f64) -> Option<bool> {
        let upper = number.partial_cmp(&self.below)?;
        Some(number >= self.at_least && (upper == Ordering::Less || self.closed && upper == Ordering::Equal))
    }
}

/// The places that conditions read. Each method returns the index of a name and adds it where it is new.
pub(crate) trait Places {
    fn output(&mut self, name: &str) -> usize;
    fn class(&mut self, name: &str) -> usize;
    fn label(&mut self, name: &str) -> usize;
    fn truth(&mut self, name: &str) -> usize;
    /// The number that is 1 for requests with this value of a segment dimension, else 0.
    fn in_segment(&mut self, dimension: &str, value: &str) -> usize;
}

impl Condition {
    /// Compiles a filter. `None`: lint refuses it.
    pub(crate) fn new(filter: &Filter, places: &mut impl Places) -> Option<Self> {
        let test = filter.test()?;
        Some(match (filter.subject()?, test) {
            (FilterSubject::Output(name), FilterTest::Class(class)) => {
                Self::Class(places.class(name), class_hash(class))
            }
            (FilterSubject::Label(name), FilterTest::Class(class)) => {
                Self::Truth(places.truth(name), class_hash(class))
            }
            (FilterSubject::Segment(dimension), FilterTest::Class(value)) => {
                let yes = Range { at_least: 1.0, below: 1.0, closed: true };
                Self::Output(places.in_segment(dimension, value), yes)
            }
            (FilterSubject::Output(name), test) => Self::Output(places.output(name), Range::of(test)?),
            (FilterSubject::Label(name), test) => Self::Label(places.label(name), Range::of(test)?),
            (FilterSubject::Segment(_), _) => return None,
        })
    }

    /// Whether the condition can be decided only with a label.
    pub(crate) fn needs_label(&self) -> bool {
        matches!(self, Self::Label(..) | Self::Truth(..))
    }

    /// Whether the label that it needs has come. `true` for a condition without a label.
    pub(crate) fn has_label(&self, join: &Join) -> bool {
        match *self {
            Self::Label(index, _) => join.labels.get(index).is_some_and(Option::is_some),
            Self::Truth(index, _) => join.truths.get(index).is_some_and(Option::is_some),
            Self::Output(..) | Self::Class(..) => true,
        }
    }

    /// Whether an answer that waits for labels meets it; `None`: it cannot be decided.
    pub(crate) fn holds(&self, join: &Join) -> Option<bool> {
        match *self {
            Self::Output(index, range) => range.holds(*join.outputs.get(index)?),
            Self::Class(index, class) => Some(join.classes.get(index).copied().flatten()? == class),
            Self::Label(index, range) => range.holds(join.labels.get(index).copied().flatten()?.value),
            Self::Truth(index, class) => Some(join.truths.get(index).copied().flatten()?.value == class),
        }
    }

    /// The same for an answer of which only the event is there. `number` and `class` are what the event brings at an index.
    pub(crate) fn holds_for(
        &self,
        number: impl Fn(usize) -> f64,
        class: impl Fn(usize) -> Option<u64>,
    ) -> Option<bool> {
        match *self {
            Self::Output(index, range) => range.holds(number(index)),
            Self::Class(index, wanted) => Some(class(index)? == wanted),
            Self::Label(..) | Self::Truth(..) => None,
        }
    }
}

/// The number of a value; NaN for a class.
pub(crate) fn number(value: Option<&Value<'_>>) -> f64 {
    match value {
        Some(Value::Number(number)) => *number,
        Some(Value::Class(_)) | None => f64::NAN,
    }
}
