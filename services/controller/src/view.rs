//! What the API shows: a read model of `audit`, `verdicts`, `routing` and `router-status`, kept by one thread.
//!
//! It is a cache of topics: bounded, rebuilt at each start, and never written back. Readers get an immutable snapshot and can
//! wait for the next one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serin_rollout::{
    RolloutState,
    planner::{ACTUATOR, Applied, Freeze, RouterSeen, WallMs, applied},
};
use serin_schemas::{
    codec::{self, Record as _},
    envelope,
    ids::{Generation, ModelName, NextOffset, RolloutId},
    records::{Arm, EventKind, Phase, RolloutEvent, RouterStatus, RoutingTable, Verdict},
};
use serin_spec::Concurrency;
use serin_stream::{
    log::{Log, LogError, Polled, Reader, Start},
    record::{Record, TopicPartition},
};
use serin_topology::{AUDIT, ROUTER_STATUS, ROUTING, VERDICTS};
use tokio::sync::watch;
use uuid::Uuid;

use crate::series::{Point, Series};

/// Maximum number of events of one rollout that are kept.
const EVENTS_KEPT: usize = 1000;
/// Maximum number of answers to commands that are kept.
const ANSWERS_KEPT: usize = 1000;
/// Maximum number of routers whose reports are kept. A killed router does not report that it leaves, and its successor may have another name.
const ROUTERS_KEPT: usize = 1000;
/// Number of verdicts and router reports that a start reads back, per partition. Each is only shown until the next one.
const READ_BACK: i64 = 500;
/// Shortest text that is taken for the start of an id, so that a typing error does not name a rollout.
const PREFIX_MIN: usize = 4;
/// Maximum number of records per poll.
const BATCH: usize = 1000;

/// Which reports count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reporters {
    /// The reports of all routers.
    Routers,
    /// Only the reports of actuators, which drive external routers. Serin's routers carry no calls of `traffic: external`.
    Actuators,
}

/// Which reports are recent enough to count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// The wall clock.
    pub(crate) now_ms: i64,
    /// How old a report may be.
    pub(crate) ttl_ms: i64,
}

/// A snapshot of everything that the API shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    rollouts: BTreeMap<RolloutId, Arc<RolloutView>>,
    /// Ids by when the log got their first record, in milliseconds. The order in which records are read says nothing about it: after a
    /// start, the newest verdicts are read before the audit events of older rollouts.
    order: BTreeSet<(i64, RolloutId)>,
    /// Audit events that answer a command, newest last.
    answers: VecDeque<Arc<RolloutEvent>>,
    tables: BTreeMap<ModelName, Arc<RoutingTable>>,
    routers: BTreeMap<String, Reports>,
    /// By the pattern of their models.
    freezes: BTreeMap<ModelName, Arc<Freeze>>,
    bytes: Bytes,
    caught_up: bool,
    history: usize,
    /// Distinguishes the revisions of this view from those of other processes, and from those before the log was read again.
    epoch: String,
    /// Number of the snapshot. It grows with each one.
    revision: u64,
    /// The snapshot in which a rollout was last forgotten.
    forgot: u64,
    /// Partitions of `verdicts` of which only the newest records are read.
    partial: BTreeSet<i32>,
}

/// Bytes of the records that are kept for all rollouts together. An event is counted once, for its rollout.
#[derive(Clone, Debug, Default)]
struct Bytes {
    answers: VecDeque<usize>,
    tables: BTreeMap<ModelName, usize>,
}

/// Bytes of the records that are kept of one rollout.
#[derive(Clone, Debug, Default)]
struct OwnBytes {
    state: usize,
    verdict: usize,
    series: usize,
    events: VecDeque<usize>,
}

/// The last reports of one router, by partition. Each report is about the models of its partition.
type Reports = BTreeMap<i32, Report>;

/// A report, and when it arrived (wall clock of the log).
#[derive(Clone, Debug)]
struct Report {
    status: Arc<RouterStatus>,
    seen_ms: i64,
    bytes: usize,
}

