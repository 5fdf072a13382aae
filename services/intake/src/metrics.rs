//! The intake's metrics.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, metrics::Counter};
use serin_stream::{declare_metrics, metric::words};

/// The doors whose calls have two parts.
pub(crate) const DOORS: [&str; 2] = ["kserve", "seldon"];
/// The parts of a call.
pub(crate) const PARTS: [&str; 2] = ["request", "response"];

declare_metrics! {
    pub METRICS {
        /// Records that the intake has relayed: predictions and feedback to `events`, and requests and responses of payload loggers
        /// (`half`) to the partition of `predictions` in which both parts of their call meet.
        INTAKE_RELAYED = Counter "serin_intake_relayed_total" in "{record}" [words("kind", &["prediction", "feedback", "half"])];
        /// Relayed records whose time was more than 2 s ahead of the log and was replaced with the log's time.
        INTAKE_AHEAD = Counter "serin_intake_ahead_total" in "{record}" [];
        /// Requests and responses of payload loggers whose other part did not arrive in time. They are dead-lettered with the code
        /// `unpaired`.
        INTAKE_UNPAIRED = Counter "serin_intake_unpaired_total" in "{record}" [
            words("door", &DOORS), words("part", &PARTS),
        ];
        /// Requests and responses of payload loggers that arrived again and were dropped.
        INTAKE_REPEATED = Counter "serin_intake_repeated_total" in "{record}" [];
    }
}

struct Instruments {
    relayed: Counter<u64>,
    ahead: Counter<u64>,
    unpaired: Counter<u64>,
    repeated: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| Instruments {
    relayed: INTAKE_RELAYED.counter(),
    ahead: INTAKE_AHEAD.counter(),
    unpaired: INTAKE_UNPAIRED.counter(),
    repeated: INTAKE_REPEATED.counter(),
});

/// Counts relayed records of one kind. Counting 0 creates the series.
pub(crate) fn relayed(kind: &'static str, count: u64) {
    INSTRUMENTS.relayed.add(count, &[KeyValue::new("kind", kind)]);
}

/// Counts relayed records whose time was ahead of the log. Counting 0 creates the series.
pub(crate) fn ahead(count: u64) {
    INSTRUMENTS.ahead.add(count, &[]);
}

/// Counts parts of calls that were dead-lettered because their other part did not arrive. Counting 0 creates the series.
pub(crate) fn unpaired(door: &'static str, part: &'static str, count: u64) {
    INSTRUMENTS.unpaired.add(count, &[KeyValue::new("door", door), KeyValue::new("part", part)]);
}

/// Counts parts of calls that arrived again. Counting 0 creates the series.
pub(crate) fn repeated(count: u64) {
    INSTRUMENTS.repeated.add(count, &[]);
}
