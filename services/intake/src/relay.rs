//! The relay: a fold over one partition of `predictions` and the same-numbered partition of `feedback`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serin_doors::half::{self, Half};
use serin_schemas::Code;
use serin_schemas::{
    codec::Record as AvroRecord,
    envelope::Envelope,
    foreign::Bounds,
    ids::{EventTime, Span},
    records::{Assignment, DeadLetter, Feedback, Heartbeat, Origin, Prediction, Writer},
};
use serin_spec::units::Duration;
use serin_stream::{
    fold::{Context, Fold, FoldError, Poison, Rows},
    partition_of,
    record::{Outgoing, Record, Target},
};
use serin_topology::{DEAD_LETTERS, EVENTS, PREDICTIONS};

use crate::{
    config::{IntakeClock, IntakeConfig, MAX_BODY},
    incoming::{self, Incoming},
    metrics,
    pairs::{Lone, Pairs, Taken},
    rows,
    topics::Sources,
};

/// Key of the only row.
const STATE: &[u8] = b"intake";

/// The longest interval between two ticks that is expected, in milliseconds. A tick is due every second, and a commit
/// may delay it.
const MAX_TICK_INTERVAL_MS: i64 = 30_000;

/// How far ahead of the log a reported time may be before the append timestamp is used instead. Synchronized clocks differ
/// by less.
const AHEAD: Span = Span(2_000_000);

/// The state that must survive a restart. Its stored form is version 1 of the row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Log time of the first record ever relayed, in microseconds. A relay that lost its rows and resumes at a later
    /// record becomes a new incarnation. A relay that starts from the same record again repeats its output, and the
    /// aggregator recognizes the repetition.
    incarnation: i64,
    /// The last sequence number written to each partition of `events`.
    seqs: Vec<i64>,
    /// Newest event time relayed.
    newest: Option<EventTime>,
    /// Whether the last heartbeat holds the watermark.
    announced: bool,
}

/// The relay of one partition.
pub struct IntakeFold {
    config: IntakeConfig,
    sources: Sources,
    /// The `writer.name` of every record that the relay writes.
    name: String,
    partition: i32,
    state: State,
    stored: State,
    pairs: Pairs,
    /// Whether a prediction was relayed since the last tick.
    fresh: bool,
    /// Wall-clock time when the last prediction was seen, in milliseconds.
    active_ms: Option<i64>,
    /// Wall-clock time of the last tick, in milliseconds.
    ticked_ms: Option<i64>,
    predictions: u64,
    feedback: u64,
    /// Relayed records whose time was ahead of the log.
    ahead: u64,
    /// Halves of calls that were written to the partition of their call.
    halves: u64,
    /// Halves of calls that arrived again.
    repeated: u64,
    /// Halves of calls that were dead-lettered, by door and part.
    unpaired: BTreeMap<(&'static str, &'static str), u64>,
}

impl IntakeFold {
    /// Creates the relay of `partition` into `events` partitions.
    pub fn new(config: IntakeConfig, partition: i32, events: i32) -> Self {
        let state = State { seqs: vec![0; events.max(1) as usize], ..State::default() };
        Self {
            sources: Sources::new(&config.topics, ""),
            pairs: Pairs::new(config.doors.pair_within.0.0, config.doors.max_pairs, config.clock == IntakeClock::Wall),
            config,
            partition,
            name: format!("intake-{partition}"),
            stored: state.clone(),
            state,
            fresh: false,
            active_ms: None,
            ticked_ms: None,
            predictions: 0,
            feedback: 0,
            ahead: 0,
            halves: 0,
            repeated: 0,
            unpaired: BTreeMap::new(),
        }
    }

