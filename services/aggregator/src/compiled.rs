//! Compiles a rollout spec for the hot path: names become indexes once, when the rollout starts.
//!
//! Invariant: the compiled spec of a rollout never changes, so cells of all its windows have the same layout.

use std::{borrow::Cow, collections::BTreeSet};

use serin_kinds::{Kind as _, Metric as _};
use serin_schemas::{
    ids::{Span, Version},
    records::Outcome,
    view::PredictionView,
};
use serin_sketches::{Summary, class_position};
use serin_spec::{MAX_RANKED, MetricKind, MetricSource, Mode, RolloutSpec, Rules, TrafficSource, WhenMissing};

use crate::{
    filter::{self, Condition, Places},
    join::Join,
    label::Label,
    pairing::Pairing,
    ranking::{self, ItemLabel, Ranked},
    value::{InSegments, NoSummary, Observed, Value, class_hash, is_error},
};

/// Name of a pseudo-label: the time of a label in microseconds. It is joined, kept and revised together with the
/// label.
pub(crate) fn time_of(label: &str) -> String {
    format!("{label}\0time")
}

/// The class of an answer without a fault, where the class is the cause of a fault.
const OK: &str = "ok";
/// The class of an answer without a status or cause, such as one that never arrived.
const NONE: &str = "none";

/// A number of an answer that a label metric or a condition needs later.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Needed {
    /// An output.
    Output(String),
    /// The item at a place of a ranking.
    Item { ranking: String, place: usize },
    /// When the answer was complete, in microseconds.
    Answered,
    /// 1 for a request with this value of a segment dimension, else 0.
    InSegment { dimension: String, value: String },
    /// What a metric without a label measures.
    Measured(Measure),
}

impl Needed {
    /// The number that an event brings; NaN where it brings none.
    pub(crate) fn of(&self, prediction: &PredictionView<'_>) -> f64 {
        match self {
            Self::Output(name) => prediction.outputs.get(name).unwrap_or(f64::NAN),
            Self::Item { ranking, place } => ranking::item(prediction.classes.get(ranking), *place),
            Self::Answered => prediction.completed_at.0 as f64,
            Self::InSegment { dimension, value } => {
                f64::from(u8::from(prediction.segments.get(dimension) == Some(value.as_str())))
            }
            Self::Measured(measure) if measure.takes(prediction.outcome()) => {
                filter::number(measure.value(prediction, false).as_ref())
            }
            Self::Measured(_) => f64::NAN,
        }
    }

    /// The ranking whose item it is.
    pub(crate) fn ranking(&self) -> Option<&str> {
        match self {
            Self::Item { ranking, .. } => Some(ranking),
            _ => None,
        }
    }

    /// Whether it is the first item of a ranking.
    pub(crate) fn is_first_item_of(&self, name: &str) -> bool {
        matches!(self, Self::Item { ranking, place: 0 } if ranking == name)
    }

    /// The output of a model server's own event that it reads.
    fn output(&self) -> Option<&str> {
        match self {
            Self::Output(name) | Self::Measured(Measure::Output(name)) => Some(name),
            Self::Item { .. } | Self::Answered | Self::InSegment { .. } | Self::Measured(_) => None,
        }
    }

    /// The class of a model server's own event that it reads.
    fn class(&self) -> Option<&str> {
        match self {
            Self::Item { ranking, .. } => Some(ranking),
            Self::Measured(Measure::Class { output, .. }) => Some(output),
            Self::Output(_) | Self::Answered | Self::InSegment { .. } | Self::Measured(_) => None,
        }
    }
}

/// What a metric measures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Measure {
    /// Rules 1: any error, whatever caused it.
    Error,
    /// Rules 1: any unusable output.
    Invalid,
    Failed,
    Refused,
    Unusable,
    Cancelled,
    Outcome,
    Status,
    Latency,
    Output(String),
    Class {
        output: String,
        is: Option<String>,
    },
    /// The value is known only with a label.
    Label(LabelMeasure),
}

