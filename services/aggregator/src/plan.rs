//! A rollout spec made ready for the hot path: names become indexes once, when the rollout begins.
//!
//! Invariant: the plan of a rollout never changes, so cells of all its windows have the same layout.

use serin_rollout::{MetricKind, MetricSource, Mode, RolloutSpec, TrafficSource, WhenMissing};
use serin_schemas::{
    ids::{Span, Version},
    records::{Origin, Prediction},
};
use serin_sketches::{CappedHist, LinHist, LogHist, Rate, Summary};

/// What a metric measures on the answer itself.
#[derive(Clone, Debug)]
pub(crate) enum Measure {
    Error,
    Invalid,
    Latency,
    Output(String),
    Class {
        output: String,
        is: String,
    },
    /// Known only with a label.
    Label(LabelMeasure),
    /// No value is taken.
    Unsketched,
}

/// How a label metric is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelMeasure {
    pub(crate) formula: Formula,
    /// Index in [`Plan::outputs`].
    pub(crate) output: Option<usize>,
    /// Index in [`Plan::labels`].
    pub(crate) label: usize,
    /// A missing label is a 0.
    pub(crate) zero_if_missing: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Formula {
    /// The label itself.
    Value,
    /// Output cut at the threshold differs from the label.
    Wrong(f64),
    Squared,
    Absolute,
}

/// One metric.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) kind: MetricKind,
    pub(crate) measure: Measure,
    /// Indexes in [`Plan::dimensions`].
    pub(crate) dimensions: Vec<usize>,
    /// Index in [`Plan::streams`].
    pub(crate) stream: usize,
}

/// A spec, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Somebody else splits the traffic: predictions through intake count themselves.
    pub(crate) external: bool,
    pub(crate) stable: Version,
    pub(crate) canary: Version,
    /// Window length.
    pub(crate) window: Span,
    pub(crate) grace: Span,
    /// Maturities, ascending; the first is 0.
    pub(crate) streams: Vec<Span>,
    pub(crate) metrics: Vec<Metric>,
    /// Names of the dimensions that some metric is judged in.
    pub(crate) dimensions: Vec<String>,
    /// Names of the outputs that label metrics need.
    pub(crate) outputs: Vec<String>,
    /// Names of the labels that label metrics need.
    pub(crate) labels: Vec<String>,
    /// Metrics whose value a model server's own event may bring; at most 64, one bit each.
    pub(crate) fillable: Vec<usize>,
}

fn index_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

impl Plan {
    pub(crate) fn new(spec: &RolloutSpec) -> Self {
        let waits = |metric: &&serin_rollout::MetricSpec| metric.source.needs_label() && metric.maturity.0.0 > 0;
        let mut streams: Vec<Span> = spec.metrics.iter().filter(waits).map(|metric| metric.maturity.0).collect();
        streams.push(Span(0));
        streams.sort_unstable();
        streams.dedup();
        let mut plan = Self {
            external: spec.traffic == TrafficSource::External || spec.mode == Mode::Observe,
            stable: spec.stable.version.clone(),
            canary: spec.canary.version.clone(),
            window: Span(spec.window.0.0.max(1)),
            grace: Span(spec.grace.0.0.max(0)),
            streams,
            metrics: Vec::with_capacity(spec.metrics.len()),
            dimensions: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            fillable: Vec::new(),
        };
        for metric in &spec.metrics {
            plan.add(metric);
        }
        plan
    }

    fn add(&mut self, spec: &serin_rollout::MetricSpec) {
        let measure = self.measure(spec);
        if matches!(measure, Measure::Output(_) | Measure::Class { .. }) && self.fillable.len() < 64 {
            self.fillable.push(self.metrics.len());
        }
        let stream = match measure {
            Measure::Label(_) => self.streams.iter().position(|&stream| stream == spec.maturity.0).unwrap_or(0),
            _ => 0,
        };
        let mut dimensions: Vec<usize> =
            spec.segments.iter().map(|name| index_of(&mut self.dimensions, name)).collect();
        dimensions.dedup();
        self.metrics.push(Metric { name: spec.name.clone(), kind: spec.kind.clone(), measure, dimensions, stream });
    }

