//! Two routers and their shared state: how one of them can be behind.

use std::{collections::BTreeMap, time::Duration};

use serin_schemas::{
    codec,
    ids::EventTime,
    records::{Arm, Assignment, Heartbeat, Origin, Phase, Prediction, RoutingTable, Writer},
};
use serin_sketches::hash::hash64;
use serin_stream::{
    log::{Log as _, Reader},
    partition_of,
    record::{Outgoing, Target},
    simulation::Simulation,
};
use serin_topology::EVENTS;

use super::super::{
    MODEL, PARTITIONS, control, records,
    router::{micros, outgoing, split},
};

/// Calls per second of one router.
const RATE: i64 = 25;

/// How one of two routers, or a relay, is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// No router is behind.
    None,
    /// Killed with SIGKILL.
    Dead,
    /// Stopped with SIGSTOP, and continued after this number of seconds.
    Stopped(i64),
    /// Cut off from the log. After this number of seconds, all queued records are written together.
    CutOff(i64),
    /// Each record is on the log this number of seconds after it was sent.
    Slow(i64),
    /// The router has no calls.
    Idle,
    /// The router's clock was always off by this number of seconds.
    Clock(i64),
    /// The router's clock jumps by this number of seconds.
    Jump(i64),
    /// Killed, and restarted after this number of seconds.
    Restarted(i64),
    /// Killed, and restarted after 1 s under another name.
    Renamed,
    /// A second router joins, with a clock that is off by this number of seconds.
    Joined(i64),
    /// A relay that sends one current heartbeat, and then only old ones.
    StalledRelay,
    /// No process can write for 25 s. After that, the canary turns bad.
    LogPause,
}

pub(super) const ALL: [Behind; 17] = [
    Behind::None,
    Behind::Dead,
    Behind::Stopped(40),
    Behind::CutOff(40),
    Behind::Slow(12),
    Behind::Idle,
    Behind::Clock(-300),
    Behind::Clock(300),
    Behind::Clock(-4),
    Behind::Jump(-300),
    Behind::Jump(300),
    Behind::Restarted(1),
    Behind::Renamed,
    Behind::Joined(0),
    Behind::Joined(-300),
    Behind::StalledRelay,
    Behind::LogPause,
];

/// The heartbeats of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beats {
    /// Heartbeats contain the time at which they were sent.
    WithTime,
    /// Heartbeats contain only a low watermark, as those of an older version or a foreign writer.
    WithoutTime,
    /// There are no heartbeats.
    Never,
}

impl Behind {
    /// Draws a way in which one of two routers is behind.
    pub(super) fn any(seed: u64) -> (Self, Beats) {
        let draw = |of: &str, choices: u64| (hash64(of.as_bytes(), &seed.to_le_bytes()) % choices) as i64;
        // Events that are more than ten minutes ahead are refused.
        let (seconds, sign) = (draw("seconds", 587) + 3, 2 * draw("sign", 2) - 1);
        let short = draw("short", 40) + 3;
        let ways = [
            Self::Dead,
            Self::Stopped(short),
            Self::CutOff(short),
            Self::Slow(short),
            Self::Idle,
            Self::Clock(sign * seconds),
            Self::Jump(sign * seconds),
            Self::Restarted(short),
            Self::Renamed,
            Self::Joined(sign * seconds),
        ];
        let beats = [Beats::WithTime, Beats::WithoutTime, Beats::Never];
        (ways[draw("way", ways.len() as u64) as usize], beats[draw("says", 3) as usize])
    }
}

/// A simulated router, with its own clock and its own connection to the log.
pub(super) struct Router {
    pub(super) name: &'static str,
    pub(super) incarnation: i64,
    pub(super) seq: BTreeMap<i32, i64>,
    /// The router's low watermark.
    pub(super) floor: EventTime,
    /// The router's clock minus the log's clock, in milliseconds.
    pub(super) off_ms: i64,
    /// How long the router's records take to reach the log.
    pub(super) delay_ms: i64,
    pub(super) runs: bool,
    pub(super) has_calls: bool,
    /// Whether the router's records wait for the log.
    pub(super) cut_off: bool,
    pub(super) beats: Beats,
    /// Records in flight, with the time at which they arrive.
    pub(super) in_flight: Vec<(i64, Outgoing)>,
    pub(super) next_call_ms: i64,
    pub(super) next_beat_ms: i64,
}

impl Router {
    pub(super) fn new(name: &'static str, now_ms: i64) -> Self {
        Self {
            name,
            incarnation: now_ms,
            seq: BTreeMap::new(),
            floor: EventTime(0),
            off_ms: 0,
            delay_ms: 0,
            runs: true,
            has_calls: true,
            cut_off: false,
            beats: Beats::WithTime,
            in_flight: Vec::new(),
            next_call_ms: now_ms,
            next_beat_ms: now_ms + 300,
        }
    }

