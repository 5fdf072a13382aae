//! Helpers that create events and read the output of the fold.

use bytes::Bytes;
use serde_json::{Value, json};
use serin_aggregator::{AggregatorFold, Config};
use serin_schemas::{
    codec::{self, Record as _},
    envelope::{self, Envelope},
    event::{EventRecord, WindowRecord},
    ids::{EventTime, Generation, Span},
    records::{
        Arm, ArmCounts, Assignment, ClosedThrough, Control, Feedback, Heartbeat, Origin, Phase, Prediction, Segment,
        WindowClosed, Writer,
    },
};
use serin_sketches::Summary;
use serin_spec::{Frozen, RolloutSpec};
use serin_stream::{
    driver::{Applied, FoldDriver},
    record::{Headers, Outgoing},
};

/// A spec with 10-second windows, the built-in rates, latency, an output, and the metrics in `more`.
pub(crate) fn spec_with(more: &[Value], change: impl FnOnce(&mut Value)) -> RolloutSpec {
    let mut metrics = vec![
        json!({"name": "error_rate", "kind": "rate", "source": "error", "margin": {"absolute": 0.01}, "segments": ["origin"]}),
        json!({"name": "invalid_output", "kind": "rate", "source": "invalid_output", "margin": {"absolute": 0.005}}),
        json!({"name": "latency_p99", "kind": {"quantile": {"level": 0.99}}, "source": "latency", "margin": {"relative": 0.2}}),
        json!({"name": "score", "kind": {"mean": {"min": 0.0, "max": 2.0}}, "source": {"output": "score"},
               "margin": {"absolute": 0.1}, "segments": ["origin"]}),
    ];
    metrics.extend_from_slice(more);
    let mut spec = json!({
        "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": "flights",
        "stable": {"version": "v1"}, "canary": {"version": "v2"},
        "steps": [{"weight": "5%"}],
        "segments": [{"name": "origin", "source": {"header": "x-origin"}}],
        "metrics": metrics,
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

pub(crate) fn spec() -> RolloutSpec {
    spec_with(&[], |_| {})
}

/// `wrong`: compares the output with a label that matures after 60 s.
pub(crate) fn wrong_metric() -> Value {
    json!({"name": "wrong", "kind": "rate", "source": {"wrong": {"output": "score", "label": "late"}},
           "margin": {"absolute": 0.05}, "maturity": "60s", "segments": ["origin"]})
}

/// `click`: a label that counts as 0 if it does not arrive within 20 s.
pub(crate) fn click_metric() -> Value {
    json!({"name": "click", "kind": "rate", "source": {"feedback": "click"}, "direction": "higher_is_better",
           "margin": {"absolute": 0.05}, "maturity": "20s", "whenMissing": "zero"})
}

fn frozen() -> Frozen {
    Frozen { segments: [("origin".to_owned(), vec!["LGA".to_owned(), "JFK".to_owned()])].into(), warmup_events: 100 }
}

pub(crate) fn control(generation: i64, phase: Phase, step: i32, spec: &RolloutSpec) -> Control {
    Control {
        model: "flights".into(),
        rollout: "rollout-1".into(),
        generation: Generation(generation),
        phase,
        step,
        stable: "v1".into(),
        canary: "v2".into(),
        canary_share: 500,
        control_share: 5000,
        decided_at: EventTime(0),
        spec: serde_json::to_string(spec).unwrap(),
        frozen: (step >= 0).then(|| serde_json::to_string(&frozen()).unwrap()),
        rules: serin_schemas::records::RULES,
        acknowledged: None,
    }
}

pub(crate) fn baking(spec: &RolloutSpec) -> EventRecord {
    EventRecord::Control(control(2, Phase::Baking, 0, spec))
}

pub(crate) fn ended(generation: i64) -> EventRecord {
    EventRecord::Control(control(generation, Phase::RolledBack, 0, &spec()))
}

pub(crate) fn writer(name: &str, seq: i64) -> Writer {
    Writer { name: name.to_owned(), incarnation: 1, seq }
}

pub(crate) fn secs(seconds: f64) -> EventTime {
    EventTime((seconds * 1e6) as i64)
}

/// A good answer of an arm, in generation 2.
pub(crate) fn prediction(seq: i64, arm: Arm, at: f64) -> Prediction {
    Prediction {
        request_id: format!("request-{seq}").into(),
        model: "flights".into(),
        version: if arm == Arm::Canary { "v2".into() } else { "v1".into() },
        arm,
        assignment: Assignment::Random,
        origin: Origin::Router,
        rollout: Some("rollout-1".into()),
        generation: Generation(2),
        completed_at: secs(at),
        latency_us: Some(5_000),
        status: Some(200),
        error: None,
        invalid_output: None,
        outcome: None,
        unread: None,
        batch: None,
        unit: None,
        outputs: [("score".to_owned(), 0.8)].into(),
        classes: [].into(),
        segments: [("origin".to_owned(), "LGA".to_owned())].into(),
        writer: writer("router-0", seq),
    }
}

pub(crate) fn feedback(request: i64, seq: i64, revision: i64, label: &str, value: f64) -> Feedback {
    Feedback {
        request_id: format!("request-{request}").into(),
        observed_at: secs(1.0),
        revision,
        values: [(label.to_owned(), value)].into(),
        classes: [].into(),
        writer: writer("router-1", seq),
        credential: None,
    }
}

/// A heartbeat of the only router after it has written `seq` records.
pub(crate) fn beat(seq: i64, low: f64) -> EventRecord {
    EventRecord::Heartbeat(Heartbeat {
        writer: writer("router-0", seq),
        low_watermark: secs(low),
        drops: Vec::new(),
        leaving: false,
        sent_at: None,
        relay: false,
    })
}

pub(crate) fn wire(event: &EventRecord) -> (Headers, Bytes) {
    let envelope = Envelope { id: "1", source: "/test", subject: "flights", time: EventTime(0) };
    let (headers, body) = match event {
        EventRecord::Prediction(record) => (envelope::headers::<Prediction>(&envelope), codec::encode(record)),
        EventRecord::Feedback(record) => (envelope::headers::<Feedback>(&envelope), codec::encode(record)),
        EventRecord::Heartbeat(record) => (envelope::headers::<Heartbeat>(&envelope), codec::encode(record)),
        EventRecord::Control(record) => (envelope::headers::<Control>(&envelope), codec::encode(record)),
    };
    (headers, body.unwrap().into())
}

/// One partition under test.
pub(crate) struct Bench {
    pub(crate) harness: FoldDriver,
    partition: i32,
    /// The log's timestamp of the next records, in milliseconds.
    pub(crate) stamp_ms: i64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), 0, 1)
    }

    pub(crate) fn with(config: Config, partition: i32, partitions: i32) -> Self {
        let make = move || Box::new(AggregatorFold::new(config.clone(), partition, partitions)) as Box<_>;
        Self { harness: FoldDriver::new(make).unwrap(), partition, stamp_ms: 0 }
    }

    pub(crate) fn raw(&mut self, headers: Headers, value: Option<Bytes>) -> Applied {
        let record = self.harness.record("events", self.partition, self.stamp_ms, Bytes::new(), headers, value);
        self.harness.apply(&record).unwrap()
    }

    pub(crate) fn apply(&mut self, event: &EventRecord) -> Applied {
        let (headers, body) = wire(event);
        self.raw(headers, Some(body))
    }

    /// Feeds valid records.
    pub(crate) fn feed(&mut self, events: impl IntoIterator<Item = EventRecord>) {
        for event in events {
            assert_eq!(self.apply(&event).poison, None, "{event:?}");
        }
    }

    pub(crate) fn code(&mut self, event: &EventRecord) -> Option<&'static str> {
        self.apply(event).poison.map(|poison| poison.code.as_str())
    }

    /// Commits and returns the closed windows and promises.
    pub(crate) fn out(&mut self) -> (Vec<WindowClosed>, Vec<ClosedThrough>) {
        read(&self.harness.commit().unwrap())
    }

    pub(crate) fn windows(&mut self) -> Vec<WindowClosed> {
        self.out().0
    }
}