/// How a label metric is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LabelMeasure {
    pub(crate) formula: Formula,
    /// Index in [`CompiledSpec::outputs`]; for [`Formula::WrongClass`] in [`CompiledSpec::classes`]; for [`Formula::Ranked`] that of
    /// the first item.
    pub(crate) output: Option<usize>,
    /// Index in [`CompiledSpec::labels`]; for [`Formula::WrongClass`] in [`CompiledSpec::truths`]; for [`Formula::Ranked`] that of the
    /// first slot. `None`: only the metric's conditions need labels.
    pub(crate) label: Option<usize>,
    /// Whether a missing label counts as 0.
    pub(crate) zero_if_missing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Formula {
    /// The label itself.
    Value,
    /// Whether the output, compared with the threshold, differs from the label.
    Wrong(f64),
    /// Whether the class differs from the class in the label.
    WrongClass,
    LogLoss,
    Squared,
    Absolute,
    /// How well a ranking puts the relevant items first.
    Ranked(Ranked),
    /// What the answer itself brought: only a condition needs the label.
    OfAnswer,
    /// Seconds from the answer to the label.
    Delay,
}

/// One compiled metric.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) kind: MetricKind,
    /// Whether a count keeps the number of answers per value: see [`Rules::count_by_value`].
    pub(crate) by_value: bool,
    pub(crate) measure: Measure,
    /// Conditions that an answer must meet to count.
    conditions: Vec<Condition>,
    /// For [`MetricKind::Disagreement`]: decides whether two answers agree.
    pub(crate) pairing: Option<Pairing>,
    /// Indexes in [`CompiledSpec::dimensions`].
    pub(crate) dimensions: Vec<usize>,
    /// Index in [`CompiledSpec::streams`].
    pub(crate) stream: usize,
}

/// A compiled rollout spec.
#[derive(Clone, Debug)]
pub(crate) struct CompiledSpec {
    /// The rules that decide what the rollout's records mean.
    pub(crate) rules: Rules,
    /// Whether another system splits the traffic. Predictions that arrive through intake are then counted themselves.
    pub(crate) external: bool,
    /// Whether arms are assigned by a key. One unit then has many answers, so their sums are kept per bucket of
    /// units.
    pub(crate) sticky: bool,
    /// Whether sums per unit are kept for every metric and segment, so that no finding depends on a few units: see
    /// [`Rules::guard_units`].
    pub(crate) guarded: bool,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    /// Window length.
    pub(crate) window: Span,
    pub(crate) grace: Span,
    /// How long after their end windows become complete, ascending. The first is 0.
    pub(crate) streams: Vec<Span>,
    pub(crate) metrics: Vec<Metric>,
    /// Names of the dimensions in which at least one metric is judged.
    pub(crate) dimensions: Vec<String>,
    /// Numbers of an answer that label metrics and conditions read.
    pub(crate) outputs: Vec<Needed>,
    /// Names of the categorical outputs that label metrics and conditions read.
    pub(crate) classes: Vec<String>,
    /// Names of the numeric labels that label metrics read.
    pub(crate) labels: Vec<String>,
    /// Names of the labels whose value is a class.
    pub(crate) truths: Vec<String>,
    /// The labels that are relevances of items. `truths` contains their slots.
    pub(crate) item_labels: Vec<ItemLabel>,
    /// Names of the labels whose time is read. `labels` contains the [`time_of`] each of them.
    pub(crate) timed: BTreeSet<String>,
    /// Metrics whose value may come from a model server's own event: at most 64, one bit each.
    pub(crate) fillable: Vec<usize>,
    /// Metrics that compare both answers to a mirrored call.
    pub(crate) paired: Vec<usize>,
}

fn index_of<T: PartialEq>(known: &mut Vec<T>, one: T) -> usize {
    known.iter().position(|other| *other == one).unwrap_or_else(|| {
        known.push(one);
        known.len() - 1
    })
}

