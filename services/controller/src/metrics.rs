//! Names of the controller's metrics and how they are recorded.

use std::sync::OnceLock;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge},
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

struct Instruments {
    events: Counter<u64>,
    step: Gauge<i64>,
    weight: Gauge<f64>,
    tables: Counter<u64>,
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
