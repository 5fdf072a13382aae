//! Many rollouts of the demo in process, with a virtual clock: the real folds of aggregator, analyzer and controller, without
//! HTTP and without a log. It shows how often a version equal to stable is rolled back.
//!
//! The router is simulated by its rule: the canary takes the lowest of 10000 buckets, control the next ones.

use std::{cmp::Reverse, collections::BinaryHeap, process::ExitCode};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serin_rollout::Outcome;
use serin_schemas::{
    ids::{EventTime, ModelName},
    records::{Arm, Assignment, Feedback, Heartbeat, Origin, Prediction, RoutingTable, Writer},
};
use serin_spec::units::Duration;

use super::{
    data::{self, FlightRecord},
    model::Models,
    servers::service_time,
    story::{Chapter, MODEL, WINDOW, chapters, spec},
};
use crate::{
    cli::{Demo, Output, Scenario},
    in_process::InProcess,
    output, parallel,
};

/// Name of the only writer of events.
const WRITER: &str = "virtual-router";
/// Mean latency in addition to the service time, in microseconds: exponential, as from network and scheduler.
const EXTRA_US: f64 = 500.0;

/// Counts of how the rollouts ended.
#[derive(Debug, Default, Serialize)]
struct Counts {
    rollouts: u32,
    promoted: u32,
    rolled_back_on_evidence: u32,
    inconclusive: u32,
    unfinished: u32,
}

/// A flight with the predictions of the demo's models.
struct Known {
    flight: FlightRecord,
    /// Probability by `v1` to `v4`.
    probability: [f64; 4],
}