    fn measure(&mut self, spec: &serin_rollout::MetricSpec) -> Measure {
        let zero_if_missing = spec.when_missing == WhenMissing::Zero;
        let mut label = |formula, output: Option<&String>, label: &str| {
            Measure::Label(LabelMeasure {
                formula,
                output: output.map(|name| index_of(&mut self.outputs, name)),
                label: index_of(&mut self.labels, label),
                zero_if_missing,
            })
        };
        match &spec.source {
            MetricSource::Error => Measure::Error,
            MetricSource::InvalidOutput => Measure::Invalid,
            MetricSource::Latency => Measure::Latency,
            MetricSource::Output(name) => Measure::Output(name.clone()),
            MetricSource::Class { output, is: Some(is) } => Measure::Class { output: output.clone(), is: is.clone() },
            // Sketched from the next commit on.
            MetricSource::Class { is: None, .. } | MetricSource::Status | MetricSource::WrongClass { .. } => {
                Measure::Unsketched
            }
            MetricSource::Feedback(name) => label(Formula::Value, None, name),
            MetricSource::Wrong { output, label: truth, threshold } => {
                label(Formula::Wrong(*threshold), Some(output), truth)
            }
            MetricSource::SquaredError { output, label: truth } => label(Formula::Squared, Some(output), truth),
            MetricSource::AbsoluteError { output, label: truth } => label(Formula::Absolute, Some(output), truth),
        }
    }

    /// The longest maturity.
    pub(crate) fn longest(&self) -> Span {
        self.streams.last().copied().unwrap_or_default()
    }
}

/// Whether the answer counts as an error: status 500 or above, none at all, or one that broke off. A model server's own event
/// need not know a status.
pub(crate) fn is_error(prediction: &Prediction) -> bool {
    match prediction.status {
        Some(status) => status >= 500 || (status < 400 && prediction.error.is_some()),
        None => prediction.error.is_some() || prediction.origin == Origin::Router,
    }
}

impl Metric {
    /// The metric's value for an answer; `None` when the answer has none, or only a label can tell.
    pub(crate) fn value(&self, prediction: &Prediction) -> Option<f64> {
        let flag = |yes: bool| Some(f64::from(u8::from(yes)));
        match &self.measure {
            Measure::Error => flag(is_error(prediction)),
            Measure::Invalid => flag(prediction.invalid_output.is_some()),
            Measure::Latency => prediction.latency_us.map(|us| us as f64 / 1e3),
            Measure::Output(name) => prediction.outputs.get(name).copied(),
            Measure::Class { output, is } => prediction.classes.get(output).and_then(|class| flag(class == is)),
            Measure::Label(_) | Measure::Unsketched => None,
        }
    }

    /// An empty summary of the metric's kind.
    pub(crate) fn empty(&self) -> Summary {
        match self.kind {
            MetricKind::Rate => Summary::Rate(Rate::default()),
            MetricKind::Mean { .. } => Summary::Lin(LinHist::new()),
            MetricKind::CappedMean { cap } => {
                CappedHist::new(cap).map_or_else(|| Summary::Rate(Rate::default()), Summary::Capped)
            }
            MetricKind::Quantile { .. } | MetricKind::Distribution => Summary::Log(LogHist::new()),
            MetricKind::Classes | MetricKind::Count | MetricKind::Disagreement => Summary::Rate(Rate::default()),
        }
    }

    /// The value as its summary takes it: a mean scaled to [0, 1] and clamped. `None`: no summary can hold it.
    pub(crate) fn scaled(&self, value: f64) -> Option<f64> {
        match self.kind {
            _ if !value.is_finite() => None,
            MetricKind::Rate => Some(value),
            MetricKind::Mean { min, max } if max > min => Some(((value - min) / (max - min)).clamp(0.0, 1.0)),
            MetricKind::Mean { .. } => None,
            MetricKind::CappedMean { .. } | MetricKind::Quantile { .. } | MetricKind::Distribution => {
                (value >= 0.0).then_some(value)
            }
            MetricKind::Classes | MetricKind::Count | MetricKind::Disagreement => None,
        }
    }
}

/// Adds a [scaled](Metric::scaled) value. A full summary (2^53 values) takes no more.
pub(crate) fn insert(summary: &mut Summary, value: f64, dither: u64) {
    // The value fits by `scaled`; what remains is "full", which no window reaches.
    let _ = match summary {
        Summary::Rate(rate) => rate.insert(value >= 0.5),
        Summary::Lin(hist) => hist.insert(value, dither),
        Summary::Log(hist) => hist.insert(value),
        Summary::Capped(hist) => hist.insert(value, dither),
        _ => Ok(()),
    };
}

impl LabelMeasure {
    /// The metric's value, given outputs and labels (NaN: absent). `None`: it cannot be told.
    pub(crate) fn value(&self, outputs: &[f64], label: Option<f64>) -> Option<f64> {
        let label = label.or(self.zero_if_missing.then_some(0.0))?;
        let output = match self.output {
            Some(index) => outputs.get(index).copied().filter(|value| !value.is_nan())?,
            None => 0.0,
        };
        Some(match self.formula {
            Formula::Value => label,
            Formula::Wrong(threshold) => f64::from(u8::from((output >= threshold) != (label >= 0.5))),
            Formula::Squared => (output - label) * (output - label),
            Formula::Absolute => (output - label).abs(),
        })
    }
}
