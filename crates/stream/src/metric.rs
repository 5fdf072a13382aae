//! Declarations of metrics. Instruments, their help on `/metrics` and docs/metrics.md are made from the same declaration.
//!
//! Each crate declares its metrics with [`declare_metrics!`](crate::declare_metrics) in its `metrics.rs`.

use opentelemetry::{
    global,
    metrics::{AsyncInstrument, Counter, Histogram, Meter},
};

/// The declaration of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name on `/metrics`.
    pub name: &'static str,
    /// Kind of the metric.
    pub kind: Kind,
    /// Unit of the values in UCUM notation: `s`, `By`, `1` for a ratio, or the counted thing in braces.
    pub unit: &'static str,
    /// Labels of the series.
    pub labels: &'static [Label],
    /// Meaning of the metric, with the leading space of its doc comment. [`Metric::help`] returns it without that space.
    pub about: &'static str,
}

/// How the values of a metric change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows, from 0 at the start of the process.
    Counter,
    /// The present value.
    Gauge,
    /// Counts of values in buckets.
    Histogram,
}

impl Kind {
    /// The type as `/metrics` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Name of the label.
    pub name: &'static str,
    /// Values of the label.
    pub values: Values,
}

/// The values that a label can have. They are always bounded.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these words.
    Words(&'static [&'static str]),
    /// A bounded set that this text describes.
    Bounded(&'static str),
}

/// A label whose value is one of these words.
pub const fn words(name: &'static str, words: &'static [&'static str]) -> Label {
    Label { name, values: Values::Words(words) }
}

/// A label whose values are a bounded set that this text describes.
pub const fn bounded(name: &'static str, bound: &'static str) -> Label {
    Label { name, values: Values::Bounded(bound) }
}

/// Label with the model of a call, rollout or verdict.
pub const MODEL: Label = bounded("model", "models with a rollout, and models in `router.models`");
/// Label with a version of a model.
pub const VERSION: Label = bounded("version", "versions in routing tables, and versions in `router.models`");
/// Label with the arm of a call.
pub const ARM: Label = words("arm", &["stable", "control", "canary", "shadow"]);
/// Label with a metric of a rollout file.
pub const METRIC: Label = bounded("metric", "metrics of the rollout file, at most 200");
/// Label with the stage.
pub const STAGE: Label = words("stage", &["intake", "aggregator", "analyzer", "controller", "connector"]);
/// Label with an input partition of a stage.
pub const PARTITION: Label = bounded("partition", "input partitions that the process has now");

/// Labels that several metrics share. docs/metrics.md describes them once.
pub const SHARED: [Label; 6] = [MODEL, VERSION, ARM, METRIC, STAGE, PARTITION];

impl Metric {
    /// Meaning of the metric, shown on `/metrics` and in docs/metrics.md.
    pub fn help(&self) -> &'static str {
        self.about.trim_ascii()
    }

    /// Creates the counter.
    pub fn counter(&self) -> Counter<u64> {
        meter().u64_counter(self.name).with_description(self.help()).with_unit(self.unit).build()
    }

    /// Creates the histogram. `bounds` are the upper bounds of the buckets, in the unit of the metric.
    pub fn histogram(&self, bounds: &[f64]) -> Histogram<f64> {
        let meter = meter();
        let builder = meter.f64_histogram(self.name).with_description(self.help()).with_unit(self.unit);
        builder.with_boundaries(bounds.to_vec()).build()
    }

    /// Creates a gauge of whole numbers that calls `callback` at each scrape.
    pub fn observe(&self, callback: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static) {
        let meter = meter();
        let builder = meter.u64_observable_gauge(self.name).with_description(self.help()).with_unit(self.unit);
        builder.with_callback(callback).build();
    }

    /// Creates a gauge of floating-point numbers that calls `callback` at each scrape.
    pub fn observe_f64(&self, callback: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static) {
        let meter = meter();
        let builder = meter.f64_observable_gauge(self.name).with_description(self.help()).with_unit(self.unit);
        builder.with_callback(callback).build();
    }
}

/// The meter of all instruments.
pub fn meter() -> Meter {
    global::meter("serin")
}

/// Declares the metrics of a crate, each as a constant, and the list of all of them. The doc comment of a metric is its help on
/// `/metrics` and its meaning in docs/metrics.md.
///
/// ```text
/// declare_metrics! {
///     pub METRICS {
///         /// Verdicts.
///         DECISIONS = Counter "serin_verdicts_total" in "{verdict}" [MODEL, words("decision", &["promote", "hold"])];
///     }
/// }
/// ```
#[macro_export]
macro_rules! declare_metrics {
    ($(#[$attribute:meta])? $vis:vis $all:ident {
        $($(#[doc = $about:literal])+ $name:ident = $kind:ident $text:literal in $unit:literal [$($label:expr),* $(,)?];)+
    }) => {
        $(
            $(#[doc = $about])+
            $vis const $name: $crate::metric::Metric = $crate::metric::Metric {
                name: $text,
                kind: $crate::metric::Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                about: concat!($($about),+),
            };
        )+

        /// All metrics of this declaration.
        $(#[$attribute])?
        $vis const $all: &[$crate::metric::Metric] = &[$($name),+];
    };
}
