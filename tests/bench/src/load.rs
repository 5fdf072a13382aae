//! The workload: predictions of models under a rollout, their labels, heartbeats and control records, as records of `events`.
//!
//! The number of an event determines its content, so every engine gets the same bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};
use serin_schemas::{
    codec::{self, Record},
    envelope::{self, Envelope},
    ids::{EventTime, Generation},
    records::{Arm, Assignment, Control, Feedback, Heartbeat, Origin, Phase, Prediction, Writer},
};
use serin_spec::Frozen;
use serin_stream::{
    partition_of,
    record::{Outgoing, Target},
};

/// Length of a window.
pub(crate) const WINDOW_US: i64 = 10_000_000;
/// How long a window waits for late events.
pub(crate) const GRACE_US: i64 = 2_000_000;
/// How long the label metric waits.
pub(crate) const MATURITY_US: i64 = 20_000_000;
/// Time from a prediction to its label.
const LABEL_DELAY_US: i64 = 5_000_000;
/// Time between two heartbeats of a writer.
const BEAT_US: i64 = 1_000_000;
/// Names of the routers that write.
const WRITERS: [&str; 2] = ["router-0", "router-1"];

/// Which predictions get a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    /// Every second tracked prediction.
    HalfOfTracked,
    /// Every second prediction of any arm. The labels of stable find no tracked prediction.
    HalfOfAll,
}

/// The composition of the traffic.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// How many of 100 predictions are canary or control, half each.
    pub(crate) tracked: i64,
    /// Which predictions get a label.
    pub(crate) labels: Labels,
    /// Known values of the segment dimension; a fifth of the traffic has others.
    pub(crate) segments: usize,
    /// Models, each with a rollout.
    pub(crate) models: usize,
    /// How many of 100 predictions are of the first model; the rest is spread evenly. 0: all are spread evenly.
    pub(crate) hot: i64,
    /// Predictions per second of event time, over all partitions.
    pub(crate) rate: i64,
}

impl Mix {
    /// The workload of the targets.
    pub(crate) fn standard() -> Self {
        Self { tracked: 20, labels: Labels::HalfOfTracked, segments: 20, models: 1, hot: 0, rate: 20_000 }
    }
}

/// Generates the records.
pub(crate) struct Load {
    mix: Mix,
    partitions: i32,
    start: EventTime,
    /// Number of the last prediction.
    last: i64,
    /// Pending labels: the due time, and the number of the prediction.
    labels: VecDeque<(EventTime, i64)>,
    next_beat: EventTime,
    /// Last sequence number by partition and writer.
    sequence: Vec<[i64; WRITERS.len()]>,
    /// Records made so far.
    made: u64,
}

impl Load {
    /// Event time starts at `start`, a multiple of a window.
    pub(crate) fn new(mix: Mix, partitions: i32, start: EventTime) -> Self {
        Self {
            mix,
            partitions,
            start,
            last: 0,
            labels: VecDeque::new(),
            next_beat: start,
            sequence: vec![[0; WRITERS.len()]; partitions as usize],
            made: 0,
        }
    }

    /// Records made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// Generates the control records that start the rollouts, and then predictions with the records between them.
    pub(crate) fn make(
        &mut self,
        predictions: usize,
        sink: &mut impl FnMut(Outgoing) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.last == 0 {
            for model in 0..self.mix.models {
                let control = control(model, self.mix.segments, self.start);
                for partition in 0..self.partitions {
                    self.made += 1;
                    sink(record(&control, partition, &model_name(model), &Bytes::new())?)?;
                }
            }
        }
        for _ in 0..predictions {
            self.last += 1;
            let now = self.time(self.last);
            while self.labels.front().is_some_and(|(due, _)| *due <= now) {
                if let Some((due, of)) = self.labels.pop_front() {
                    self.label(of, due, sink)?;
                }
            }
            if now >= self.next_beat {
                self.beat(now, sink)?;
            }
            self.prediction(self.last, now, sink)?;
        }
        Ok(())
    }

    /// Generates heartbeats that are late enough to close all windows.
    pub(crate) fn end(&mut self, sink: &mut impl FnMut(Outgoing) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let now = EventTime(self.time(self.last).0 + 2 * WINDOW_US + MATURITY_US + GRACE_US);
        self.beat(now, sink)
    }

    fn time(&self, number: i64) -> EventTime {
        EventTime(self.start.0 + number * 1_000_000 / self.mix.rate)
    }

    fn writer(&mut self, number: i64, partition: i32) -> Writer {
        let writer = (spread(number) >> 40) as usize % WRITERS.len();
        let seq = &mut self.sequence[partition as usize][writer];
        *seq += 1;
        Writer { name: WRITERS[writer].to_owned(), incarnation: 1, seq: *seq }
    }

    fn prediction(
        &mut self,
        number: i64,
        now: EventTime,
        sink: &mut impl FnMut(Outgoing) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let spread = spread(number);
        let id = request(number);
        let partition = partition_of(id.as_bytes(), self.partitions);
        let arm = match (spread >> 20) as i64 % 100 {
            chance if chance * 2 < self.mix.tracked => Arm::Canary,
            chance if chance < self.mix.tracked => Arm::Control,
            _ => Arm::Stable,
        };
        let wants_label = self.mix.labels == Labels::HalfOfAll || arm != Arm::Stable;
        if wants_label && spread >> 33 & 1 == 0 {
            self.labels.push_back((EventTime(now.0 + LABEL_DELAY_US), number));
        }
        let model = self.model(spread);
        let prediction = Prediction {
            request_id: id.as_str().into(),
            model: model_name(model).into(),
            version: if arm == Arm::Canary { "v2" } else { "v1" }.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: Some(rollout_name(model).into()),
            generation: Generation(1),
            completed_at: now,
            latency_us: Some(2_000 + (spread >> 8) as i64 % 30_000),
            status: Some(if spread.is_multiple_of(199) { 500 } else { 200 }),
            error: spread.is_multiple_of(199).then(|| "status_500".to_owned()),
            invalid_output: None,
            outcome: None,
            unread: None,
            batch: None,
            unit: None,
            outputs: [("score".to_owned(), ((spread >> 16) % 1000) as f64 / 1000.0)].into(),
            classes: [].into(),
            segments: [(
                "origin".to_owned(),
                segment_name((spread >> 4) as usize % (self.mix.segments * 5 / 4).max(1)),
            )]
            .into(),
            writer: self.writer(number, partition),
        };
        self.made += 1;
        sink(record(&prediction, partition, &model_name(model), id.as_bytes())?)
    }

