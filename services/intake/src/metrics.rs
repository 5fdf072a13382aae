//! The intake's metrics.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, global, metrics::Counter};

/// Records relayed by the intake, by kind.
pub const INTAKE_RELAYED: &str = "serin_intake_relayed_total";
/// Relayed records whose time was more than 2 s ahead of the log and was replaced with the log's time.
pub const INTAKE_AHEAD: &str = "serin_intake_ahead_total";

struct Instruments {
    relayed: Counter<u64>,
    ahead: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("serin");
    let counter = |name: &'static str, about: &'static str| meter.u64_counter(name).with_description(about).build();
    Instruments {
        relayed: counter(INTAKE_RELAYED, "Records relayed by the intake, by kind"),
        ahead: counter(INTAKE_AHEAD, "Relayed records whose time was ahead of the log's and was replaced with it"),
    }
});

/// Counts relayed records of one kind. Counting 0 creates the series.
pub(crate) fn relayed(kind: &'static str, count: u64) {
    INSTRUMENTS.relayed.add(count, &[KeyValue::new("kind", kind)]);
}

/// Counts relayed records whose time was ahead of the log. Counting 0 creates the series.
pub(crate) fn ahead(count: u64) {
    INSTRUMENTS.ahead.add(count, &[]);
}