/// What the API shows of one rollout.
#[derive(Clone, Debug, Default)]
pub struct RolloutView {
    /// The rollout's model.
    pub model: ModelName,
    /// The state in the newest event that had one.
    pub state: Option<Arc<RolloutState>>,
    /// The newest verdict.
    pub verdict: Option<Arc<Verdict>>,
    /// The rollout's events, oldest first, without their states.
    pub events: VecDeque<Arc<RolloutEvent>>,
    /// How many older events were dropped.
    pub dropped: usize,
    /// When the log got its first record, in milliseconds.
    first_ms: i64,
    /// The verdicts over time.
    pub(crate) series: Series,
    /// Whether the series lacks verdicts that were written before this process started.
    pub(crate) is_partial: bool,
    /// The snapshot in which it last changed.
    pub(crate) revision: u64,
    bytes: OwnBytes,
}

impl RolloutView {
    /// Events after number `after` (the first event has number 1), and the number of the newest.
    pub fn after(&self, after: usize) -> (Vec<Arc<RolloutEvent>>, usize) {
        let skip = after.saturating_sub(self.dropped);
        (self.events.iter().skip(skip).cloned().collect(), self.dropped + self.events.len())
    }

    /// Share of the canary, in 1/10000, while this generation was in force.
    pub(crate) fn share_at(&self, generation: Generation) -> i32 {
        let event = self.events.iter().rev().find(|event| event.generation <= generation);
        event.map_or(0, |event| event.canary_share)
    }
}

impl View {
    /// An empty view that will keep `history` rollouts.
    pub fn new(history: usize) -> Self {
        Self { history: history.max(1), ..Self::default() }
    }

    /// All rollouts with a known state, newest first.
    pub fn rollouts(&self) -> impl Iterator<Item = &Arc<RolloutView>> {
        self.order.iter().rev().filter_map(|(_, id)| self.rollouts.get(id)).filter(|rollout| rollout.state.is_some())
    }

    /// A rollout by what a user wrote: its id, its model, or the start of its id.
    ///
    /// # Errors
    /// Several ids start with the text. The error lists them, oldest first.
    pub fn find(&self, text: &str) -> Result<Option<(&RolloutId, &Arc<RolloutView>)>, Vec<&RolloutId>> {
        if let Some(found) = self.rollouts.get_key_value(&RolloutId::from(text)) {
            return Ok(Some(found));
        }
        if let Some(found) = self.of_model(text) {
            return Ok(self.rollouts.iter().find(|(_, rollout)| Arc::ptr_eq(rollout, found)));
        }
        if text.len() < PREFIX_MIN {
            return Ok(None);
        }
        let after = self.rollouts.range(RolloutId::from(text)..);
        let mut matches =
            after.take_while(|(id, _)| id.as_str().starts_with(text)).filter(|(_, one)| one.state.is_some());
        match (matches.next(), matches.next()) {
            (Some(first), Some(second)) => Err([first, second].into_iter().chain(matches).map(|(id, _)| id).collect()),
            (found, _) => Ok(found),
        }
    }

    /// A rollout by its id, or by its model: the active one; without one, a queued one; otherwise the newest.
    pub fn rollout(&self, id_or_model: &str) -> Option<&Arc<RolloutView>> {
        self.rollouts.get(&RolloutId::from(id_or_model)).or_else(|| self.of_model(id_or_model))
    }

    fn of_model(&self, model: &str) -> Option<&Arc<RolloutView>> {
        let of_model = || self.rollouts().filter(|rollout| rollout.model.as_str() == model);
        let waits =
            |rollout: &&Arc<RolloutView>| rollout.state.as_ref().is_some_and(|state| state.phase == Phase::Pending);
        let running = of_model().find(|rollout| runs(rollout) && !waits(rollout));
        running.or_else(|| of_model().filter(waits).last()).or_else(|| of_model().next())
    }

    /// Rollouts that have not ended.
    pub fn running(&self) -> impl Iterator<Item = &Arc<RolloutView>> {
        self.rollouts().filter(|rollout| rollout.state.as_ref().is_some_and(|state| !state.phase.is_final()))
    }

    /// The newest routing table of each model.
    pub fn tables(&self) -> &BTreeMap<ModelName, Arc<RoutingTable>> {
        &self.tables
    }