    /// Restarts a killed router. Its records in flight are lost.
    pub(super) fn start_again(&mut self, name: &'static str, now_ms: i64) {
        *self = Self { off_ms: self.off_ms, beats: self.beats, ..Self::new(name, now_ms) };
    }

    fn writer(&self, partition: i32) -> Writer {
        let seq = self.seq.get(&partition).copied().unwrap_or(0);
        Writer { name: self.name.to_owned(), incarnation: self.incarnation, seq }
    }

    pub(super) fn live(&mut self, now_ms: i64, world: &mut World<'_>) {
        while self.runs && self.next_call_ms <= now_ms {
            self.next_call_ms += 1000 / RATE;
            if self.has_calls {
                let call = self.call(now_ms, world);
                self.in_flight.push((now_ms + self.delay_ms, call));
            }
        }
        while self.runs && self.next_beat_ms <= now_ms {
            self.next_beat_ms += 1000;
            let sent_at = micros(now_ms + self.off_ms);
            self.floor = self.floor.max(sent_at);
            for partition in (0..PARTITIONS).filter(|_| self.beats != Beats::Never) {
                let heartbeat = Heartbeat {
                    writer: self.writer(partition),
                    low_watermark: self.floor,
                    drops: vec![],
                    leaving: false,
                    sent_at: (self.beats == Beats::WithTime).then_some(sent_at),
                    relay: false,
                };
                let record = outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
                self.in_flight.push((now_ms + self.delay_ms, record));
            }
        }
        if !self.cut_off && !world.log_is_away {
            let arrived = self.in_flight.iter().position(|(at, _)| *at > now_ms).unwrap_or(self.in_flight.len());
            world.write(self.in_flight.drain(..arrived).map(|(_, record)| record));
        }
    }

    fn call(&mut self, now_ms: i64, world: &mut World<'_>) -> Outgoing {
        world.calls += 1;
        let request = format!("{}-{}", self.name, world.calls);
        let (bucket, chance) = world.simulation.dice(|dice| (dice.range(0..10_000), dice.range(0..1000)));
        let (arm, version) =
            world.table.as_ref().map_or((Arm::Stable, "v1".to_owned()), |table| split(table, bucket as i32));
        let fails = chance < if arm == Arm::Canary && world.is_bad { 700 } else { 5 };
        world.failed += u64::from(fails && world.is_bad);
        let partition = partition_of(request.as_bytes(), PARTITIONS);
        *self.seq.entry(partition).or_default() += 1;
        let prediction = Prediction {
            request_id: request.as_str().into(),
            model: MODEL.into(),
            version: version.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: world.table.as_ref().and_then(|table| table.rollout.clone()),
            generation: world.table.as_ref().map(|table| table.generation).unwrap_or_default(),
            completed_at: micros(now_ms + self.off_ms).max(self.floor),
            latency_us: Some(1000),
            status: Some(if fails { 500 } else { 200 }),
            error: None,
            invalid_output: None,
            unit: None,
            outputs: [].into(),
            classes: [].into(),
            segments: [].into(),
            writer: self.writer(partition),
            outcome: None,
            unread: None,
            batch: None,
        };
        outgoing(EVENTS, Target::Partition(partition), &request, &prediction)
    }
}

/// The shared state of the routers.
pub(super) struct World<'a> {
    pub(super) simulation: &'a Simulation,
    pub(super) tables: Box<dyn Reader>,
    pub(super) table: Option<RoutingTable>,
    pub(super) is_bad: bool,
    pub(super) log_is_away: bool,
    pub(super) calls: u64,
    pub(super) failed: u64,
}

impl World<'_> {
    pub(super) fn write(&self, records: impl Iterator<Item = Outgoing>) {
        let writer = self.simulation.log().writer(1).unwrap();
        records.for_each(|record| writer.send(record).unwrap());
    }

    pub(super) fn follow(&mut self) {
        let mut records = Vec::new();
        self.tables.poll(1000, Duration::ZERO, &mut records).unwrap();
        for record in records {
            self.table = Some(codec::read(&record.headers, record.value.as_deref().unwrap()).unwrap());
        }
    }

    pub(super) fn phase(&self) -> Option<(Phase, i32)> {
        let log = self.simulation.log();
        let newest = records(log, EVENTS, 0).iter().filter_map(control).last()?;
        Some((newest.phase, newest.step))
    }

    /// Writes a relay's heartbeat with this low watermark.
    pub(super) fn relay(&self, low_watermark: EventTime) {
        let sent_at = Some(micros(self.simulation.now_ms()));
        let writer = Writer { name: "intake-0".to_owned(), incarnation: 1, seq: 0 };
        let heartbeat = Heartbeat { writer, low_watermark, drops: vec![], leaving: false, sent_at, relay: true };
        let beat = |partition| outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
        self.write((0..PARTITIONS).map(beat));
    }
}