impl Places for CompiledSpec {
    fn output(&mut self, name: &str) -> usize {
        index_of(&mut self.outputs, Needed::Output(name.to_owned()))
    }

    fn class(&mut self, name: &str) -> usize {
        index_of(&mut self.classes, name.to_owned())
    }

    fn label(&mut self, name: &str) -> usize {
        index_of(&mut self.labels, name.to_owned())
    }

    fn truth(&mut self, name: &str) -> usize {
        index_of(&mut self.truths, name.to_owned())
    }

    fn in_segment(&mut self, dimension: &str, value: &str) -> usize {
        let needed = Needed::InSegment { dimension: dimension.to_owned(), value: value.to_owned() };
        index_of(&mut self.outputs, needed)
    }
}

impl CompiledSpec {
    /// Compiles the spec of a rollout that is folded under these rules.
    pub(crate) fn new(spec: &RolloutSpec, rules: Rules) -> Self {
        let mut streams: Vec<Span> =
            spec.metrics.iter().map(|metric| Span(metric.settles_after(spec.window).0.0.max(0))).collect();
        streams.push(Span(0));
        streams.sort_unstable();
        streams.dedup();
        let mut compiled = Self {
            rules,
            external: spec.traffic == TrafficSource::External || spec.mode == Mode::Observe,
            sticky: spec.assignment.sticky.is_some(),
            guarded: spec.assignment.sticky.is_some() && rules.guard_units(),
            stable: spec.stable.version.clone(),
            canary: spec.canary.version.clone(),
            window: Span(spec.window.0.0.max(1)),
            grace: Span(spec.grace.0.0.max(0)),
            streams,
            metrics: Vec::with_capacity(spec.metrics.len()),
            dimensions: Vec::new(),
            outputs: Vec::new(),
            classes: Vec::new(),
            labels: Vec::new(),
            truths: Vec::new(),
            item_labels: Vec::new(),
            timed: BTreeSet::new(),
            fillable: Vec::new(),
            paired: Vec::new(),
        };
        compiled.add_rankings(spec);
        for metric in &spec.metrics {
            compiled.add(metric, spec);
        }
        compiled
    }

    /// Adds the items of each ranking, and the slots of each label of items, one after the other.
    fn add_rankings(&mut self, spec: &RolloutSpec) {
        for metric in &spec.metrics {
            let MetricSource::Ranking { output, label, .. } = &metric.source else { continue };
            if self.ranking(output).is_none() {
                let longest = |source: &MetricSource| match source {
                    MetricSource::Ranking { output: other, at, .. } if other == output => (*at).min(MAX_RANKED),
                    _ => 0,
                };
                let longest = spec.metrics.iter().map(|metric| longest(&metric.source)).max().unwrap_or_default();
                self.outputs.extend((0..longest).map(|place| Needed::Item { ranking: output.clone(), place }));
            }
            if !self.item_labels.iter().any(|known| known.label == *label) {
                let first = self.truths.len();
                self.truths.extend((0..ranking::ITEMS).map(|place| ranking::slot(label, place)));
                self.item_labels.push(ItemLabel { label: label.clone(), first });
            }
        }
    }

    /// The index of the first item of a ranking.
    fn ranking(&self, output: &str) -> Option<usize> {
        let is_first = |needed: &Needed| matches!(needed, Needed::Item { ranking, place: 0 } if ranking == output);
        self.outputs.iter().position(is_first)
    }

