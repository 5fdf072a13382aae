//! Names of the controller's metrics and how they are recorded.

use std::sync::OnceLock;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};
use serin_rollout::Effects;
use serin_schemas::records::EventKind;

/// Audit events by kind.
const EVENTS: &str = "serin_rollout_events_total";
/// Index of the step, from 0; -1 before the first.
const STEP: &str = "serin_rollout_step";
/// Share of the traffic per version and arm, 0 to 1.
const WEIGHT: &str = "serin_routing_weight_ratio";
/// Routing tables written, lease renewals too.
const TABLES: &str = "serin_routing_tables_total";

/// How long each part of a rollback took, in seconds: label `phase`. Here `decided`: from the end of the deciding window, or the
/// event time of the command, to the decision. Routers know `applied` and `drained`.
const ROLLBACK: &str = "serin_rollback_seconds";
/// Upper bounds of its buckets.
const ROLLING_BACK: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// A longer time says that event time is not that of the wall: recorded traffic is replayed.
const REPLAYED: f64 = 3600.0;

struct Instruments {
    events: Counter<u64>,
    step: Gauge<i64>,
    weight: Gauge<f64>,
    tables: Counter<u64>,
    rollback: Histogram<f64>,
}

fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| {
        let meter = opentelemetry::global::meter("serin");
        Instruments {
            events: meter.u64_counter(EVENTS).with_description("Audit events by kind").build(),
            step: meter.i64_gauge(STEP).with_description("Index of the step, from 0; -1 before the first").build(),
            weight: meter
                .f64_gauge(WEIGHT)
                .with_description("Share of the traffic per version and arm, 0 to 1")
                .build(),
            rollback: meter
                .f64_histogram(ROLLBACK)
                .with_description("How long each part of a rollback took")
                .with_unit("s")
                .with_boundaries(ROLLING_BACK.to_vec())
                .build(),
            tables: meter.u64_counter(TABLES).with_description("Routing tables written, renewals too").build(),
        }
    })
}

/// Records what was committed.
pub(crate) fn record(effects: &Effects) {
    let instruments = instruments();
    for event in &effects.events {
        let model = KeyValue::new("model", event.model.0.clone());
        instruments.events.add(1, &[model.clone(), KeyValue::new("kind", kind(event.kind))]);
        let took = event.recorded_at.since(event.at).as_secs_f64();
        if event.kind == EventKind::RolledBack && (0.0..REPLAYED).contains(&took) {
            instruments.rollback.record(took, &[KeyValue::new("phase", "decided")]);
        }
        if event.state.is_some() {
            instruments.step.record(i64::from(event.step), &[model]);
        }
    }
    for table in &effects.tables {
        instruments.tables.add(1, &[KeyValue::new("model", table.model.0.clone())]);
        for route in &table.routes {
            let labels = [
                KeyValue::new("model", table.model.0.clone()),
                KeyValue::new("version", route.version.0.clone()),
                KeyValue::new("arm", route.arm.as_str()),
            ];
            instruments.weight.record(f64::from(route.share) / 1e4, &labels);
        }
    }
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "started",
        EventKind::Refused => "refused",
        EventKind::Advanced => "advanced",
        EventKind::Held => "held",
        EventKind::Resumed => "resumed",
        EventKind::Paused => "paused",
        EventKind::Promoted => "promoted",
        EventKind::Completed => "completed",
        EventKind::RolledBack => "rolled_back",
        EventKind::Aborted => "aborted",
        EventKind::Superseded => "superseded",
        EventKind::Warned => "warned",
    }
}
