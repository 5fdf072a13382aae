//! The aggregator: a pure fold over one partition of `events`.
//!
//! It keeps its state in memory and writes the changes into rows before each commit (see `state.rs`), so the records
//! that it writes to `windows` do not depend on when commits and restarts happen.

use serin_schemas::Code;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serin_schemas::{
    codec,
    event::EventRecord,
    ids::{EventTime, Span},
    records::{Arm, ArmDrops, ClosedThrough, Control, Heartbeat, Origin, Prediction},
    view::{EventView, FeedbackView, PredictionView, WriterView},
};
use serin_sketches::hash::hash64;
use serin_spec::{Frozen, RolloutSpec, Rules};
use serin_stream::{
    fold::{Context, Fold, FoldError, Poison, Rows},
    gauge::Series,
    record::Record,
};

use crate::{
    alarms::Alarms,
    close::{closed_through, window_closed},
    compiled::{CompiledSpec, time_of},
    config::Config,
    early::{Pending, ReadNames, set},
    joins::Joins,
    keys::ARMS,
    label::LabelUpdate,
    metrics::{self, Tally},
    model::Model,
    ranking::{item_of, place_items},
    rollout::{ActiveRollout, Frontier, Scratch, Work},
    rows::{self, Table},
    truths::{FeedbackLabels, MAX_WAITING_BYTES, place},
    writers::{Seen, WriterTimeouts, Writers},
};

/// Maximum number of values in one feedback.
const MAX_FEEDBACK_VALUES: usize = 64;

/// Longest request id in bytes. The router accepts 128 bytes, the intake 256.
const MAX_ID_BYTES: usize = 256;

/// The aggregator's fold over one partition.
pub struct AggregatorFold {
    partition: i32,
    /// Number of partitions of `events`.
    partitions: i32,
    pub(crate) config: Config,
    pub(crate) writers: Writers,
    pub(crate) models: BTreeMap<String, Model>,
    pub(crate) rollouts: BTreeMap<u32, ActiveRollout>,
    pub(crate) joins: Joins,
    /// Last promise written.
    pub(crate) promised: Option<EventTime>,
    /// The part of the last promise for models whose calls are relayed by intake.
    pub(crate) promised_relayed: Option<EventTime>,
    pub(crate) next_rollout: u32,
    /// Aggregated over all rollouts, so that an event need not check each of them.
    longest: Longest,
    /// Labels whose time a rollout reads, with the label name of that time.
    timed: Arc<BTreeMap<String, String>>,
    /// The state row as it was last written.
    pub(crate) stored_state: Option<bytes::Bytes>,
    pub(crate) tally: Tally,
    alarms: Alarms,
    /// The exported watermark metric.
    shown: Option<Series>,
    scratch: Scratch,
}

/// The longest window and the longest maturity of any rollout.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    window: Span,
    maturity: Span,
}

/// The id under which a model server's event about a mirrored call waits. The event itself carries the live call's
/// request id.
fn mirrored(id: &str) -> String {
    format!("{id}\0mirror")
}

/// Borrows everything that a rollout needs except the rollouts themselves.
macro_rules! work {
    ($fold:ident) => {
        Work {
            frontier: Frontier {
                watermark: $fold.writers.watermark,
                relayed: $fold.writers.relayed,
                promised: $fold.promised,
            },
            joins: &mut $fold.joins,
            tally: &mut $fold.tally,
            scratch: &mut $fold.scratch,
        }
    };
}

impl AggregatorFold {
    /// Creates the fold of `partition` out of `partitions`.
    pub fn new(config: Config, partition: i32, partitions: i32) -> Self {
        let timeouts = WriterTimeouts {
            ttl: config.writer_ttl.0,
            silent_after: config.silent_after.0,
            clock_tolerance: config.clock_tolerance.0,
            max_skew: config.max_skew.0,
            lateness: config.relay_lateness.0,
        };
        let writers = Writers::new(timeouts, config.max_writers);
        let joins = Joins::new(config.join_memory, config.max_join_rows.unwrap_or(usize::MAX));
        Self {
            partition,
            partitions,
            config,
            writers,
            models: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            joins,
            promised: None,
            promised_relayed: None,
            next_rollout: 1,
            longest: Longest::default(),
            timed: Arc::default(),
            stored_state: None,
            tally: Tally::default(),
            alarms: Alarms::default(),
            shown: None,
            scratch: Scratch::default(),
        }
    }

