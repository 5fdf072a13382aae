//! A simulated router, with disturbances of its topic by networks and foreign writers.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    ids::EventTime,
    records::{Arm, Assignment, Feedback, Heartbeat, Origin, Outcome, Prediction, RoutingTable, Writer},
};
use serin_stream::{
    log::{Log as _, Reader, Start},
    partition_of,
    record::{Headers, Outgoing, Target, TopicPartition},
    simulation::{Dice, Simulation},
};
use serin_topology::{EVENTS, ROUTING};

use super::{MODEL, PARTITIONS};

/// Calls per second.
const RATE: i64 = 6;
/// Name of a writer whose clock is wrong.
pub(crate) const ROGUE: &str = "rogue";

pub(crate) fn encoded<R: codec::Record>(record: &R) -> (Headers, Bytes) {
    let envelope = Envelope { id: "simulated", source: "/simulation", subject: MODEL, time: EventTime(0) };
    (envelope::headers::<R>(&envelope), codec::encode(record).unwrap().into())
}

pub(crate) fn outgoing<R: codec::Record>(topic: &'static str, target: Target, key: &str, record: &R) -> Outgoing {
    let (headers, body) = encoded(record);
    Outgoing {
        topic,
        target,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(body),
        headers,
        timestamp_ms: None,
    }
}

pub(crate) fn micros(ms: i64) -> EventTime {
    EventTime(ms * 1000)
}

/// A simulated router. The canary gets the lowest of 10000 buckets, and control the next ones.
pub(crate) struct Router {
    tables: Box<dyn Reader>,
    pub(crate) table: Option<RoutingTable>,
    incarnation: i64,
    /// Sequence number of the last record, by partition.
    seq: BTreeMap<i32, i64>,
    requests: u64,
    /// Calls and heartbeats have been created up to this time.
    made_ms: i64,
    /// Future labels: time and request, with the value of the label.
    labels: BTreeMap<(i64, u64), bool>,
    /// Number of failing calls to the canary per thousand.
    canary_fails: u32,
    /// Number of written records that a fold cannot use.
    pub(crate) poison: usize,
}

impl Router {
    pub(crate) fn new(simulation: &Simulation, canary_fails: u32) -> Self {
        let log = simulation.log();
        let places: Vec<_> =
            (0..PARTITIONS).map(|partition| (TopicPartition::new(ROUTING, partition), Start::Beginning)).collect();
        Self {
            tables: log.reader(&places).unwrap(),
            table: None,
            incarnation: 1,
            seq: BTreeMap::new(),
            requests: 0,
            made_ms: simulation.now_ms(),
            labels: BTreeMap::new(),
            canary_fails,
            poison: 0,
        }
    }

    /// Applies new tables. Generations only grow, and so do the leases within a generation.
    pub(crate) fn follow(&mut self) {
        let mut records = Vec::new();
        self.tables.poll(1000, Duration::ZERO, &mut records).unwrap();
        for record in records {
            let table: RoutingTable = codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap();
            let number = |table: &RoutingTable| (table.generation, table.lease_seq);
            if let Some(before) = &self.table {
                assert!(number(&table) > number(before), "{table:?} after {before:?}");
            }
            self.table = Some(table);
        }
    }

    /// Creates everything that happened since the last call.
    pub(crate) fn live(&mut self, simulation: &Simulation) {
        self.follow();
        let now = simulation.now_ms();
        let mut records = Vec::new();
        if simulation.dice(|dice| dice.per_mille(20)) {
            // The router is killed and restarted.
            self.incarnation += 1;
            self.seq.clear();
        }
        while self.made_ms + 1000 / RATE <= now {
            let second = self.made_ms / 1000;
            self.made_ms += 1000 / RATE;
            self.call(simulation, &mut records);
            self.feed_back(&mut records);
            if self.made_ms / 1000 > second {
                for partition in 0..PARTITIONS {
                    let writer = Writer { seq: self.seq.get(&partition).copied().unwrap_or(0), ..self.writer() };
                    let low_watermark = micros(self.made_ms);
                    // The router writes in bursts, as a replay does, so its heartbeats have no time.
                    let (leaving, sent_at, relay) = (false, None, false);
                    let heartbeat = Heartbeat { writer, low_watermark, drops: vec![], leaving, sent_at, relay };
                    records.push(outgoing(EVENTS, Target::Partition(partition), "", &heartbeat));
                }
            }
        }
        self.disturb(simulation, &mut records);
        let writer = simulation.log().writer(1).unwrap();
        for record in records {
            writer.send(record).unwrap();
        }
    }

    fn writer(&self) -> Writer {
        Writer { name: "router-0".to_owned(), incarnation: self.incarnation, seq: 0 }
    }

    /// The writer with the next sequence number of the request's partition.
    fn next(&mut self, request: &str) -> Writer {
        let seq = self.seq.entry(partition_of(request.as_bytes(), PARTITIONS)).or_default();
        *seq += 1;
        let seq = *seq;
        Writer { seq, ..self.writer() }
    }