    fn model(&self, spread: u64) -> usize {
        let chance = (spread >> 12) as usize;
        if chance as i64 % 100 < self.mix.hot { 0 } else { chance / 100 % self.mix.models }
    }

    fn label(
        &mut self,
        of: i64,
        observed_at: EventTime,
        sink: &mut impl FnMut(Outgoing) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let id = request(of);
        let partition = partition_of(id.as_bytes(), self.partitions);
        let feedback = Feedback {
            request_id: id.as_str().into(),
            observed_at,
            revision: 0,
            values: [("late".to_owned(), (spread(of) >> 7 & 1) as f64)].into(),
            classes: [].into(),
            writer: self.writer(of, partition),
            credential: None,
        };
        self.made += 1;
        sink(record(&feedback, partition, "", id.as_bytes())?)
    }

    fn beat(&mut self, now: EventTime, sink: &mut impl FnMut(Outgoing) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.next_beat = EventTime(now.0 + BEAT_US);
        for partition in 0..self.partitions {
            for (writer, name) in WRITERS.iter().enumerate() {
                let seq = self.sequence[partition as usize][writer];
                let beat = Heartbeat {
                    writer: Writer { name: (*name).to_owned(), incarnation: 1, seq },
                    low_watermark: now,
                    drops: Vec::new(),
                    leaving: false,
                    sent_at: None,
                    relay: false,
                };
                self.made += 1;
                sink(record(&beat, partition, "", &Bytes::new())?)?;
            }
        }
        Ok(())
    }
}

fn record<R: Record>(record: &R, partition: i32, subject: &str, key: &[u8]) -> anyhow::Result<Outgoing> {
    let about = Envelope {
        id: "0198f3c4-7b2a-7c6e",
        source: "/routers/router-0",
        subject,
        time: EventTime(1_760_000_000_000_000),
    };
    Ok(Outgoing {
        topic: serin_topology::EVENTS,
        target: Target::Partition(partition),
        key: Bytes::copy_from_slice(key),
        value: Some(codec::encode(record)?.into()),
        headers: envelope::headers::<R>(&about),
        timestamp_ms: None,
    })
}

fn spread(number: i64) -> u64 {
    let hash = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash ^ hash >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 4
}

fn request(number: i64) -> String {
    format!("0198f3c4-7b2a-7c6e-9d5f-{:012x}", spread(number) & 0xffff_ffff_ffff)
}

fn model_name(model: usize) -> String {
    format!("flights-{model}")
}

/// Name of a model's rollout.
pub(crate) fn rollout_name(model: usize) -> String {
    format!("rollout-{model}")
}

/// Name of a segment value.
pub(crate) fn segment_name(segment: usize) -> String {
    format!("airport-{segment}")
}

/// A rollout with four metrics that are known at once and one that waits for a label.
fn control(model: usize, segments: usize, at: EventTime) -> Control {
    let metric = |name: &str, kind: Value, source: Value| {
        let segments: &[&str] = if segments > 0 { &["origin"] } else { &[] };
        json!({"name": name, "kind": kind, "source": source, "margin": {"absolute": 0.01}, "segments": segments})
    };
    let mut wrong = metric("wrong", json!("rate"), json!({"wrong": {"output": "score", "label": "late"}}));
    wrong["maturity"] = format!("{}s", MATURITY_US / 1_000_000).into();
    let spec = json!({
        "apiVersion": "serin.dev/v1", "kind": "Rollout", "model": model_name(model),
        "stable": {"version": "v1"}, "canary": {"version": "v2"}, "steps": [{"weight": "10%"}],
        "window": format!("{}s", WINDOW_US / 1_000_000), "grace": format!("{}s", GRACE_US / 1_000_000),
        "segments": [{"name": "origin", "source": {"header": "x-origin"}}],
        "metrics": [
            metric("error_rate", json!("rate"), json!("error")),
            metric("invalid_output", json!("rate"), json!("invalid_output")),
            metric("latency_p99", json!({"quantile": {"level": 0.99}}), json!("latency")),
            metric("score", json!({"mean": {"min": 0.0, "max": 1.0}}), json!({"output": "score"})),
            wrong,
        ],
    });
    let frozen = Frozen {
        segments: [("origin".to_owned(), (0..segments).map(segment_name).collect())].into(),
        warmup_events: 1000,
    };
    Control {
        model: model_name(model).into(),
        rollout: rollout_name(model).into(),
        generation: Generation(1),
        phase: Phase::Baking,
        step: 0,
        stable: "v1".into(),
        canary: "v2".into(),
        canary_share: 1000,
        control_share: 1000,
        decided_at: at,
        spec: spec.to_string(),
        frozen: serde_json::to_string(&frozen).ok(),
        rules: serin_schemas::records::RULES,
        acknowledged: None,
    }
}
