//! The controller's metrics and how they are recorded.
//!
//! Counters of a model exist, at 0, from its first record on, because Prometheus does not see an increase from nothing. Gauges show
//! the present: they exist as long as the model's state.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use serin_rollout::{
    Effects, ModelState,
    planner::{Ended, Hold, HoldCause, Outcome, StepIndex},
};
use serin_schemas::{
    ids::ModelName,
    records::{EventKind, Phase, RolloutEvent, RoutingTable},
};
use serin_stream::{
    declare_metrics,
    gauge::{PresentGauge, Series},
    metric::{ARM, MODEL, VERSION, words},
};
use tokio::sync::watch;

use crate::view::View;

declare_metrics! {
    pub METRICS {
        /// Audit events.
        EVENTS = Counter "serin_rollout_events_total" in "{event}" [MODEL, words("kind", &[
            "started", "refused", "advanced", "held", "resumed", "paused", "promoted", "completed", "rolled_back", "aborted",
            "superseded", "warned", "confirmed", "frozen", "unfrozen", "marked",
        ])];
        /// 1 for the phase of a model's rollout: the active one, or else the one that ended last.
        PHASE = Gauge "serin_rollout_phase" in "1" [MODEL, words("phase", &[
            "pending", "warming", "shadowing", "baking", "held", "paused", "promoted", "completed", "rolled_back", "aborted",
            "superseded",
        ])];
        /// Index of the step of the active rollout, from 0, or -1 before the first step. Absent without an active rollout.
        STEP = Gauge "serin_rollout_step" in "1" [MODEL];
        /// 1 for each reason why the active rollout of a model takes no step, otherwise absent. `unsound` and `marginal`: held
        /// (docs/held.md). `warm_up`: something keeps the warm-up from ending. `no_verdicts`: no verdict arrives. `paused`: an
        /// operator paused it. `approval`: the step waits for an approval. `decision`: held longer than `holdMax`, and only a person can end the hold.
        WAITING = Gauge "serin_rollout_waiting" in "1"
            [MODEL, words("reason", &["unsound", "marginal", "warm_up", "no_verdicts", "paused", "approval", "decision"])];
        /// Share of the traffic in the routing table that was written last, from 0 to 1.
        WEIGHT = Gauge "serin_routing_weight_ratio" in "1" [MODEL, VERSION, ARM];
        /// Routing tables written, including lease renewals.
        TABLES = Counter "serin_routing_tables_total" in "{table}" [MODEL];
        /// Memory of the records that the API keeps. `rollouts`: states, newest verdicts and events. `answers`: answers to commands.
        /// `tables`: routing tables. `routers`: reports of routers.
        API_MEMORY = Gauge "serin_api_memory_bytes" in "By" [words("map", &["rollouts", "answers", "tables", "routers"])];
        /// Deliveries of the registry's webhook. `started`: a rollout was requested. `ignored`: no policy applies. `refused`: not
        /// signed, or not understood. `failed`: the registry has to deliver it again.
        DELIVERIES = Counter "serin_webhook_deliveries_total" in "{delivery}"
            [words("outcome", &["started", "ignored", "refused", "failed"])];
        /// Duration of each part of a rollback. `decided` (controller): from the end of the deciding window, or from the command, to
        /// the decision. `applied` (router): from the routing record's append to the log until it is applied. `confirmed` (controller):
        /// the same of the slowest router, once every router has reported it. `drained` (router): from when it is applied until no call
        /// is in flight on the version.
        ROLLBACK = Histogram "serin_rollback_seconds" in "s" [words("phase", &["decided", "confirmed"])];
    }
}

/// Upper bounds of the buckets of [`ROLLBACK`], in seconds.
const ROLLING_BACK: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
/// A longer time shows that event time is not wall-clock time, because recorded traffic is replayed.
const REPLAYED: f64 = 3600.0;

/// Shows what the API keeps, from the newest snapshot.
pub(crate) fn observe_view(view: watch::Receiver<Arc<View>>) {
    API_MEMORY.observe(move |observer| {
        let bytes = view.borrow().bytes();
        for (map, bytes) in bytes {
            observer.observe(bytes as u64, &[KeyValue::new("map", map)]);
        }
    });
}

struct Counters {
    events: Counter<u64>,
    tables: Counter<u64>,
    deliveries: Counter<u64>,
    rollback: Histogram<f64>,
}

fn counters() -> &'static Counters {
    static COUNTERS: OnceLock<Counters> = OnceLock::new();
    COUNTERS.get_or_init(|| Counters {
        events: EVENTS.counter(),
        rollback: ROLLBACK.histogram(&ROLLING_BACK),
        deliveries: DELIVERIES.counter(),
        tables: TABLES.counter(),
    })
}

static PHASES: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&PHASE));
static STEPS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&STEP));
static WAITS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&WAITING));
static WEIGHTS: LazyLock<PresentGauge> = LazyLock::new(|| PresentGauge::new(&WEIGHT));