    /// What is frozen at `now_ms`, wall clock.
    pub fn freezes(&self, now_ms: i64) -> impl Iterator<Item = &Freeze> {
        let lasts =
            move |freeze: &&Arc<Freeze>| freeze.until.is_none_or(|until| until > WallMs(now_ms).as_event_time());
        self.freezes.values().filter(lasts).map(AsRef::as_ref)
    }

    /// The answers of the partitions to a command about a pattern of models, one each.
    pub(crate) fn answers_about_pattern(&self, command: &str) -> impl Iterator<Item = &Arc<RolloutEvent>> {
        self.answers.iter().filter(move |event| event.rollout.is_none() && event.cause.as_deref() == Some(command))
    }

    /// The newest report of each router, with all its models.
    pub fn routers(&self) -> impl Iterator<Item = RouterStatus> {
        self.routers.values().filter_map(merged)
    }

    /// Which routers use a generation of a model's table, of those whose reports are recent enough.
    pub(crate) fn applied(&self, model: &ModelName, generation: Generation, only: Reporters, span: Live) -> Applied {
        let live: Vec<(&str, RouterSeen)> = self
            .routers
            .iter()
            .filter(|(name, _)| only == Reporters::Routers || name.starts_with(ACTUATOR))
            .filter_map(|(name, reports)| {
                let seen_ms = reports.values().map(|report| report.seen_ms).max()?;
                let live = span.now_ms.saturating_sub(seen_ms) <= span.ttl_ms;
                live.then(|| Some((name.as_str(), RouterSeen::of(&merged(reports)?, WallMs(seen_ms))))).flatten()
            })
            .collect();
        applied(model, generation, live.iter().map(|(name, seen)| (*name, seen)))
    }

    /// The event that answers a command. If the command named a rollout, the event must be about that rollout, because another
    /// rollout may have left the queue in the same turn.
    pub fn answer(&self, command: &str, rollout: Option<&RolloutId>) -> Option<&Arc<RolloutEvent>> {
        let mut answers = self.answers.iter().filter(|event| event.cause.as_deref() == Some(command));
        answers.find(|event| rollout.is_none_or(|rollout| event.rollout.as_ref() == Some(rollout)))
    }

    /// The last event by which a command started a rollout or was refused.
    pub fn started(&self, command: &str) -> Option<&Arc<RolloutEvent>> {
        let is_outcome = |event: &&Arc<RolloutEvent>| {
            event.cause.as_deref() == Some(command) && matches!(event.kind, EventKind::Started | EventKind::Refused)
        };
        self.answers.iter().rfind(is_outcome)
    }

    /// The version that will serve a model when its next rollout starts, as far as is known. This is the promoted version while it is
    /// monitored, unless the next rollout supersedes the active one, which then ends with its stable version.
    pub fn stable_version(&self, model: &str, next: Concurrency) -> Option<&str> {
        let running = self.running().filter(|rollout| rollout.model.as_str() == model);
        let mut promoted = running.filter_map(|rollout| rollout.state.as_ref()).filter(|state| state.promoted);
        if let Some(state) = promoted.next()
            && next != Concurrency::Supersede
        {
            return Some(state.spec.canary.version.as_str());
        }
        let table = self.tables.get(&ModelName::from(model))?;
        table.routes.iter().find(|route| route.arm == Arm::Stable).map(|route| route.version.as_str())
    }

    /// Bytes of the records that are kept, by their kind.
    pub(crate) fn bytes(&self) -> [(&'static str, usize); 4] {
        let of = |own: &OwnBytes| own.state + own.verdict + own.series + own.events.iter().sum::<usize>();
        [
            ("rollouts", self.rollouts.values().map(|rollout| of(&rollout.bytes)).sum()),
            ("answers", self.bytes.answers.iter().sum()),
            ("tables", self.bytes.tables.values().sum()),
            ("routers", self.routers.values().flat_map(BTreeMap::values).map(|report| report.bytes).sum()),
        ]
    }

    /// The ids of all rollouts that are kept, with their snapshots.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&RolloutId, &Arc<RolloutView>)> {
        self.rollouts.iter()
    }

    /// Where a reader of the changes stands: the epoch, and the number of the snapshot.
    pub(crate) fn position(&self) -> (&str, u64) {
        (&self.epoch, self.revision)
    }