    fn call(&mut self, simulation: &Simulation, records: &mut Vec<Outgoing>) {
        self.requests += 1;
        let request = format!("r{}", self.requests);
        let (bucket, chance, probability, origin, latency, label_in) = simulation.dice(|dice: &mut Dice| {
            let latency = (0..4).map(|_| dice.range(500..4000)).sum::<usize>();
            let origin = dice.one_of(&["north", "north", "south", "south", "east"]);
            (dice.range(0..10_000), dice.range(0..1000), dice.range(0..1000), origin, latency, dice.range(1000..50_000))
        });
        let (arm, version) =
            self.table.as_ref().map_or((Arm::Stable, "v1".to_owned()), |table| split(table, bucket as i32));
        let fails = chance < if arm == Arm::Canary { self.canary_fails as usize } else { 10 };
        // Both arms alike have refused, redirected, cancelled, unread and unusable answers.
        let (outcome, status, error, invalid_output) = match chance {
            _ if fails => (None, 500, None, None),
            900..903 => (None, 422, None, None),
            903..906 => (Some(Outcome::Redirected), 302, None, None),
            906..909 => (None, 200, Some("client_closed"), None),
            909..912 => (Some(Outcome::Unread), 200, None, None),
            912..915 => (Some(Outcome::Unusable), 200, None, Some("nan")),
            915..918 => (Some(Outcome::Failed), 200, Some("error_frame"), None),
            _ => (Some(Outcome::Ok), 200, None, None),
        };
        let probability = probability as f64 / 1000.0;
        let writer = self.next(&request);
        let prediction = Prediction {
            request_id: request.as_str().into(),
            model: MODEL.into(),
            version: version.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: self.table.as_ref().and_then(|table| table.rollout.clone()),
            generation: self.table.as_ref().map(|table| table.generation).unwrap_or_default(),
            completed_at: micros(self.made_ms),
            latency_us: Some(latency as i64),
            status: Some(status),
            error: error.map(str::to_owned),
            invalid_output: invalid_output.map(str::to_owned),
            outcome,
            unread: (outcome == Some(Outcome::Unread)).then(|| "too_large".to_owned()),
            batch: None,
            unit: None,
            outputs: if fails { BTreeMap::new() } else { [("probability".to_owned(), probability)].into() },
            classes: [].into(),
            segments: [("origin".to_owned(), origin.to_owned())].into(),
            writer,
        };
        let truth = probability + (chance % 100) as f64 / 250.0 >= 0.6;
        self.labels.insert((self.made_ms + label_in as i64, self.requests), truth);
        records.push(outgoing(EVENTS, Target::ByKey, &request, &prediction));
    }

    fn feed_back(&mut self, records: &mut Vec<Outgoing>) {
        while let Some(entry) = self.labels.first_entry().filter(|entry| entry.key().0 <= self.made_ms) {
            let ((at, request), late) = entry.remove_entry();
            let request = format!("r{request}");
            let feedback = Feedback {
                request_id: request.as_str().into(),
                observed_at: micros(at),
                revision: 0,
                values: [("late".to_owned(), f64::from(u8::from(late)))].into(),
                classes: [].into(),
                writer: self.next(&request),
                credential: None,
            };
            records.push(outgoing(EVENTS, Target::ByKey, &request, &feedback));
        }
    }

    /// Adds repeated records, invalid bytes, and records of a writer whose clock is off by a day.
    fn disturb(&mut self, simulation: &Simulation, records: &mut Vec<Outgoing>) {
        let (twice, garbage, future) =
            simulation.dice(|dice| (dice.per_mille(100), dice.per_mille(30), dice.per_mille(30)));
        if let Some(last) = records.last().cloned().filter(|_| twice) {
            records.push(last);
        }
        let heard = records.iter().any(|record| record.key.is_empty());
        if garbage {
            let garbage =
                Outgoing { headers: Headers::default(), ..outgoing(EVENTS, Target::Partition(0), "?", &self.alive()) };
            records.push(garbage);
            self.poison += 1;
        }
        // The fold knows the time after a heartbeat in this partition.
        if future && heard {
            let mut feedback = self.alive();
            feedback.observed_at = micros(self.made_ms + 86_400_000);
            records.push(outgoing(EVENTS, Target::Partition(0), "rogue", &feedback));
            self.poison += 1;
        }
    }

    /// A record of a writer that never sends a heartbeat.
    fn alive(&self) -> Feedback {
        Feedback {
            request_id: "rogue".into(),
            observed_at: micros(self.made_ms),
            revision: 0,
            values: [].into(),
            classes: [].into(),
            writer: Writer { name: ROGUE.to_owned(), incarnation: 1, seq: 1 },
            credential: None,
        }
    }
}

pub(crate) fn split(table: &RoutingTable, bucket: i32) -> (Arm, String) {
    let mut low = 0;
    for arm in [Arm::Canary, Arm::Control] {
        if let Some(route) = table.routes.iter().find(|route| route.arm == arm) {
            if (low..low + route.share).contains(&bucket) {
                return (arm, route.version.as_str().to_owned());
            }
            low += route.share;
        }
    }
    let stable = table.routes.iter().find(|route| route.arm == Arm::Stable).unwrap();
    (Arm::Stable, stable.version.as_str().to_owned())
}