    /// Sets the prefix of the topics.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str) -> Self {
        self.sources = Sources::new(&self.config.topics, prefix);
        self
    }

    fn writer(&self, partition: usize) -> Writer {
        Writer { name: self.name.clone(), incarnation: self.state.incarnation, seq: self.state.seqs[partition] }
    }

    /// When a record was appended. A topic that keeps its producers' timestamps may contain any time, so the result
    /// is capped shortly after the last tick.
    fn logged(&self, record: &Record) -> EventTime {
        let latest_ms = self.ticked_ms.map_or(i64::MAX, |ticked| ticked.saturating_add(MAX_TICK_INTERVAL_MS));
        EventTime(record.timestamp_ms.min(latest_ms).saturating_mul(1000))
    }

    /// When the reported event happened. A reported time later than the append time comes from a clock that is ahead.
    /// Its windows would close only when event time reaches that clock, and harm would be detected minutes late.
    fn happened(&mut self, reported: EventTime, record: &Record) -> EventTime {
        let logged = self.logged(record);
        let live = self.config.clock == IntakeClock::Wall && logged.0 > 0;
        if !live || reported <= logged.plus(AHEAD) {
            return reported;
        }
        self.ahead += 1;
        logged
    }

    fn bounds(&self, record: &Record) -> Bounds {
        let logged = self.logged(record);
        Bounds::new(Some(logged).filter(|logged| logged.0 > 0), logged, self.config.max_skew.0)
    }

    fn read(&self, record: &Record) -> Result<Incoming, Poison> {
        let topic = self.sources.of(&record.at.topic);
        let max_body = self.config.max_body.min(MAX_BODY);
        let read = incoming::read(record, topic.kind, max_body, &self.config.doors, &self.bounds(record))?;
        let model = match &read {
            Incoming::Prediction(prediction) => Some(prediction.model.as_str()),
            Incoming::Half(half) => Some(half.model.as_str()),
            Incoming::Feedback(_) => None,
        };
        if let Some(model) = model
            && !topic.covers(model)
        {
            let message = format!(
                "model: records on {} may not report on {model}; intake.topics binds the topic to {}",
                record.at.topic,
                topic.credential.models.join(", ")
            );
            return Err(Poison::new(Code::NotAllowed, message));
        }
        Ok(read)
    }

    /// Takes the next sequence number of the partition of this request.
    fn place(&mut self, id: &str, record: &Record) -> usize {
        if self.state.incarnation == 0 {
            self.state.incarnation = record.timestamp_ms.saturating_mul(1000).max(1);
        }
        let partition = partition_of(id.as_bytes(), self.state.seqs.len() as i32) as usize;
        self.state.seqs[partition] += 1;
        partition
    }

    fn prediction(&mut self, mut prediction: Prediction, record: &Record) -> Result<Outgoing, FoldError> {
        let partition = self.place(prediction.request_id.as_str(), record);
        prediction.writer = self.writer(partition);
        prediction.origin = Origin::Intake;
        if matches!(prediction.assignment, Assignment::Random | Assignment::Sticky) {
            // Only a Serin router may claim these assignments.
            prediction.assignment = Assignment::External;
        }
        prediction.completed_at = self.happened(prediction.completed_at, record);
        // A single wrong clock, even within the tolerance, must not run ahead of the log.
        let logged = self.logged(record);
        let seen = if logged.0 > 0 { prediction.completed_at.min(logged) } else { prediction.completed_at };
        self.state.newest = self.state.newest.max(Some(seen));
        self.fresh = true;
        self.predictions += 1;
        let (id, model, at) = (&prediction.request_id, &prediction.model, prediction.completed_at);
        self.outgoing(partition, id.as_str(), id.as_str(), model.as_str(), at, &prediction)
    }

    fn feedback(&mut self, mut feedback: Feedback, record: &Record) -> Result<Outgoing, FoldError> {
        let partition = self.place(feedback.request_id.as_str(), record);
        feedback.writer = self.writer(partition);
        feedback.observed_at = self.happened(feedback.observed_at, record);
        // The topic decides, not the record's own claim.
        feedback.credential = Some(self.sources.of(&record.at.topic).credential.clone());
        self.feedback += 1;
        let id = format!("{}/{}", record.at.topic, record.offset);
        self.outgoing(partition, feedback.request_id.as_str(), &id, "", feedback.observed_at, &feedback)
    }

    /// Pairs a half with its other half, or writes it to the partition in which both meet.
    fn half(
        &mut self,
        half: &Half,
        record: &Record,
        context: &mut Context<'_>,
    ) -> Result<Result<(), Poison>, FoldError> {
        let owner = partition_of(half.id.as_bytes(), self.state.seqs.len() as i32);
        if owner != self.partition {
            let id = format!("{}/{}", record.at.topic, record.offset);
            let headers =
                [("ce_specversion", "1.0"), ("ce_id", &id), ("ce_type", half::TYPE), ("ce_source", &self.name)];
            context.out.push(Outgoing {
                topic: PREDICTIONS,
                target: Target::Partition(owner),
                key: Bytes::copy_from_slice(half.id.as_bytes()),
                value: Some(half.encode().into()),
                headers: headers.into_iter().chain([("content-type", "application/json")]).collect(),
                timestamp_ms: None,
            });
            self.halves += 1;
            return Ok(Ok(()));
        }
        match self.pairs.take(half, record, &self.bounds(record), context.rows)? {
            Ok(Taken::Waits) => {}
            Ok(Taken::Repeated) => self.repeated += 1,
            Ok(Taken::Paired(prediction)) => {
                let outgoing = self.prediction(*prediction, record)?;
                context.out.push(outgoing);
            }
            Err(poison) => return Ok(Err(poison)),
        }
        Ok(Ok(()))
    }

    /// The dead letter of a half whose other half did not arrive.
    fn unpaired(&mut self, Lone { half, at, waited }: Lone, record: &Record) -> Result<Outgoing, FoldError> {
        let source = format!("{}[{}]", at.topic, at.partition);
        let read = Half::decode(&half, &self.bounds(record)).ok();
        let (door, part, id) = read
            .map_or(("kserve", "request", String::new()), |half| (half.logger.as_str(), half.part.as_str(), half.id));
        *self.unpaired.entry((door, part)).or_default() += 1;
        let is_early = waited < self.config.doors.pair_within.0.0;
        let cause = if is_early { "doors.max_pairs calls are in memory" } else { "its other part did not arrive" };
        // In whole milliseconds.
        let waited = Duration(Span(waited - waited % 1000));
        let letter = DeadLetter {
            stage: "intake".to_owned(),
            topic: at.topic,
            partition: at.partition,
            offset: at.offset,
            code: Code::Unpaired.to_string(),
            message: format!("the {part} of call {id:?} of {door} waited for {waited} of the log's time, and {cause}"),
            key: id.into_bytes(),
            value: half.to_vec(),
        };
        let envelope = Envelope {
            id: &format!("{source}@{}", at.offset),
            source: "/stages/intake",
            subject: &source,
            time: self.logged(record),
        };
        Outgoing::record(DEAD_LETTERS, Target::ByKey, source.clone(), &letter, &envelope)
            .map_err(|error| FoldError::Unwritable(format!("writing to `dead-letters`: {error}")))
    }

    fn outgoing<R: AvroRecord>(
        &self,
        partition: usize,
        key: &str,
        id: &str,
        subject: &str,
        time: EventTime,
        record: &R,
    ) -> Result<Outgoing, FoldError> {
        let source = format!("/intake/{}", self.name);
        let (target, key) = (Target::Partition(partition as i32), Bytes::copy_from_slice(key.as_bytes()));
        Outgoing::record(EVENTS, target, key, record, &Envelope { id, source: &source, subject, time })
            .map_err(|error| FoldError::Unwritable(format!("relaying to `events`: {error}")))
    }

    /// Sends one heartbeat to every partition of `events`. Event time never runs ahead of the wall clock, whatever
    /// the producer's clock.
    fn heartbeat(&mut self, leaving: bool, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        let Some(newest) = self.state.newest else { return Ok(()) };
        let now = EventTime(now_ms.saturating_mul(1000));
        let low_watermark = newest.min(now).minus(self.config.lateness.0);
        for partition in 0..self.state.seqs.len() {
            let beat = Heartbeat {
                writer: self.writer(partition),
                low_watermark,
                drops: Vec::new(),
                leaving,
                sent_at: Some(now),
                relay: true,
            };
            let id = format!("{}-{partition}-{low_watermark}", self.name);
            let outgoing = self.outgoing(partition, &self.name, &id, "", low_watermark, &beat)?;
            context.out.push(outgoing);
        }
        self.state.announced = !leaving;
        context.commit_now = true;
        Ok(())
    }
}