    /// The snapshot in which a rollout was last forgotten.
    pub(crate) fn forgot(&self) -> u64 {
        self.forgot
    }

    /// Whether every topic has been read to its end once.
    pub fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// Applies one record. A record that cannot be read is skipped, because its stage has dead-lettered it.
    pub fn apply(&mut self, record: &Record) {
        let Some(body) = &record.value else { return };
        let Ok((name, version)) = envelope::record_type(&record.headers) else { return };
        if name == RolloutEvent::NAME {
            let _ = codec::decode(version, body).map(|event| self.on_event(event, record.timestamp_ms, body.len()));
        } else if name == Verdict::NAME {
            let _ = codec::decode(version, body).map(|verdict| self.on_verdict(verdict, record, body.len()));
        } else if name == RoutingTable::NAME {
            let _ = codec::decode(version, body).map(|table: RoutingTable| {
                self.bytes.tables.insert(table.model.clone(), body.len());
                self.tables.insert(table.model.clone(), Arc::new(table));
            });
        } else if name == RouterStatus::NAME {
            let at = (record.at.partition, record.timestamp_ms);
            let _ = codec::decode(version, body).map(|status: RouterStatus| self.on_status(status, at, body.len()));
        }
    }

    fn on_status(&mut self, status: RouterStatus, (partition, seen_ms): (i32, i64), bytes: usize) {
        if status.leaving {
            self.routers.remove(&status.router);
            return;
        }
        let reports = self.routers.entry(status.router.clone()).or_default();
        reports.retain(|_, report| report.status.incarnation == status.incarnation);
        reports.insert(partition, Report { status: Arc::new(status), seen_ms, bytes });
        if self.routers.len() > ROUTERS_KEPT {
            let seen = |reports: &Reports| reports.values().map(|report| report.seen_ms).max();
            let silent = self.routers.iter().min_by_key(|(_, reports)| seen(reports)).map(|(name, _)| name.clone());
            silent.map(|name| self.routers.remove(&name));
        }
    }

    fn on_verdict(&mut self, verdict: Verdict, record: &Record, bytes: usize) {
        let is_partial = !self.caught_up && self.partial.contains(&record.at.partition);
        let rollout = self.entry(&verdict.rollout, &verdict.model, record.timestamp_ms);
        rollout.is_partial |= is_partial && rollout.verdict.is_none();
        rollout.series.push(Point::of(&verdict, record.timestamp_ms));
        rollout.bytes.series = rollout.series.bytes();
        if rollout.verdict.as_ref().is_none_or(|known| known.as_of < verdict.as_of) {
            rollout.verdict = Some(Arc::new(verdict));
            rollout.bytes.verdict = bytes;
        }
    }

    fn on_event(&mut self, mut event: RolloutEvent, logged_ms: i64, bytes: usize) {
        let state = event.state.take();
        let of_state = state.as_ref().map_or(0, String::len);
        let bytes = bytes.saturating_sub(of_state);
        let frozen =
            state.as_ref().filter(|_| event.rollout.is_none()).and_then(|state| serde_json::from_str(state).ok());
        let state = state.and_then(|state| serde_json::from_str::<RolloutState>(&state).ok());
        let event = Arc::new(event);
        if event.cause.is_some() {
            if self.answers.len() >= ANSWERS_KEPT {
                self.answers.pop_front();
                self.bytes.answers.pop_front();
            }
            self.answers.push_back(Arc::clone(&event));
            self.bytes.answers.push_back(bytes);
        }
        let Some(id) = &event.rollout else {
            self.on_freeze(&event, frozen);
            return;
        };
        let rollout = self.entry(id, &event.model, logged_ms);
        if let Some(state) = state {
            rollout.state = Some(Arc::new(state));
            rollout.bytes.state = of_state;
        }
        if rollout.events.len() >= EVENTS_KEPT {
            rollout.events.pop_front();
            rollout.bytes.events.pop_front();
            rollout.dropped += 1;
        }
        rollout.events.push_back(event);
        rollout.bytes.events.push_back(bytes);
    }