    fn add(&mut self, metric: &serin_spec::MetricSpec, spec: &RolloutSpec) {
        let index = self.metrics.len();
        let mut measure = self.measure(metric);
        let conditions: Vec<Condition> =
            metric.filters.iter().filter_map(|filter| Condition::new(filter, self)).collect();
        if conditions.iter().any(Condition::needs_label) && !matches!(measure, Measure::Label(_)) {
            let output = Some(index_of(&mut self.outputs, Needed::Measured(measure)));
            let formula = Formula::OfAnswer;
            measure = Measure::Label(LabelMeasure { formula, output, label: None, zero_if_missing: false });
        }
        let pairing = metric.kind.is_paired().then(|| Pairing::new(metric, spec));
        if pairing.is_some() {
            self.paired.push(index);
        } else if matches!(measure, Measure::Output(_) | Measure::Class { .. }) && self.fillable.len() < 64 {
            self.fillable.push(index);
        }
        let settles = Span(metric.settles_after(spec.window).0.0.max(0));
        let stream = self.streams.iter().position(|&stream| stream == settles).unwrap_or(0);
        let mut dimensions: Vec<usize> =
            metric.segments.iter().map(|name| index_of(&mut self.dimensions, name.clone())).collect();
        dimensions.dedup();
        let (name, kind) = (metric.name.clone(), metric.kind.clone());
        let by_value = self.rules.count_by_value();
        self.metrics.push(Metric { name, kind, by_value, measure, conditions, pairing, dimensions, stream });
    }

    fn measure(&mut self, spec: &serin_spec::MetricSpec) -> Measure {
        let zero_if_missing = spec.when_missing == WhenMissing::Zero;
        let mut label = |formula, output: Option<Needed>, label: &str| {
            let output = output.map(|needed| index_of(&mut self.outputs, needed));
            let label = Some(index_of(&mut self.labels, label.to_owned()));
            Measure::Label(LabelMeasure { formula, output, label, zero_if_missing })
        };
        let output = |name: &String| Some(Needed::Output(name.clone()));
        match &spec.source {
            MetricSource::Failed if self.rules.count_outcomes() => Measure::Failed,
            MetricSource::Failed => Measure::Error,
            MetricSource::Unusable if self.rules.count_outcomes() => Measure::Unusable,
            MetricSource::Unusable => Measure::Invalid,
            MetricSource::Refused => Measure::Refused,
            MetricSource::Cancelled => Measure::Cancelled,
            MetricSource::Outcome => Measure::Outcome,
            MetricSource::Status => Measure::Status,
            MetricSource::Latency => Measure::Latency,
            MetricSource::Output(name) => Measure::Output(name.clone()),
            MetricSource::Class { output, is } => Measure::Class { output: output.clone(), is: is.clone() },
            MetricSource::Feedback(name) => label(Formula::Value, None, name),
            MetricSource::LabelDelay(name) => {
                self.timed.insert(name.clone());
                label(Formula::Delay, Some(Needed::Answered), &time_of(name))
            }
            MetricSource::Wrong { output: name, label: truth, threshold } => {
                label(Formula::Wrong(*threshold), output(name), truth)
            }
            MetricSource::WrongClass { output: name, label: truth } => Measure::Label(LabelMeasure {
                formula: Formula::WrongClass,
                output: Some(index_of(&mut self.classes, name.clone())),
                label: Some(index_of(&mut self.truths, truth.clone())),
                zero_if_missing,
            }),
            MetricSource::LogLoss { output: name, label: truth } => label(Formula::LogLoss, output(name), truth),
            MetricSource::SquaredError { output: name, label: truth } => label(Formula::Squared, output(name), truth),
            MetricSource::AbsoluteError { output: name, label: truth } => label(Formula::Absolute, output(name), truth),
            MetricSource::Ranking { output: name, label: truth, measure, at } => Measure::Label(LabelMeasure {
                formula: Formula::Ranked(Ranked { measure: *measure, at: (*at).min(MAX_RANKED) }),
                output: self.ranking(name),
                label: self.item_labels.iter().find(|known| known.label == *truth).map(|known| known.first),
                zero_if_missing,
            }),
        }
    }

    /// Whether each dimension has a metric of all answers, from which warm-up learns its values. Otherwise the answers are counted.
    pub(crate) fn learns_from_metrics(&self) -> bool {
        let is_of_all =
            |metric: &Metric| metric.pairing.is_none() && metric.stream == 0 && metric.conditions.is_empty();
        let learns =
            |dimension| self.metrics.iter().any(|metric| is_of_all(metric) && metric.dimensions.contains(&dimension));
        (0..self.dimensions.len()).all(learns)
    }

