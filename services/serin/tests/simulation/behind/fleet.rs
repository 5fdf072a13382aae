//! Two routers and what they share: how one of them can be behind.

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

/// How one of two routers, or a writer of others' events, is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Nobody,
    /// `kill -9`.
    Dead,
    /// SIGSTOP, and after so many seconds SIGCONT.
    Stopped(i64),
    /// Cut off from the log; after so many seconds what waited is written at once.
    CutOff(i64),
    /// Each record is on the log so many seconds after it was sent.
    Slow(i64),
    /// It has no calls.
    Idle,
    /// Its clock was always off by so many seconds.
    Clock(i64),
    /// Its clock jumps by so many seconds.
    Jump(i64),
    /// Killed, and started again after so many seconds.
    Restarted(i64),
    /// Killed, and started again after 1 s under another name.
    Renamed,
    /// There was no other router; it joins, with a clock that is off by so many seconds.
    Joined(i64),
    /// A relay: a record of now, and then old ones only.
    StalledRelay,
    /// Nobody can write for 25 s; the canary turns bad after that.
    LogPause,
}

pub(super) const ALL: [Behind; 17] = [
    Behind::Nobody,
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

/// What a writer says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Its heartbeats have the time at which they were sent.
    Sent,
    /// They do not: an older version, or somebody else's writer.
    Low,
    /// It sends no heartbeats.
    Nothing,
}

impl Behind {
    /// Any way that one of two routers can be behind.
    pub(super) fn any(seed: u64) -> (Self, Says) {
        let draw = |of: &str, choices: u64| (hash64(of.as_bytes(), &seed.to_le_bytes()) % choices) as i64;
        // What is further ahead than ten minutes is refused.
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
        let says = [Says::Sent, Says::Low, Says::Nothing];
        (ways[draw("way", ways.len() as u64) as usize], says[draw("says", 3) as usize])
    }
}

/// A router by its rule, with a clock and a way to the log of its own.
pub(super) struct Router {
    pub(super) name: &'static str,
    pub(super) incarnation: i64,
    pub(super) seq: BTreeMap<i32, i64>,
    /// Nothing earlier may follow.
    pub(super) floor: EventTime,
    /// What its clock shows less the log's, in milliseconds.
    pub(super) off_ms: i64,
    /// How long its records take.
    pub(super) delay_ms: i64,
    pub(super) runs: bool,
    pub(super) has_calls: bool,
    /// Its records wait for the log.
    pub(super) cut_off: bool,
    pub(super) says: Says,
    /// Records on their way, with the time at which they arrive.
    pub(super) on_the_way: Vec<(i64, Outgoing)>,
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
            says: Says::Sent,
            on_the_way: Vec::new(),
            next_call_ms: now_ms,
            next_beat_ms: now_ms + 300,
        }
    }

    /// Killed and started again; what was on its way is lost.
    pub(super) fn start_again(&mut self, name: &'static str, now_ms: i64) {
        *self = Self { off_ms: self.off_ms, says: self.says, ..Self::new(name, now_ms) };
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
                self.on_the_way.push((now_ms + self.delay_ms, call));
            }
        }
        while self.runs && self.next_beat_ms <= now_ms {
            self.next_beat_ms += 1000;
            let sent_at = micros(now_ms + self.off_ms);
            self.floor = self.floor.max(sent_at);
            for partition in (0..PARTITIONS).filter(|_| self.says != Says::Nothing) {
                let heartbeat = Heartbeat {
                    writer: self.writer(partition),
                    low_watermark: self.floor,
                    drops: vec![],
                    leaving: false,
                    sent_at: (self.says == Says::Sent).then_some(sent_at),
                    relay: false,
                };
                let record = outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
                self.on_the_way.push((now_ms + self.delay_ms, record));
            }
        }
        if !self.cut_off && !world.log_is_away {
            let arrived = self.on_the_way.iter().position(|(at, _)| *at > now_ms).unwrap_or(self.on_the_way.len());
            world.write(self.on_the_way.drain(..arrived).map(|(_, record)| record));
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
        };
        outgoing(EVENTS, Target::Partition(partition), &request, &prediction)
    }
}

/// What the routers share.
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

    /// A relay's heartbeat: its watermark stands still.
    pub(super) fn relay(&self, low_watermark: EventTime) {
        let sent_at = Some(micros(self.simulation.now_ms()));
        let writer = Writer { name: "intake-0".to_owned(), incarnation: 1, seq: 0 };
        let heartbeat = Heartbeat { writer, low_watermark, drops: vec![], leaving: false, sent_at, relay: true };
        let beat = |partition| outgoing(EVENTS, Target::Partition(partition), "", &heartbeat);
        self.write((0..PARTITIONS).map(beat));
    }
}