impl Fold for IntakeFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        self.committed();
        self.pairs.open(rows)?;
        let Some(row) = rows.get(STATE)? else { return Ok(()) };
        let stored: State = rows::decode(&row)?;
        let partitions = self.state.seqs.len();
        if stored.seqs.len() != partitions {
            return Err(FoldError::State(format!(
                "`events` has {partitions} partitions, but intake wrote to {}; a topic's partitions cannot change",
                stored.seqs.len()
            )));
        }
        self.stored = stored.clone();
        self.state = stored;
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let read = match self.read(record) {
            Ok(read) => read,
            Err(poison) => return Ok(Err(poison)),
        };
        for lone in self.pairs.advance(self.logged(record).0, context.rows)? {
            let letter = self.unpaired(lone, record)?;
            context.out.push(letter);
        }
        let outgoing = match read {
            Incoming::Prediction(prediction) => self.prediction(*prediction, record)?,
            // Labels of a row that is not used.
            Incoming::Feedback(feedback) if feedback.is_empty() => return Ok(Ok(())),
            Incoming::Feedback(feedback) => self.feedback(*feedback, record)?,
            Incoming::Half(half) => return self.half(&half, record, context),
        };
        context.out.push(outgoing);
        Ok(Ok(()))
    }

    fn tick(&mut self, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        self.ticked_ms = Some(now_ms);
        if self.config.clock == IntakeClock::Replay {
            return Ok(());
        }
        self.pairs.tick(now_ms.saturating_mul(1000));
        let active = *self.active_ms.get_or_insert(now_ms);
        if std::mem::take(&mut self.fresh) {
            self.active_ms = Some(now_ms);
            self.heartbeat(false, now_ms, context)
        } else if self.state.announced && now_ms.saturating_sub(active) >= self.config.idle_after.0.0 / 1000 {
            self.heartbeat(true, now_ms, context)
        } else {
            Ok(())
        }
    }

    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        if self.state != self.stored {
            context.rows.put(STATE, rows::encode(&self.state)?);
            self.stored = self.state.clone();
        }
        Ok(())
    }

    fn memory(&self) -> Vec<(&'static str, usize)> {
        vec![("pairs", self.pairs.bytes())]
    }

    fn committed(&mut self) {
        metrics::relayed("prediction", std::mem::take(&mut self.predictions));
        metrics::relayed("feedback", std::mem::take(&mut self.feedback));
        metrics::ahead(std::mem::take(&mut self.ahead));
        metrics::relayed("half", std::mem::take(&mut self.halves));
        metrics::repeated(std::mem::take(&mut self.repeated));
        for door in metrics::DOORS {
            for part in metrics::PARTS {
                metrics::unpaired(door, part, self.unpaired.remove(&(door, part)).unwrap_or_default());
            }
        }
    }
}