    /// Whether a numeric output in a model server's own event is read.
    pub(crate) fn reads_output(&self, name: &str) -> bool {
        let of_metric = |metric: &Metric| matches!(&metric.measure, Measure::Output(output) if output == name);
        self.outputs.iter().any(|needed| needed.output() == Some(name)) || self.metrics.iter().any(of_metric)
    }

    /// Whether a categorical output in a model server's own event is read.
    pub(crate) fn reads_class(&self, name: &str) -> bool {
        let of_metric = |metric: &Metric| matches!(&metric.measure, Measure::Class { output, .. } if output == name);
        self.classes.iter().any(|known| known == name)
            || self.outputs.iter().any(|needed| needed.class() == Some(name))
            || self.metrics.iter().any(of_metric)
    }

    /// Whether an answer of which only this event is there meets all conditions of a metric; `None`: it cannot be decided.
    pub(crate) fn counts(&self, metric: &Metric, prediction: &PredictionView<'_>) -> Option<bool> {
        let number = |index: usize| self.outputs[index].of(prediction);
        let class = |index: usize| prediction.classes.get(&self.classes[index]).map(class_hash);
        let mut conditions = metric.conditions.iter().map(|condition| condition.holds_for(number, class));
        conditions.try_fold(true, |all, holds| Some(all && holds?))
    }

    /// The longest maturity.
    pub(crate) fn longest(&self) -> Span {
        self.streams.last().copied().unwrap_or_default()
    }
}

/// The cause of an answer's fault, or `ok` if it has none.
fn cause<'a>(went_wrong: bool, prediction: &PredictionView<'a>) -> Cow<'a, str> {
    match (went_wrong, prediction.error, prediction.status) {
        (false, ..) => OK.into(),
        (true, Some(error), _) => error.into(),
        (true, None, Some(status)) => format!("status_{status}").into(),
        (true, None, None) => NONE.into(),
    }
}

impl Measure {
    /// Whether a call with this outcome counts in the metric (since rules version 2). A call that its caller cancelled is no
    /// evidence about the version. An output is read only from an answer that is not known to be bad, because bad
    /// answers have their own gates.
    fn takes(&self, outcome: Outcome) -> bool {
        match self {
            Self::Outcome | Self::Cancelled => true,
            Self::Output(_) | Self::Class { .. } => matches!(outcome, Outcome::Ok | Outcome::Unread),
            _ => outcome != Outcome::Cancelled,
        }
    }

    /// Value of an answer. `None`: the answer has no value, or only a label can provide it. With `reasons`, a yes/no
    /// value is returned as the class of its reason.
    pub(crate) fn value<'a>(&self, prediction: &PredictionView<'a>, reasons: bool) -> Option<Value<'a>> {
        let flag = |yes: bool| Some(Value::Number(f64::from(u8::from(yes))));
        let share = |yes: bool| if reasons { Some(Value::Class(cause(yes, prediction))) } else { flag(yes) };
        match self {
            Self::Error => share(is_error(prediction)),
            Self::Failed => share(prediction.outcome() == Outcome::Failed),
            Self::Refused => share(matches!(prediction.outcome(), Outcome::Refused | Outcome::Redirected)),
            Self::Cancelled => flag(prediction.outcome() == Outcome::Cancelled),
            Self::Outcome => Some(Value::Class(prediction.outcome().as_str().into())),
            // An answer that was not read may be either.
            Self::Unusable if prediction.outcome() == Outcome::Unread => None,
            Self::Invalid | Self::Unusable if reasons => {
                Some(Value::Class(prediction.invalid_output.unwrap_or(OK).into()))
            }
            Self::Unusable => flag(prediction.outcome() == Outcome::Unusable),
            Self::Invalid => flag(prediction.invalid_output.is_some()),
            Self::Status => Some(Value::Class(
                prediction.status.map_or_else(|| Cow::Borrowed(NONE), |status| status.to_string().into()),
            )),
            Self::Latency => prediction.latency_us.map(|us| Value::Number(us as f64 / 1e3)),
            Self::Output(name) => prediction.outputs.get(name).map(Value::Number),
            Self::Class { output, is } => {
                let class = prediction.classes.get(output)?;
                is.as_ref().map_or_else(|| Some(Value::Class(class.into())), |is| flag(class == is.as_str()))
            }
            Self::Label(_) => None,
        }
    }
}