pub(crate) fn read(out: &[Outgoing]) -> (Vec<WindowClosed>, Vec<ClosedThrough>) {
    let (mut windows, mut promises) = (Vec::new(), Vec::new());
    for record in out {
        assert_eq!(record.topic, "windows");
        match WindowRecord::decode(&record.headers, record.value.as_ref().unwrap()).unwrap() {
            WindowRecord::WindowClosed(window) => windows.push(window),
            WindowRecord::ClosedThrough(promise) => promises.push(promise),
            WindowRecord::Control(_) => panic!("a {} does not come from the aggregator", Control::NAME),
        }
    }
    (windows, promises)
}

pub(crate) fn arm(window: &WindowClosed, arm: Arm) -> ArmCounts {
    let none = ArmCounts::none(arm);
    window.arms.iter().find(|counts| counts.arm == arm).cloned().unwrap_or(none)
}

/// `k` of `n` for rates, or the number of values of other cells. 0 if the cell does not exist.
pub(crate) fn cell(window: &WindowClosed, arm: Arm, metric: &str, segment: &Segment) -> (u64, u64) {
    let found = window.cells.iter().find(|cell| cell.arm == arm && cell.metric == metric && cell.segment == *segment);
    match found.map(|cell| Summary::decode(&cell.summary).unwrap()) {
        None => (0, 0),
        Some(Summary::Rate(rate)) => (rate.k(), rate.n()),
        Some(other) => (0, other.n()),
    }
}

pub(crate) fn minute() -> Span {
    Span::from_secs(60)
}