/// The gauges of one fold's models. They are removed with the fold.
#[derive(Debug, Default)]
pub(crate) struct Shown(BTreeMap<ModelName, ShownModel>);

#[derive(Debug, Default)]
struct ShownModel {
    /// Phase, step, and the reasons for waiting.
    rollout: Vec<Series>,
    weights: Vec<Series>,
}

impl Shown {
    /// Shows the state of a model's rollout.
    pub(crate) fn state(&mut self, state: &ModelState) {
        let label = || KeyValue::new("model", state.model.0.clone());
        let phase = state.active.as_ref().map(|rollout| rollout.phase).or_else(|| state.ended.back().map(phase_of));
        let phase = phase.map(|phase| PHASES.hold(vec![label(), KeyValue::new("phase", phase.as_str())], 1.0));
        let step =
            state.active.as_ref().map(|rollout| STEPS.hold(vec![label()], f64::from(StepIndex::number(rollout.step))));
        let waits = state.active.iter().flat_map(|rollout| {
            let stuck = rollout.warm_up_waits.is_some() || rollout.refused.is_some() || rollout.labels_reported;
            let warm_up = rollout.phase == Phase::Warming && stuck;
            waits_for(rollout.hold.as_ref(), warm_up, rollout.stale_reported, rollout.pause.is_some())
        });
        let waits = waits.map(|reason| WAITS.hold(vec![label(), KeyValue::new("reason", reason)], 1.0));
        self.model(&state.model).rollout = phase.into_iter().chain(step).chain(waits).collect();
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
        for event in effects.events.iter().filter(|event| !is_freeze(event)) {
            self.model(&event.model);
            count(event);
        }
        for took in &effects.confirmed {
            counters().rollback.record(took.as_secs_f64(), &[KeyValue::new("phase", "confirmed")]);
        }
        for table in &effects.tables {
            self.table(table);
            counters().tables.add(1, &[KeyValue::new("model", table.model.0.clone())]);
        }
    }
}

/// Whether an event is about a pattern of models. It is written by every partition, and each frozen rollout has its own event.
fn is_freeze(event: &RolloutEvent) -> bool {
    event.rollout.is_none() && matches!(event.kind, EventKind::Frozen | EventKind::Unfrozen)
}

/// Counts a delivery of the webhook. A count of 0 creates the series.
pub(crate) fn delivered(outcome: &'static str, count: u64) {
    counters().deliveries.add(count, &[KeyValue::new("outcome", outcome)]);
}

fn count(event: &RolloutEvent) {
    let labels = [KeyValue::new("model", event.model.0.clone()), KeyValue::new("kind", event.kind.as_str())];
    counters().events.add(1, &labels);
    // `recorded_at` is the time of the fold's last tick. It is up to a second old, and may be before the end of the window.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let took = now - event.at.0 as f64 / 1e6;
    if event.kind == EventKind::RolledBack && (0.0..REPLAYED).contains(&took) {
        counters().rollback.record(took, &[KeyValue::new("phase", "decided")]);
    }
}

/// The reasons why a rollout takes no step, as values of the label `reason` of [`WAITING`].
fn waits_for(
    hold: Option<&Hold>,
    warm_up: bool,
    no_verdicts: bool,
    paused: bool,
) -> impl Iterator<Item = &'static str> {
    let held = hold.and_then(|hold| match hold.cause {
        HoldCause::Health => Some("unsound"),
        HoldCause::Marginal => Some("marginal"),
        // Missing verdicts hold a rollout only in some phases and under some policies.
        HoldCause::Approval => Some("approval"),
        HoldCause::Stale => None,
    });
    let all = [
        held,
        warm_up.then_some("warm_up"),
        no_verdicts.then_some("no_verdicts"),
        paused.then_some("paused"),
        hold.filter(|hold| hold.reported).map(|_| "decision"),
    ];
    all.into_iter().flatten()
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

#[cfg(test)]
mod tests {
    use serin_schemas::ids::EventTime;

    use super::*;

    #[test]
    fn a_rollout_waits_for_each_of_its_reasons() {
        let hold = |cause, reported| Some(Hold { cause, since: EventTime(0), reported });
        let all = |hold: Option<Hold>, warm_up, stale, paused| {
            waits_for(hold.as_ref(), warm_up, stale, paused).collect::<Vec<_>>()
        };
        assert_eq!(all(None, false, false, false), Vec::<&str>::new());
        assert_eq!(all(hold(HoldCause::Health, false), false, false, false), ["unsound"]);
        assert_eq!(all(hold(HoldCause::Marginal, true), false, false, false), ["marginal", "decision"]);
        assert_eq!(all(hold(HoldCause::Approval, false), false, false, false), ["approval"]);
        assert_eq!(all(hold(HoldCause::Stale, false), false, true, false), ["no_verdicts"]);
        assert_eq!(all(None, true, false, false), ["warm_up"]);
        assert_eq!(all(None, false, true, true), ["no_verdicts", "paused"]);
    }
}
