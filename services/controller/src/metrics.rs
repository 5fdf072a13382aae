//! Names of the controller's metrics, and how they are recorded.
//!
//! Counters of a model exist, at 0, from its first record on, because Prometheus does not see an increase from nothing. Gauges show
//! the present: they exist as long as the model's state.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use serin_rollout::{
    Effects, ModelState,
    planner::{Ended, Outcome},
};
use serin_schemas::{
    ids::ModelName,
    records::{EventKind, Phase, RolloutEvent, RoutingTable},
};
use serin_stream::gauge::{PresentGauge, Series};
use tokio::sync::watch;

use crate::view::View;

/// Audit events: labels `model`, `kind`.
const EVENTS: &str = "serin_rollout_events_total";
/// 1 for the phase of a model's rollout: the active one, or else the one that ended last. Labels `model`, `phase`.
const PHASE: &str = "serin_rollout_phase";
/// Index of the step of the active rollout, from 0; -1 before the first step. Label `model`.
const STEP: &str = "serin_rollout_step";
/// Share of the traffic in the routing table that was written last, 0 to 1: labels `model`, `version`, `arm`.
const WEIGHT: &str = "serin_routing_weight_ratio";
/// Routing tables written, including lease renewals. Label `model`.
const TABLES: &str = "serin_routing_tables_total";

/// Bytes of the records that the API keeps: label `map` (`rollouts`: states, newest verdicts and events, `answers`: answers to
/// commands, `tables`: routing tables, `routers`: reports of routers).
const API_MEMORY: &str = "serin_api_memory_bytes";
/// Deliveries of the registry's webhook: label `outcome` (`started`: a rollout was requested, `ignored`: no policy applies,
/// `refused`: not signed or not understood, `failed`: to be delivered again).
const DELIVERIES: &str = "serin_webhook_deliveries_total";

/// How long each part of a rollback took, in seconds: label `phase`. The controller records `decided`: from the end of the deciding
/// window, or the event time of the command, to the decision. Routers record `applied` and `drained`.
const ROLLBACK: &str = "serin_rollback_seconds";
/// Upper bounds of its buckets.
const ROLLING_BACK: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// A longer time shows that event time is not wall-clock time, because recorded traffic is replayed.
const REPLAYED: f64 = 3600.0;

/// Shows what the API keeps, from the newest snapshot.
pub(crate) fn observe_view(view: watch::Receiver<Arc<View>>) {
    opentelemetry::global::meter("serin")
        .u64_observable_gauge(API_MEMORY)
        .with_description("Bytes of the records that the API keeps")
        .with_callback(move |observer| {
            let bytes = view.borrow().bytes();
            for (map, bytes) in bytes {
                observer.observe(bytes as u64, &[KeyValue::new("map", map)]);
            }
        })
        .build();
}

struct Counters {
    events: Counter<u64>,
    tables: Counter<u64>,
    deliveries: Counter<u64>,
    rollback: Histogram<f64>,
}

fn counters() -> &'static Counters {
    static COUNTERS: OnceLock<Counters> = OnceLock::new();
    COUNTERS.get_or_init(|| {
        let meter = opentelemetry::global::meter("serin");
        Counters {
            events: meter.u64_counter(EVENTS).with_description("Audit events by kind").build(),
            rollback: meter
                .f64_histogram(ROLLBACK)
                .with_description("How long each part of a rollback took")
                .with_unit("s")
                .with_boundaries(ROLLING_BACK.to_vec())
                .build(),
            deliveries: meter.u64_counter(DELIVERIES).with_description("Deliveries of the webhook by outcome").build(),
            tables: meter.u64_counter(TABLES).with_description("Routing tables written, including renewals").build(),
        }
    })
}

static PHASES: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(PHASE, "1 for the phase of a model's rollout, active or ended last"));
static STEPS: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(STEP, "Index of the step of the active rollout, from 0; -1 before the first"));
static WEIGHTS: LazyLock<PresentGauge> =
    LazyLock::new(|| PresentGauge::new(WEIGHT, "Share of the traffic per version and arm, 0 to 1"));

/// The gauges of one fold's models. They are removed with the fold.
#[derive(Debug, Default)]
pub(crate) struct Shown(BTreeMap<ModelName, ShownModel>);

#[derive(Debug, Default)]
struct ShownModel {
    /// Phase and step.
    rollout: Vec<Series>,
    weights: Vec<Series>,
}

impl Shown {
    /// Shows the state of a model's rollout.
    pub(crate) fn state(&mut self, state: &ModelState) {
        let label = || KeyValue::new("model", state.model.0.clone());
        let phase = state.active.as_ref().map(|rollout| rollout.phase).or_else(|| state.ended.back().map(phase_of));
        let phase = phase.map(|phase| PHASES.hold(vec![label(), KeyValue::new("phase", phase.as_str())], 1.0));
        let step = state.active.as_ref().map(|rollout| STEPS.hold(vec![label()], f64::from(rollout.step)));
        self.model(&state.model).rollout = phase.into_iter().chain(step).collect();
    }

    /// Shows a model's newest routing table.
    pub(crate) fn table(&mut self, table: &RoutingTable) {
        let weight = |route: &serin_schemas::records::Route| {
            let labels = vec![
                KeyValue::new("model", table.model.0.clone()),
                KeyValue::new("version", route.version.0.clone()),
                KeyValue::new("arm", route.arm.as_str()),
            ];
            WEIGHTS.hold(labels, f64::from(route.share) / 1e4)
        };
        self.model(&table.model).weights = table.routes.iter().map(weight).collect();
    }

    /// A model's gauges. The first call also creates its counters, at 0.
    fn model(&mut self, model: &ModelName) -> &mut ShownModel {
        self.0.entry(model.clone()).or_insert_with(|| {
            let label = KeyValue::new("model", model.0.clone());
            for kind in EventKind::ALL {
                counters().events.add(0, &[label.clone(), KeyValue::new("kind", kind.as_str())]);
            }
            counters().tables.add(0, &[label]);
            ShownModel::default()
        })
    }

    /// Records what was committed.
    pub(crate) fn record(&mut self, effects: &Effects) {
        for event in &effects.events {
            self.model(&event.model);
            count(event);
        }
        for table in &effects.tables {
            self.table(table);
            counters().tables.add(1, &[KeyValue::new("model", table.model.0.clone())]);
        }
    }
}

/// Counts a delivery of the webhook. A count of 0 creates the series.
pub(crate) fn delivered(outcome: &'static str, count: u64) {
    counters().deliveries.add(count, &[KeyValue::new("outcome", outcome)]);
}

fn count(event: &RolloutEvent) {
    let labels = [KeyValue::new("model", event.model.0.clone()), KeyValue::new("kind", event.kind.as_str())];
    counters().events.add(1, &labels);
    let took = event.recorded_at.since(event.at).as_secs_f64();
    if event.kind == EventKind::RolledBack && (0.0..REPLAYED).contains(&took) {
        counters().rollback.record(took, &[KeyValue::new("phase", "decided")]);
    }
}

/// The last phase of a rollout that has ended.
fn phase_of(ended: &Ended) -> Phase {
    match ended.ending.outcome {
        Outcome::Promoted => Phase::Completed,
        Outcome::Evidence | Outcome::NoData | Outcome::Inconclusive => Phase::RolledBack,
        Outcome::Aborted => Phase::Aborted,
        Outcome::Superseded => Phase::Superseded,
    }
}