/// Runs `rollouts` rollouts of every chapter of the scenario and counts their ends.
pub(crate) fn run(args: &Demo, rollouts: u32) -> anyhow::Result<ExitCode> {
    let flights = known();
    let mut all = Vec::new();
    let third = flights.len() / 3;
    for (number, chapter) in chapters(args.scenario).iter().enumerate() {
        // As in the replay, each chapter has its third of the year. A single chapter uses all thirds in turn.
        let thirds: Vec<&[Known]> = match args.scenario {
            Scenario::Main => flights.chunks_exact(third).skip(number).take(1).collect(),
            Scenario::Aa => flights.chunks_exact(third).collect(),
        };
        let counts = count(*chapter, &thirds, args.seed, rollouts)?;
        if args.output == Output::Text {
            output::line(format!(
                "{} -> {}: {} rollouts: {} promoted, {} rolled back on evidence, {} inconclusive, {} unfinished",
                chapter.stable,
                chapter.canary,
                counts.rollouts,
                counts.promoted,
                counts.rolled_back_on_evidence,
                counts.inconclusive,
                counts.unfinished
            ));
        }
        all.push(serde_json::json!({"stable": chapter.stable, "canary": chapter.canary, "counts": counts}));
    }
    if args.output == Output::Json {
        output::json(&all)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn known() -> Vec<Known> {
    let models = Models::embedded();
    let by_version: Vec<_> = ["v1", "v2", "v3", "v4"].iter().filter_map(|version| models.get(version)).collect();
    data::flights()
        .map(|flight| {
            let features = flight.features();
            let mut probability = [0.0; 4];
            for (slot, model) in probability.iter_mut().zip(&by_version) {
                *slot = model.predict(&features);
            }
            Known { flight, probability }
        })
        .collect()
}

/// Runs the rollouts of one chapter on all cores, each on one of `spans` in turn and with its own seed.
fn count(chapter: Chapter, spans: &[&[Known]], seed: u64, rollouts: u32) -> anyhow::Result<Counts> {
    let title = format!("{} -> {}", chapter.stable, chapter.canary);
    let ends = parallel::run(&title, rollouts, parallel::cores(), |number| {
        let span = spans.get(number as usize % spans.len().max(1)).context("no flights")?;
        Pipeline::new(chapter, seed, number)?.play(span)
    })?;
    let mut counts = Counts { rollouts, ..Counts::default() };
    for end in ends {
        match end {
            Some(Outcome::Promoted) => counts.promoted += 1,
            Some(Outcome::Evidence) => counts.rolled_back_on_evidence += 1,
            Some(_) => counts.inconclusive += 1,
            None => counts.unfinished += 1,
        }
    }
    Ok(counts)
}

/// A label that is not known yet: its time, its prediction and its value.
type Label = Reverse<(i64, u64, bool)>;

/// One rollout of the demo, with its traffic and the folds.
struct Pipeline {
    chapter: Chapter,
    random: ChaCha8Rng,
    folds: InProcess,
    requests: u64,
    seq: i64,
    labels: BinaryHeap<Label>,
}

impl Pipeline {
    fn new(chapter: Chapter, seed: u64, number: u32) -> anyhow::Result<Self> {
        Ok(Self {
            chapter,
            random: ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number))),
            folds: InProcess::new(ModelName::from(MODEL), aggregator_config())?,
            requests: 0,
            seq: 0,
            labels: BinaryHeap::new(),
        })
    }

    /// Plays one rollout. `None`: there were no more flights before it ended.
    fn play(mut self, flights: &[Known]) -> anyhow::Result<Option<Outcome>> {
        let first = flights.first().context("no flights")?.flight.departed_at;
        let mut end = EventTime::from_secs(first).window_end(WINDOW);
        let mut rest = flights;
        self.apply()?;
        while !rest.is_empty() {
            let split = rest.partition_point(|known| EventTime::from_secs(known.flight.departed_at) < end);
            let (now, later) = rest.split_at(split);
            rest = later;
            for known in now {
                self.call(known)?;
            }
            self.feed_back(end)?;
            self.heartbeat(end)?;
            if let Some(ending) = self.folds.state().and_then(|state| state.ending.as_ref()) {
                return Ok(Some(ending.outcome));
            }
            end = end.plus(WINDOW);
        }
        Ok(None)
    }

    fn apply(&mut self) -> anyhow::Result<()> {
        let spec = spec(self.chapter, |version| format!("http://{version}.invalid"));
        let spec = serin_rollout::parse_yaml(&spec).map_err(|problems| anyhow::anyhow!("{problems:?}"))?.normalized();
        self.folds.apply(&spec)
    }

    fn call(&mut self, known: &Known) -> anyhow::Result<()> {
        let table = self.folds.table()?;
        let bucket = self.random.random_range(0..10_000);
        let (arm, version) = split(table, bucket).context("a table without stable")?;
        self.requests += 1;
        self.seq += 1;
        let request = self.requests;
        let extra = -EXTRA_US * (1.0 - self.random.random::<f64>()).ln();
        let model = ["v1", "v2", "v3", "v4"].iter().position(|name| *name == version).unwrap_or_default();
        let prediction = Prediction {
            request_id: request.to_string().into(),
            model: MODEL.into(),
            version: version.into(),
            arm,
            assignment: Assignment::Random,
            origin: Origin::Router,
            rollout: table.rollout.clone(),
            generation: table.generation,
            completed_at: EventTime::from_secs(known.flight.departed_at),
            latency_us: Some(service_time(version, &request.to_string()).as_micros() as i64 + extra as i64),
            status: Some(200),
            error: None,
            invalid_output: None,
            outcome: None,
            unread: None,
            batch: None,
            unit: None,
            outputs: [("probability".to_owned(), known.probability[model])].into(),
            classes: [].into(),
            segments: [("origin".to_owned(), known.flight.origin.clone())].into(),
            writer: writer(self.seq),
        };
        self.labels.push(Reverse((known.flight.label_at, request, known.flight.arrived_late())));
        self.folds.event(&request.to_string(), &prediction)
    }

    fn feed_back(&mut self, now: EventTime) -> anyhow::Result<()> {
        while let Some(Reverse((at, request, late))) = self.labels.peek().copied() {
            if EventTime::from_secs(at) > now {
                break;
            }
            self.labels.pop();
            self.seq += 1;
            let feedback = Feedback {
                request_id: request.to_string().into(),
                observed_at: EventTime::from_secs(at),
                revision: 0,
                values: [("late".to_owned(), f64::from(u8::from(late)))].into(),
                classes: [].into(),
                writer: writer(self.seq),
                credential: None,
            };
            self.folds.event(&request.to_string(), &feedback)?;
        }
        Ok(())
    }

    fn heartbeat(&mut self, now: EventTime) -> anyhow::Result<()> {
        let heartbeat = Heartbeat {
            writer: writer(self.seq),
            low_watermark: now,
            drops: vec![],
            leaving: false,
            sent_at: None,
            relay: false,
        };
        self.folds.event("", &heartbeat)?;
        self.folds.run_until_quiet()
    }
}

/// Timeouts beyond any run, because time is virtual: windows of six hours pass in a moment.
fn aggregator_config() -> serin_aggregator::Config {
    let long = Duration::from_secs(1000 * 86_400);
    serin_aggregator::Config { writer_ttl: long, max_skew: long, ..serin_aggregator::Config::default() }
}

/// The arm and version of a bucket.
fn split(table: &RoutingTable, bucket: i32) -> Option<(Arm, &str)> {
    let mut low = 0;
    for arm in [Arm::Canary, Arm::Control] {
        if let Some(route) = table.routes.iter().find(|route| route.arm == arm) {
            if (low..low + route.share).contains(&bucket) {
                return Some((arm, route.version.as_str()));
            }
            low += route.share;
        }
    }
    let stable = table.routes.iter().find(|route| route.arm == Arm::Stable)?;
    Some((Arm::Stable, stable.version.as_str()))
}

fn writer(seq: i64) -> Writer {
    Writer { name: WRITER.to_owned(), incarnation: 1, seq }
}