impl Metric {
    /// Whether a call with this outcome counts in the metric.
    pub(crate) fn takes(&self, outcome: Outcome) -> bool {
        self.measure.takes(outcome)
    }

    /// The metric's value of an answer, regardless of its conditions: that of the drawn row. `None`: the answer has no value, or
    /// only a label can provide it.
    pub(crate) fn value<'a>(&self, prediction: &PredictionView<'a>) -> Option<Value<'a>> {
        self.measure.value(prediction, self.kind.uses_reason())
    }

    /// The metric's [scaled](Self::scaled) value of an answer, regardless of its conditions. `None`: the answer has no value, or only
    /// a label can provide it.
    pub(crate) fn observed<'a>(&self, prediction: &PredictionView<'a>) -> Option<Result<Observed<'a>, NoSummary>> {
        let row = self.value(prediction);
        let Some(mean) = self.mean_of_rows(prediction) else {
            return row.map(|row| self.scaled(row).map(Observed::one).ok_or(NoSummary));
        };
        let in_segments = row.and_then(|row| self.scaled(row)).map_or(InSegments::Nothing, InSegments::Other);
        Some(self.scaled(Value::Number(mean)).map(|whole| Observed { whole, in_segments }).ok_or(NoSummary))
    }

    /// The mean over the rows of a call, if the metric uses it over all traffic. In a segment it uses the drawn row, because each row
    /// has its own segment. Conditions are decided for one row, so a metric with
    /// conditions uses that row.
    fn mean_of_rows(&self, prediction: &PredictionView<'_>) -> Option<f64> {
        let Measure::Output(name) = &self.measure else { return None };
        let uses_mean = self.kind.averages_rows() && self.conditions.is_empty();
        prediction.batch.as_ref().filter(|_| uses_mean)?.means.get(name)
    }

    /// Whether a waiting answer meets all conditions.
    pub(crate) fn counts(&self, join: &Join) -> bool {
        self.conditions.iter().all(|condition| condition.holds(join) == Some(true))
    }

    /// Whether the labels that the metric needs have arrived.
    pub(crate) fn has_labels(&self, measure: &LabelMeasure, join: &Join) -> bool {
        measure.has_label(join) && self.conditions.iter().all(|condition| condition.has_label(join))
    }

    /// An empty summary of the metric's kind.
    pub(crate) fn empty(&self) -> Summary {
        self.kind.empty(self.by_value)
    }

    /// The value in the form that its summary accepts. `None`: no summary can hold it.
    pub(crate) fn scaled<'a>(&self, value: Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Class(class) => self.kind.takes_classes().then_some(Value::Class(class)),
            Value::Number(value) if value.is_finite() => self.kind.scaled(value).map(Value::Number),
            Value::Number(_) => None,
        }
    }

    /// Whether the metric can be computed from sums per unit. Ranks and classes need summaries per unit.
    pub(crate) fn is_sum(&self) -> bool {
        self.kind.is_sum()
    }

    /// The position of a [scaled](Self::scaled) value among others, for the sums per bucket of units
    /// (`serin_sketches::Scatter`).
    pub(crate) fn position(&self, value: &Value<'_>) -> f64 {
        match value {
            Value::Class(class) => class_position(class),
            Value::Number(value) => self.kind.position(*value, self.by_value),
        }
    }
}

/// Distance that a probability keeps from 0 and 1, so that no loss is infinite.
const SMALLEST_PROBABILITY: f64 = 1e-15;