    pub(crate) fn frontier(&self) -> Frontier {
        let Writers { watermark, relayed, .. } = self.writers;
        Frontier { watermark, relayed, promised: self.promised }
    }

    fn check(&self, writer: WriterView<'_>, id: &str, at: EventTime) -> Result<Seen, Poison> {
        if id.is_empty() {
            return Err(Poison::new(Code::MissingId, "the record has no request id, so nothing could be joined to it"));
        }
        if id.len() > MAX_ID_BYTES {
            let bytes = id.len();
            return Err(Poison::new(
                Code::IdTooLong,
                format!("the request id has {bytes} bytes; at most {MAX_ID_BYTES} are accepted"),
            ));
        }
        match self.writers.look(writer) {
            Seen::Malformed => Err(Poison::new(
                Code::BadSequence,
                format!("writer {:?} sent sequence number {}", writer.name, writer.seq),
            )),
            Seen::OldIncarnation => Err(Poison::new(
                Code::OldIncarnation,
                format!("writer {:?} {} was replaced by a newer process", writer.name, writer.incarnation),
            )),
            // Heartbeats of a replay clock arrive at window ends, so an event may be up to a window ahead of the last
            // one.
            Seen::New if self.writers.is_far_future(writer.name, at.minus(self.longest.window)) => {
                let time = at.to_rfc3339().unwrap_or_else(|| at.to_string());
                let skew = self.config.max_skew;
                Err(Poison::new(
                    Code::FarFuture,
                    format!("{time} is ahead of the writers' watermarks by more than a window plus {skew}"),
                ))
            }
            seen => Ok(seen),
        }
    }

    /// Updates what is derived from the rollouts after they have changed.
    pub(crate) fn note_rollouts(&mut self) {
        let plans = || self.rollouts.values().map(|rollout| &rollout.compiled);
        self.longest = Longest {
            window: plans().map(|compiled| compiled.window).max().unwrap_or_default(),
            maturity: plans().map(CompiledSpec::longest).max().unwrap_or_default(),
        };
        self.timed = Arc::new(
            plans().flat_map(|compiled| &compiled.timed).map(|label| (label.clone(), time_of(label))).collect(),
        );
    }

    fn prediction(&mut self, prediction: &PredictionView<'_>) -> Result<(), Poison> {
        if let Some(latency) = prediction.latency_us.filter(|latency| *latency < 0) {
            return Err(Poison::new(
                Code::NegativeLatency,
                format!("latency {latency} us; a latency cannot be negative"),
            ));
        }
        let id = prediction.request_id;
        if self.check(prediction.writer, id, prediction.completed_at)? == Seen::Repeated {
            self.tally.duplicate += 1;
            return Ok(());
        }
        self.writers.mark(prediction.writer);
        let active = self.models.get(prediction.model).and_then(|model| model.active);
        let Some(rollout) = active.and_then(|number| self.rollouts.get_mut(&number)) else {
            self.tally.untracked += 1;
            return Ok(());
        };
        if prediction.origin == Origin::Intake && !rollout.compiled.external {
            return self.report(prediction);
        }
        let Some(place) = rollout.locate(prediction) else {
            self.tally.untracked += 1;
            return Ok(());
        };
        rollout.prediction(prediction, place, &mut work!(self));
        if !self.joins.early.is_empty() {
            let shadow = place.is_shadow();
            if shadow && let Some(pending) = self.joins.early.get(id) {
                // The labels keep waiting for the live answer.
                let (labels, truths) = (pending.labels.clone(), pending.truths.clone());
                for truths in FeedbackLabels::waiting(&labels, &truths) {
                    self.join_labels(id, &truths);
                }
            }
            let waits = if shadow { Cow::Owned(mirrored(id)) } else { Cow::Borrowed(id) };
            if let Some(pending) = self.joins.early.take(&waits) {
                self.join_pending(prediction, pending, shadow);
            }
        }
        Ok(())
    }

