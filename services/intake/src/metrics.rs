//! The intake's metrics.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, metrics::Counter};
use serin_stream::{declare_metrics, metric::words};

declare_metrics! {
    pub METRICS {
        /// Records that the intake has relayed to `events`.
        INTAKE_RELAYED = Counter "serin_intake_relayed_total" in "{record}" [words("kind", &["prediction", "feedback"])];
        /// Relayed records whose time was more than 2 s ahead of the log and was replaced with the log's time.
        INTAKE_AHEAD = Counter "serin_intake_ahead_total" in "{record}" [];
    }
}

struct Instruments {
    relayed: Counter<u64>,
    ahead: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> =
    LazyLock::new(|| Instruments { relayed: INTAKE_RELAYED.counter(), ahead: INTAKE_AHEAD.counter() });

/// Counts relayed records of one kind. Counting 0 creates the series.
pub(crate) fn relayed(kind: &'static str, count: u64) {
    INSTRUMENTS.relayed.add(count, &[KeyValue::new("kind", kind)]);
}

/// Counts relayed records whose time was ahead of the log. Counting 0 creates the series.
pub(crate) fn ahead(count: u64) {
    INSTRUMENTS.ahead.add(count, &[]);
}