/// Logarithmic loss: `-ln` of the probability that was assigned to the outcome. `None`: the number is not a probability.
fn log_loss(probability: f64, happened: bool) -> Option<f64> {
    if !(0.0..=1.0).contains(&probability) {
        return None;
    }
    let given = if happened { probability } else { 1.0 - probability };
    Some(-given.max(SMALLEST_PROBABILITY).ln())
}

/// Adds a [scaled](Metric::scaled) value. A full summary (2^53 values) ignores further values.
pub(crate) fn insert(summary: &mut Summary, value: &Value<'_>, dither: u64) {
    // `scaled` has checked that the value fits. The only other error is a full summary, which no window reaches.
    let _ = match (summary, value) {
        (Summary::Rate(rate), Value::Number(value)) => rate.insert(*value >= 0.5),
        (Summary::Lin(hist), Value::Number(value)) => hist.insert(*value, dither),
        (Summary::Log(hist), Value::Number(value)) => hist.insert(*value),
        (Summary::Capped(hist), Value::Number(value)) => hist.insert(*value, dither),
        (Summary::Events(events), Value::Number(value)) => events.insert(*value as u64, 1),
        (Summary::Classes(counts), Value::Class(class)) => counts.insert(class),
        _ => Ok(()),
    };
}

/// The slots of a label of items.
fn slots(join: &Join, first: usize) -> &[Option<Label<u64>>] {
    join.truths.get(first..first + ranking::ITEMS).unwrap_or_default()
}

impl LabelMeasure {
    /// Whether the metric measures the answer itself rather than the behavior of a user who saw the answer.
    pub(crate) fn is_of_answer(&self) -> bool {
        !matches!(self.formula, Formula::Value | Formula::Delay)
    }

    /// Whether the label has arrived. `true` if only conditions need labels.
    pub(crate) fn has_label(&self, join: &Join) -> bool {
        let Some(label) = self.label else { return true };
        match self.formula {
            Formula::WrongClass => join.truths.get(label).is_some_and(Option::is_some),
            Formula::Ranked(_) => slots(join, label).iter().any(Option::is_some),
            _ => join.labels.get(label).is_some_and(Option::is_some),
        }
    }

    /// The metric's value. `None`: it cannot be computed.
    pub(crate) fn value(&self, join: &Join) -> Option<f64> {
        if self.formula == Formula::WrongClass {
            // There is no class that means "it did not happen", so a missing class label has no default.
            let truth = join.truths.get(self.label?).copied().flatten()?;
            let class = join.classes.get(self.output?).copied().flatten()?;
            return Some(f64::from(u8::from(class != truth.value)));
        }
        if let Formula::Ranked(ranked) = self.formula {
            let first = self.output?;
            let ranking = join.outputs.get(first..first + ranked.at)?;
            let slots = slots(join, self.label?);
            if slots.iter().all(Option::is_none) {
                // No feedback: nothing was relevant, or it is not known.
                let ranks = ranking.iter().any(|item| !item.is_nan());
                return (self.zero_if_missing && ranks).then_some(0.0);
            }
            return ranked.value(ranking, slots);
        }
        let label = self.label.and_then(|label| join.labels.get(label).copied().flatten()).map(|label| label.value);
        let label = label.or((self.zero_if_missing || self.label.is_none()).then_some(0.0))?;
        let output = match self.output {
            Some(index) => join.outputs.get(index).copied().filter(|value| !value.is_nan())?,
            None => 0.0,
        };
        Some(match self.formula {
            Formula::Value => label,
            Formula::Wrong(threshold) => f64::from(u8::from((output >= threshold) != (label >= 0.5))),
            Formula::OfAnswer => output,
            Formula::LogLoss => log_loss(output, label >= 0.5)?,
            Formula::Squared => (output - label) * (output - label),
            // Both are whole numbers of microseconds far below 2^53, so exact.
            Formula::Delay => ((label - output) / 1e6).max(0.0),
            Formula::Absolute | Formula::WrongClass | Formula::Ranked(_) => (output - label).abs(),
        })
    }
}