    /// Handles a model server's own event about a routed call: adds its outputs now, or when the call's event
    /// arrives.
    fn report(&mut self, report: &PredictionView<'_>) -> Result<(), Poison> {
        let active = self.models.get(report.model).and_then(|model| model.active);
        let Some(rollout) = active.and_then(|number| self.rollouts.get_mut(&number)) else { return Ok(()) };
        let id = report.request_id;
        let shadow = report.arm == Arm::Shadow;
        if !rollout.wants_outputs() {
            self.tally.untracked += 1;
        } else if rollout.fill(report, shadow, &mut work!(self)) {
            self.tally.filled += 1;
        } else if self.joins.admits(id) {
            let end = report.completed_at.window_end(rollout.compiled.window);
            let expires = end.plus(rollout.compiled.grace).plus(rollout.compiled.longest());
            if self.writers.watermark.is_some_and(|now| expires <= now) {
                self.tally.untracked += 1;
                return Ok(());
            }
            let waits_for = if shadow { Cow::Owned(mirrored(id)) } else { Cow::Borrowed(id) };
            let compiled = &rollout.compiled;
            let outputs = report.outputs.sorted().into_iter().filter(|(name, _)| compiled.reads_output(name));
            let classes = report.classes.sorted().into_iter().filter(|(name, _)| compiled.reads_class(name));
            let (outputs, classes): (Vec<_>, Vec<_>) = (outputs.collect(), classes.collect());
            if outputs.is_empty() && classes.is_empty() {
                self.tally.untracked += 1;
                return Ok(());
            }
            if let Some((name, class)) = classes.iter().find(|(_, class)| class.len() > MAX_WAITING_BYTES) {
                let bytes = class.len();
                return Err(Poison::new(
                    Code::ClassTooLong,
                    format!("{name} has {bytes} bytes; at most {MAX_WAITING_BYTES} are accepted"),
                ));
            }
            self.joins.early.wait(&waits_for, expires, &mut self.tally, |pending| {
                for (name, value) in &outputs {
                    set(&mut pending.outputs, name, *value);
                }
                for (name, class) in &classes {
                    set(&mut pending.classes, name, (*class).to_owned());
                }
            });
        } else {
            self.tally.sampled_out += 1;
        }
        Ok(())
    }

    /// Joins a new prediction with the values that waited for it.
    fn join_pending(&mut self, prediction: &PredictionView<'_>, pending: Pending, shadow: bool) {
        let id = prediction.request_id;
        let Some(join) = self.joins.get(id, shadow) else {
            self.tally.not_needed += u64::from(pending.has_labels());
            return;
        };
        let number = join.rollout;
        for truths in FeedbackLabels::waiting(&pending.labels, &pending.truths) {
            self.join_labels(id, &truths);
        }
        if !pending.has_outputs() {
            return;
        }
        if let Some(rollout) = self.rollouts.get_mut(&number) {
            let outputs = pending.outputs.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let classes = pending.classes.into_iter().map(|(name, class)| (name.into(), class)).collect();
            let report = Prediction { outputs, classes, batch: None, ..prediction.to_record() };
            let body = codec::encode(&report).unwrap_or_default();
            if PredictionView::read(&body).is_some_and(|report| rollout.fill(&report, shadow, &mut work!(self))) {
                self.tally.filled += 1;
            }
        }
    }

    fn feedback(&mut self, feedback: &FeedbackView<'_>) -> Result<(), Poison> {
        let (values, classes) = (feedback.values.sorted(), feedback.classes.sorted());
        let found = values.len() + classes.len();
        if found > MAX_FEEDBACK_VALUES {
            return Err(Poison::new(
                Code::TooManyValues,
                format!("the feedback has {found} values; at most {MAX_FEEDBACK_VALUES} are accepted"),
            ));
        }
        let id = feedback.request_id;
        if self.check(feedback.writer, id, feedback.observed_at)? == Seen::Repeated {
            self.tally.duplicate += 1;
            return Ok(());
        }
        self.writers.mark(feedback.writer);
        let truths = FeedbackLabels::of(feedback.revision, &values, &classes, feedback.credential.as_ref());
        self.tally.unusable += (found - truths.labels.len() - truths.classes.len()) as u64;
        let timed = Arc::clone(&self.timed);
        let truths = truths.timed(&timed, feedback.observed_at);
        if self.join_labels(id, &truths) {
            return Ok(());
        }
        let truths = truths.retain_read(&Rollouts(&self.rollouts));
        if truths.is_empty() {
            self.tally.not_needed += 1;
            return Ok(());
        }
        if !self.joins.admits(id) {
            self.tally.sampled_out += 1;
            return Ok(());
        }
        if !self.rollouts.is_empty() && !self.rollouts.values().any(|rollout| truths.may_judge(rollout.model.as_str()))
        {
            self.tally.not_allowed += 1;
            return Ok(());
        }
        self.tally.early += 1;
        let expires = self.give_up_at(feedback.observed_at);
        let contradicts = self.joins.early.wait(id, expires, &mut self.tally, |pending| truths.wait(pending));
        self.tally.contradicting += u64::from(contradicts);
        Ok(())
    }