    /// An event without a rollout: the start or the end of a freeze, or something else.
    fn on_freeze(&mut self, event: &RolloutEvent, freeze: Option<Freeze>) {
        match (event.kind, freeze) {
            (EventKind::Frozen, Some(freeze)) => drop(self.freezes.insert(event.model.clone(), Arc::new(freeze))),
            (EventKind::Unfrozen, _) => drop(self.freezes.remove(&event.model)),
            _ => {}
        }
    }

    fn entry(&mut self, id: &RolloutId, model: &ModelName, logged_ms: i64) -> &mut RolloutView {
        match self.rollouts.get(id).map(|rollout| rollout.first_ms) {
            None => {
                self.order.insert((logged_ms, id.clone()));
                self.forget_old();
            }
            Some(later) if logged_ms < later => {
                self.order.remove(&(later, id.clone()));
                self.order.insert((logged_ms, id.clone()));
            }
            Some(_) => {}
        }
        let new = || Arc::new(RolloutView { model: model.clone(), first_ms: logged_ms, ..RolloutView::default() });
        let rollout = Arc::make_mut(self.rollouts.entry(id.clone()).or_insert_with(new));
        rollout.first_ms = rollout.first_ms.min(logged_ms);
        // The snapshot with this change is published next.
        rollout.revision = self.revision + 1;
        rollout
    }

    /// Forgets the oldest rollout that has ended, if there are too many.
    fn forget_old(&mut self) {
        if self.order.len() <= self.history {
            return;
        }
        let idle = |(_, id): &&(i64, RolloutId)| self.rollouts.get(id).is_some_and(|rollout| !runs(rollout));
        if let Some(oldest) = self.order.iter().find(idle).cloned() {
            self.order.remove(&oldest);
            self.rollouts.remove(&oldest.1);
            self.forgot = self.revision + 1;
        }
    }
}

/// Merges the reports of a router into one.
fn merged(reports: &Reports) -> Option<RouterStatus> {
    let mut reports = reports.values();
    let mut all = RouterStatus::clone(&reports.next()?.status);
    for Report { status, .. } in reports {
        all.at = all.at.max(status.at);
        all.applied.extend_from_slice(&status.applied);
        all.shed.extend_from_slice(&status.shed);
        all.undecided.extend_from_slice(&status.undecided);
        all.refused.extend_from_slice(&status.refused);
        all.seen_outputs.extend_from_slice(&status.seen_outputs);
        if let Some(configured) = &status.configured {
            all.configured.get_or_insert_default().extend_from_slice(configured);
        }
    }
    Some(all)
}

fn runs(rollout: &RolloutView) -> bool {
    rollout.state.as_ref().is_some_and(|state| !state.phase.is_final())
}

/// Keeps a view up to date until `stop` is set. This blocks and needs its own thread.
pub(crate) fn follow(log: &Arc<dyn Log>, view: &watch::Sender<Arc<View>>, history: usize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = follow_once(log, view, history, stop) {
            tracing::warn!(%error, "the API cannot read the log and will retry");
            let until = std::time::Instant::now() + Duration::from_secs(1);
            while !stop.load(Ordering::Relaxed) && std::time::Instant::now() < until {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
    }
}

fn follow_once(
    log: &Arc<dyn Log>,
    published: &watch::Sender<Arc<View>>,
    history: usize,
    stop: &AtomicBool,
) -> Result<(), LogError> {
    let (mut reader, partial) = open(log)?;
    let mut view = View { epoch: Uuid::now_v7().simple().to_string(), partial, ..View::new(history) };
    let mut records = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let polled = reader.poll(BATCH, Duration::from_millis(200), &mut records)?;
        let changed = !records.is_empty() || (polled == Polled::AtEnd && !view.caught_up);
        for record in records.drain(..) {
            view.apply(&record);
        }
        view.caught_up |= polled == Polled::AtEnd;
        // While the topics are read back after a failure, the view from before the failure is more complete.
        view.revision += u64::from(changed);
        if changed && (view.caught_up || !published.borrow().caught_up) {
            published.send_replace(Arc::new(view.clone()));
        }
    }
    Ok(())
}

