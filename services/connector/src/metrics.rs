//! The connector's metrics and how they are recorded. A destination has its series from the start of the process on.

use std::sync::{LazyLock, OnceLock};

use opentelemetry::{KeyValue, metrics::Counter};
use serin_schemas::records::DeliveryOutcome;
use serin_stream::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    metric::{Label, bounded, words},
};

/// Label with a destination.
const DESTINATION: Label = bounded("destination", "destinations in `connector.destinations`, at most 100");

declare_metrics! {
    pub METRICS {
        /// Deliveries with a result. `delivered`: accepted by the destination. `refused`: the destination cannot use the content.
        /// `expired`: not accepted within `connector.give_up_after`. `dropped`: too many deliveries wait.
        DELIVERIES = Counter "serin_deliveries_total" in "{delivery}"
            [DESTINATION, words("result", &["delivered", "refused", "expired", "dropped"])];
        /// Deliveries without a result.
        WAITING = Gauge "serin_deliveries_waiting" in "{delivery}" [DESTINATION];
        /// 1 while the circuit breaker of a destination is open, because its last calls failed, otherwise 0.
        BREAKER_OPEN = Gauge "serin_destination_breaker_open" in "1" [DESTINATION];
    }
}

fn deliveries() -> &'static Counter<u64> {
    static COUNTER: OnceLock<Counter<u64>> = OnceLock::new();
    COUNTER.get_or_init(|| DELIVERIES.counter())
}

static DEPTHS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&WAITING));
static BREAKERS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&BREAKER_OPEN));

/// The gauges of one destination.
#[derive(Debug)]
pub(crate) struct Shown {
    depth: Series,
    open: Series,
}

impl Shown {
    /// Shows a destination without deliveries.
    pub(crate) fn new(destination: &str) -> Self {
        for outcome in DeliveryOutcome::ALL {
            count(destination, outcome, 0);
        }
        let labels = || vec![KeyValue::new("destination", destination.to_owned())];
        Self { depth: DEPTHS.hold(labels(), 0.0), open: BREAKERS.hold(labels(), 0.0) }
    }

    /// Shows the present state.
    pub(crate) fn set(&self, depth: usize, is_open: bool) {
        self.depth.set(depth as f64);
        self.open.set(f64::from(u8::from(is_open)));
    }
}

/// Counts deliveries with a result. A count of 0 creates the series.
pub(crate) fn count(destination: &str, outcome: DeliveryOutcome, count: u64) {
    let labels = [KeyValue::new("destination", destination.to_owned()), KeyValue::new("result", outcome.as_str())];
    deliveries().add(count, &labels);
}