    /// When feedback that arrives now expires.
    fn give_up_at(&self, observed_at: EventTime) -> EventTime {
        let Longest { maturity, .. } = self.longest;
        let wait = if maturity.0 > 0 { maturity } else { self.config.feedback_ttl.0 };
        self.writers.watermark.unwrap_or(observed_at).max(observed_at).plus(wait)
    }

    /// Joins labels to the predictions that wait under this id. Returns false if none waits.
    fn join_labels(&mut self, id: &str, truths: &FeedbackLabels<'_>) -> bool {
        let (mut found, frontier) = (false, self.frontier());
        for shadow in [false, true] {
            let Some(join) = self.joins.get_mut(id, shadow) else { continue };
            let Some(rollout) = self.rollouts.get_mut(&join.rollout) else { continue };
            found = true;
            if !truths.may_judge(rollout.model.as_str()) {
                // A later label of an authorized writer is still accepted.
                self.tally.not_allowed += 1;
                continue;
            }
            let mut updates = place(&rollout.compiled.labels, &mut join.labels, &truths.labels);
            updates.extend(place(&rollout.compiled.truths, &mut join.truths, &truths.classes));
            updates.extend(place_items(&rollout.compiled.item_labels, &mut join.truths, &truths.labels));
            let contradicts = updates.contains(&LabelUpdate::Contradicts);
            let arm = ARMS[usize::from(join.arm)];
            rollout.contradict(arm, i64::from(contradicts) + truths.contradictions(), frontier);
            let tally = &mut self.tally;
            tally.contradicting += u64::from(contradicts);
            let outcome = match updates {
                _ if updates.contains(&LabelUpdate::First) => &mut tally.joined,
                _ if updates.contains(&LabelUpdate::Revised) => &mut tally.revised,
                _ if updates.contains(&LabelUpdate::Repeated) || updates.contains(&LabelUpdate::Contradicts) => {
                    &mut tally.repeated
                }
                _ if updates.contains(&LabelUpdate::Older) => &mut tally.older_revision,
                _ => &mut tally.not_needed,
            };
            *outcome += 1;
        }
        found
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat, context: &mut Context<'_>) -> Result<(), FoldError> {
        let before = (self.writers.watermark, self.writers.relayed);
        let heard = self.writers.heartbeat(heartbeat);
        if heard.old_incarnation {
            self.tally.old_incarnation += 1;
            return Ok(());
        }
        self.tally.skewed += u64::from(heard.skewed);
        self.count_losses(heartbeat, heard.gaps, &heard.drops);
        if (self.writers.watermark, self.writers.relayed) == before {
            return Ok(());
        }
        if let Some(now) = self.writers.watermark {
            let (labels, reports) = self.joins.early.expire(now);
            self.tally.unknown += labels;
            self.tally.untracked += reports;
        }
        let mut closed = Vec::new();
        for rollout in self.rollouts.values_mut() {
            closed.extend(rollout.close_due(self.partition, &mut work!(self)));
        }
        if !closed.is_empty() {
            self.joins.relax();
        }
        for window in closed {
            context.out.push(window_closed(window)?);
            context.commit_now = true;
        }
        self.promise(context)
    }