/// A reader of the topics, and the partitions of `verdicts` of which it reads only the newest records.
fn open(log: &Arc<dyn Log>) -> Result<(Box<dyn Reader>, BTreeSet<i32>), LogError> {
    let (mut places, mut partial) = (Vec::new(), BTreeSet::new());
    for topic in [AUDIT, ROUTING, VERDICTS, ROUTER_STATUS] {
        for partition in 0..log.partitions(topic)? {
            let at = TopicPartition { topic: log.full_name(topic), partition };
            let start = if topic == AUDIT || topic == ROUTING {
                Start::Beginning
            } else {
                let (first, end) = log.bounds(&at)?;
                let from = (end.0 - READ_BACK).max(first.0);
                if topic == VERDICTS && from > first.0 {
                    partial.insert(partition);
                }
                Start::At(NextOffset(from))
            };
            places.push((at, start));
        }
    }
    Ok((log.reader(&places)?, partial))
}

#[cfg(test)]
mod tests {
    use serin_schemas::ids::EventTime;

    use super::*;

    fn event(number: usize, rollout: &str) -> RolloutEvent {
        RolloutEvent {
            id: number.to_string(),
            model: "m".into(),
            rollout: Some(rollout.into()),
            kind: EventKind::Warned,
            phase: Phase::Completed,
            step: 0,
            canary_share: 0,
            generation: Generation(1),
            at: EventTime(0),
            recorded_at: EventTime(0),
            actor: "operator".to_owned(),
            sentence: String::new(),
            cause: Some(format!("command {number}")),
            state: Some("{}".to_owned()),
            was_good: None,
        }
    }

    fn status(router: String) -> RouterStatus {
        RouterStatus {
            router,
            incarnation: 1,
            at: EventTime(0),
            applied: Vec::new(),
            shed: Vec::new(),
            undecided: Vec::new(),
            refused: Vec::new(),
            configured: None,
            seen_outputs: Vec::new(),
            seen_labels: Vec::new(),
            leaving: false,
        }
    }

    /// After a start, the reader gets the newest verdicts before the audit events of older rollouts, and partitions in any order. The
    /// newest rollout of a model is still the one that started last: a client asks for it before it starts the next one.
    #[test]
    fn rollouts_are_listed_by_their_start_in_whatever_order_records_are_read() {
        let records = [("old", 10), ("middle", 20), ("new", 30)];
        for first in 0..3 {
            let mut view = View::new(10);
            // Another record of one of them is read before everything else.
            view.on_event(event(9, records[first].0), 40, 1);
            for turn in 0..3 {
                let (id, at) = records[(first + turn) % 3];
                view.on_event(event(turn, id), at, 1);
                view.on_event(event(turn, id), at + 15, 1);
            }
            let listed: Vec<&str> = view.order.iter().map(|(_, id)| id.as_str()).collect();
            assert_eq!(listed, ["old", "middle", "new"]);
        }
        // The oldest one is forgotten, even if it was read last.
        let mut view = View::new(2);
        for (id, at) in [("new", 30), ("old", 10), ("middle", 20)] {
            view.on_event(event(0, id), at, 1);
        }
        let listed: Vec<&str> = view.order.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(listed, ["middle", "new"]);
    }

    #[test]
    fn the_view_is_bounded_and_reports_its_bytes() {
        let mut view = View::new(3);
        let bytes = |view: &View| BTreeMap::from(view.bytes());
        for rollout in 0..5 {
            for number in 0..1500 {
                view.on_event(event(number, &format!("r{rollout}")), rollout, 102);
            }
        }
        // A state that cannot be read is not kept. All rollouts but three are forgotten, with their events.
        let kept = bytes(&view);
        assert_eq!((kept["rollouts"], kept["answers"]), (3 * EVENTS_KEPT * 100, ANSWERS_KEPT * 100));
        for router in 0..ROUTERS_KEPT as i64 + 200 {
            let name = format!("pod-{router}");
            view.on_status(status(name.clone()), (0, router), 10);
            view.on_status(status(name), (1, router), 20);
        }
        assert_eq!(bytes(&view)["routers"], ROUTERS_KEPT * 30);
        let names: Vec<String> = view.routers().map(|status| status.router).collect();
        assert!(names.contains(&"pod-200".to_owned()) && !names.contains(&"pod-199".to_owned()));
        for name in names {
            view.on_status(RouterStatus { leaving: true, ..status(name) }, (0, 0), 10);
        }
        assert_eq!(bytes(&view)["routers"], 0);
    }
}