    /// Counts losses in the next windows to close. Drops are a writer's total over all partitions, so one partition,
    /// chosen by the writer's name, counts them. The arm of a gap is unknown, so gaps count against `stable` in every
    /// rollout.
    fn count_losses(&mut self, heartbeat: &Heartbeat, gaps: i64, drops: &[ArmDrops]) {
        self.tally.lost_gap += gaps as u64;
        let name = heartbeat.writer.name.as_bytes();
        let ours =
            hash64(b"serin.drops", name) % u64::from(self.partitions.max(1).unsigned_abs()) == self.partition as u64;
        let drops = if ours { drops } else { &[] };
        self.tally.lost_dropped += drops.iter().map(|drop| drop.dropped as u64).sum::<u64>();
        if gaps == 0 && drops.is_empty() {
            return;
        }
        let frontier = self.frontier();
        for rollout in self.rollouts.values_mut() {
            rollout.lose(Arm::Stable, gaps, frontier);
            for drop in drops {
                if drop.model == rollout.model {
                    rollout.lose(drop.arm, drop.dropped, frontier);
                }
            }
        }
    }

    /// Sends the analyzer a promise of how far this partition has advanced, if that closes a window in any stream of
    /// any rollout. Each rollout has its own grace, which the analyzer subtracts again.
    fn promise(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        let Some(through) = self.writers.watermark.filter(|_| !self.rollouts.is_empty()) else { return Ok(()) };
        let relayed = self.writers.relayed.unwrap_or(through);
        let passes = self.promised.is_none_or(|before| {
            let relayed_before = self.promised_relayed.unwrap_or(before);
            self.rollouts.values().any(|ActiveRollout { compiled, .. }| {
                let (before, after) = if compiled.external { (relayed_before, relayed) } else { (before, through) };
                let end_after =
                    |at: EventTime, maturity| at.minus(maturity).minus(compiled.grace).window_end(compiled.window);
                compiled.streams.iter().any(|&maturity| end_after(after, maturity) > end_after(before, maturity))
            })
        });
        if passes {
            self.promised = Some(through);
            self.promised_relayed = Some(relayed);
            let promise = ClosedThrough {
                relayed_through: Some(relayed).filter(|relayed| *relayed < through),
                heard_through: self.writers.heard_through().filter(|heard| *heard < through),
                silent: self.writers.silent(),
                skewed: self.writers.skewed(),
                ..ClosedThrough::heard(self.partition, self.partitions, through)
            };
            context.out.push(closed_through(&promise)?);
            context.commit_now = true;
        }
        Ok(())
    }

    fn control(&mut self, control: &Control, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let parsed = Self::parse(control);
        let (spec, frozen) = match parsed {
            Ok(parsed) => parsed,
            Err(poison) => return Ok(Err(poison)),
        };
        let model = self.models.entry(control.model.0.clone()).or_default();
        if control.generation <= model.generation {
            self.tally.stale_controls += 1;
            return Ok(Ok(()));
        }
        model.generation = control.generation;
        model.dirty = true;
        // Under other rules it counts as a different rollout, so that results of different rules are never mixed.
        let rules = Rules::numbered(control.rules).folded();
        let same = |rollout: &ActiveRollout| rollout.id == control.rollout && rollout.compiled.rules == rules;
        let active = model.active.filter(|number| self.rollouts.get(number).is_some_and(same));
        let previous = model.active;
        if control.phase.is_final() {
            model.active = None;
        } else {
            model.active = active.or(Some(self.next_rollout));
        }
        let now = model.active;
        if let Some(number) = previous.filter(|previous| now != Some(*previous)) {
            self.end(number, context)?;
        }
        if let Some(number) = now {
            let values = self.config.max_warmup_values;
            if active.is_none() {
                self.next_rollout += 1;
                self.rollouts.insert(number, ActiveRollout::new(number, control, &spec, values));
            }
            self.begin(number, control, frozen.as_ref(), context.rows)?;
        }
        self.note_rollouts();
        Ok(Ok(()))
    }

    /// Handles rare records, and records of older versions, which are re-encoded so that they can be read in place.
    fn other(&mut self, event: EventRecord, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let again = || FoldError::State("a record of an older version cannot be re-encoded".into());
        match event {
            EventRecord::Heartbeat(heartbeat) => self.heartbeat(&heartbeat, context).map(Ok),
            EventRecord::Control(control) => self.control(&control, context),
            EventRecord::Prediction(old) => {
                let body = codec::encode(&old).map_err(|_| again())?;
                Ok(self.prediction(&PredictionView::read(&body).ok_or_else(again)?))
            }
            EventRecord::Feedback(old) => {
                let body = codec::encode(&old).map_err(|_| again())?;
                Ok(self.feedback(&FeedbackView::read(&body).ok_or_else(again)?))
            }
        }
    }

    pub(crate) fn parse(control: &Control) -> Result<(RolloutSpec, Option<Frozen>), Poison> {
        let bad = |what: &str, error: &serde_json::Error| Poison {
            code: Code::BadControl,
            message: format!("the {what} of rollout {} is unreadable: {error}", control.rollout),
        };
        let spec = serde_json::from_str(&control.spec).map_err(|error| bad("spec", &error))?;
        let frozen = control.frozen.as_deref().map(serde_json::from_str).transpose();
        Ok((spec, frozen.map_err(|error| bad("frozen warm-up", &error))?))
    }

    fn begin(
        &mut self,
        number: u32,
        control: &Control,
        frozen: Option<&Frozen>,
        rows: &mut dyn Rows,
    ) -> Result<(), FoldError> {
        let Some(rollout) = self.rollouts.get_mut(&number) else { return Ok(()) };
        rows.put(&rows::control(number, control.generation), rows::encode(&(control, rollout.compiled.rules))?);
        if let Some(old) = rollout.begin(control, frozen) {
            rows.delete(&rows::control(number, old));
        }
        Ok(())
    }

    /// Ends a rollout: writes its open windows and removes its rows.
    fn end(&mut self, number: u32, context: &mut Context<'_>) -> Result<(), FoldError> {
        let Some(mut rollout) = self.rollouts.remove(&number) else { return Ok(()) };
        for window in rollout.end(self.partition, &mut work!(self)) {
            context.out.push(window_closed(window)?);
            context.commit_now = true;
        }
        for table in [Table::Control, Table::Values, Table::Counts, Table::Units, Table::Cells] {
            rows::delete_all(context.rows, rows::of_rollout(table, number))?;
        }
        self.joins.early.retain_read(&Rollouts(&self.rollouts), &mut self.tally);
        Ok(())
    }
}

/// The names that the active rollouts read.
struct Rollouts<'a>(&'a BTreeMap<u32, ActiveRollout>);

impl ReadNames for Rollouts<'_> {
    fn label(&self, name: &str) -> bool {
        self.0.values().any(|rollout| {
            let CompiledSpec { labels, item_labels, .. } = &rollout.compiled;
            labels.iter().any(|known| known == name)
                || item_labels.iter().any(|known| item_of(name, &known.label).is_some())
        })
    }

    fn truth(&self, name: &str) -> bool {
        self.0.values().any(|rollout| rollout.compiled.truths.iter().any(|known| known == name))
    }

    fn output(&self, name: &str) -> bool {
        self.0.values().any(|rollout| rollout.compiled.reads_output(name))
    }

    fn class(&self, name: &str) -> bool {
        self.0.values().any(|rollout| rollout.compiled.reads_class(name))
    }
}

impl Fold for AggregatorFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        self.tally.publish();
        self.load(rows)
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        self.writers.log.pass(record.timestamp_ms);
        let Some(value) = &record.value else {
            return Ok(Err(Poison::new(Code::Empty, "the record has no value; `events` does not support tombstones")));
        };
        let event = match EventView::decode(&record.headers, value) {
            Ok(event) => event,
            Err(error) => return Ok(Err(Poison::new(error.code(), error.to_string()))),
        };
        match event {
            EventView::Prediction(prediction) => Ok(self.prediction(&prediction)),
            EventView::Feedback(feedback) => Ok(self.feedback(&feedback)),
            EventView::Other(other) => self.other(*other, context),
        }
    }

    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        self.store(context.rows)
    }

    fn unsaved_bytes(&self) -> usize {
        self.joins.unsaved()
    }

    fn memory(&self) -> Vec<(&'static str, usize)> {
        let windows = self.rollouts.values().map(ActiveRollout::windows_bytes).sum();
        vec![("predictions", self.joins.bytes()), ("early", self.joins.early.bytes()), ("windows", windows)]
    }

    fn committed(&mut self) {
        self.tally.publish();
        if let Some(watermark) = self.writers.watermark {
            let seconds = watermark.0 as f64 / 1e6;
            self.shown.get_or_insert_with(|| metrics::watermark(self.partition, seconds)).set(seconds);
        }
        self.alarms.report(self.partition, &self.writers);
    }
}
