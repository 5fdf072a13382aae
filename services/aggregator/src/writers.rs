//! Tracks the writers of a partition: duplicates, losses, and the progress of event time.
//!
//! Everything here is a pure function of the partition's records.
//!
//! **Duplicates and losses.** `seq` counts from 1 per (writer, incarnation, partition). A bitmap over the last
//! [`REACH`] numbers distinguishes a repeated record from one that arrived out of order; older numbers count as
//! repeated. At a heartbeat, missing numbers are counted as lost. A newer incarnation of a writer permanently
//! replaces the older one.
//!
//! **Watermark.** The smallest low watermark of the writers that hold it back. It never decreases. Detecting harm must
//! not wait for the slowest writer, so a writer holds back the watermark only while it is heard *in time*: one of its
//! heartbeats was appended to the log within `clock_tolerance` of the time at which it was sent, and since then the
//! partition's [log time](LogTime) has advanced by at most `silent_after`. This one rule covers a writer that is
//! dead, stopped, disconnected or slow, and one whose clock is off in either direction. Later records of such a
//! writer are counted as late.
//!
//! - No writer becomes silent while the log is unavailable: a step of log time counts for at most a second, and afterwards every
//!   writer has `silent_after` to catch up.
//! - A relay follows the clocks of the producers whose records it relays, so it holds back the watermark only while no router is heard.
//!   Models with relayed calls have [their own watermark](Writers::relayed), which gives the relayed records time to arrive.
//! - If no writer was heard in time for `silent_after`, the writers that are still heard hold back the watermark by their own clocks.
//! - A writer that does not report its send time (an older version) is judged by its low watermark while there is a router that
//!   reports its send time. Without such a router (a replay clock), the writer is waited for until it leaves, or until the clock
//!   of *another* writer has advanced by `writer_ttl` since it was last heard. Each writer's clock is measured by its own advance
//!   between heartbeats, and one advance counts for at most a quarter of `writer_ttl`, so a writer whose clock is a year ahead
//!   does not expire all others. A writer that is more than `max_skew` behind the watermark does not hold it back.
//!
//! Promotion waits for every writer: [`Writers::heard_through`] is the smallest low watermark of all writers that
//! have neither left nor been silent for `writer_ttl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, ModelName, Span},
    records::{Arm, ArmDrops, ClockOffset, Heartbeat, Writer},
    view::WriterView,
};

/// Number of words in the bitmap of one writer.
const WORDS: usize = 16;

/// How many sequence numbers back a new record can be distinguished from a repeated one.
const REACH: i64 = WORDS as i64 * 64;

/// The classification of a record by its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The record was not seen before.
    New,
    /// The record was seen before, or is too old to know.
    Repeated,
    /// The record comes from a process of this writer that a newer one has replaced.
    OldIncarnation,
    /// `seq` is below 1.
    Malformed,
}

/// Maximum number of silent writers, and of writers with a wrong clock, that are named.
const MAX_NAMED: usize = 16;

/// Longest step of log time, in milliseconds.
const LONGEST_STEP_MS: i64 = 1000;

/// The time of one partition's log. Each record advances it by the difference between its log timestamp and that of
/// the previous record, by at most a second and never back. A period in which no writer could write therefore hardly
/// counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogTime {
    now: Span,
    /// The log timestamp of the newest record, in milliseconds since the epoch.
    stamp_ms: Option<i64>,
}

impl LogTime {
    /// Advances to the timestamp of the next record.
    pub(crate) fn pass(&mut self, stamp_ms: i64) {
        let step = self.stamp_ms.map_or(0, |before| stamp_ms.saturating_sub(before).clamp(0, LONGEST_STEP_MS));
        *self = Self { now: Span(self.now.0.saturating_add(step * 1000)), stamp_ms: Some(stamp_ms) };
    }

    fn since(self, earlier: Span) -> Span {
        Span(self.now.0.saturating_sub(earlier.0))
    }
}

/// How long writers are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterTimeouts {
    /// See [`crate::Config::writer_ttl`].
    pub(crate) ttl: Span,
    /// See [`crate::Config::silent_after`].
    pub(crate) silent_after: Span,
    /// See [`crate::Config::clock_tolerance`].
    pub(crate) clock_tolerance: Span,
    /// See [`crate::Config::max_skew`].
    pub(crate) max_skew: Span,
    /// See [`crate::Config::relay_lateness`].
    pub(crate) lateness: Span,
}

/// When a writer was heard, in the [log time](LogTime) of the partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Timing {
    /// Whether it reports its send time, or there is another router that does. The other fields are only used if this
    /// is true.
    stated: bool,
    /// Whether the writer is a relay.
    relay: bool,
    /// When the writer's last heartbeat arrived.
    heard: Span,
    /// When the writer's last heartbeat in time arrived.
    in_time: Option<Span>,
    /// When the writer's low watermark last advanced.
    rose: Span,
    /// The deviation of its clock, if its last heartbeat was not in time.
    deviation: Option<ClockDeviation>,
}

/// A deviation between the send time of heartbeats and their append timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct ClockDeviation {
    /// Start of the deviation, in log time.
    since: Span,
    /// The writer's clock minus the log's: the difference closest to zero since the start, because a delay only adds
    /// to it.
    offset: Span,
}

impl Timing {
    /// Records a heartbeat. `offset` is the writer's clock minus the log's.
    fn hear(&mut self, offset: Option<Span>, rose: bool, log: LogTime, tolerance: Span) {
        self.stated = offset.is_some();
        self.heard = log.now;
        if rose {
            self.rose = log.now;
        }
        let Some(offset) = offset else { return };
        if offset.0.saturating_abs() <= tolerance.0 {
            self.in_time = Some(log.now);
            self.deviation = None;
            return;
        }
        let before = self.deviation.filter(|before| before.offset.0.signum() == offset.0.signum());
        self.deviation = Some(match before {
            Some(ClockDeviation { since, offset: known }) if known.0.saturating_abs() < offset.0.saturating_abs() => {
                ClockDeviation { since, offset: known }
            }
            Some(ClockDeviation { since, .. }) => ClockDeviation { since, offset },
            None => ClockDeviation { since: log.now, offset },
        });
    }

    /// The offset of the writer's clock, if the clock is off. A delay cannot make a clock look ahead. A clock that
    /// looks behind may be a queue after a pause, which drains soon.
    fn off(&self, log: LogTime, timeouts: WriterTimeouts) -> Option<Span> {
        let ClockDeviation { since, offset } = self.deviation?;
        (offset.0 > 0 || log.since(since) >= timeouts.silent_after).then_some(offset)
    }
}

/// The state of one writer, stored as the writer row. In formats 2 and 3 the row ends before `timing`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriterState {
    incarnation: i64,
    /// Largest `seq` seen.
    top: i64,
    /// Bit `seq % REACH` is set if the number was seen, for `top - REACH < seq <= top`.
    bits: [u64; WORDS],
    /// The number before the first one seen. Nothing is known about numbers up to it.
    base: i64,
    /// Number of distinct sequence numbers seen.
    received: i64,
    /// Sequence numbers counted as lost so far.
    lost: i64,
    /// The last low watermark. `None` before the first heartbeat.
    low: Option<EventTime>,
    /// The value of [`Writers::clock`] when the writer was last heard.
    heard: Span,
    left: bool,
    /// Drops that were already counted, per model and arm.
    drops: BTreeMap<(ModelName, Arm), i64>,
    timing: Timing,
    #[serde(skip)]
    dirty: bool,
}

/// The result of a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatResult {
    /// Whether the heartbeat came from a process that a newer one has replaced. It was ignored.
    pub(crate) old_incarnation: bool,
    /// Whether the writer's clock is off.
    pub(crate) skewed: bool,
    /// Number of records of this partition that are newly found missing.
    pub(crate) gaps: i64,
    /// New drops by model and arm.
    pub(crate) drops: Vec<ArmDrops>,
}

/// All writers of a partition.
#[derive(Debug)]
pub(crate) struct Writers {
    known: BTreeMap<String, WriterState>,
    /// Progress of the fastest clock, measured by the advances between heartbeats.
    pub(crate) clock: Span,
    /// The watermark of event time.
    pub(crate) watermark: Option<EventTime>,
    /// The watermark for models whose calls are relayed. While a router drives event time, relayed records may arrive
    /// `lateness` later.
    pub(crate) relayed: Option<EventTime>,
    /// The partition's log time.
    pub(crate) log: LogTime,
    /// Log time when a writer that was heard in time last held back the watermark.
    pub(crate) held: Span,
    timeouts: WriterTimeouts,
    limit: usize,
    /// Names that were removed since the last store.
    removed: Vec<String>,
    /// The two highest low watermarks of the writers that hold back the watermark, for [`Self::is_far_future`].
    ahead: [Option<(String, EventTime)>; 2],
}

impl WriterState {
    fn bit(seq: i64) -> (usize, u64) {
        let slot = seq.rem_euclid(REACH) as usize;
        (slot / 64, 1 << (slot % 64))
    }

    /// Whether a number was seen or is too old to know.
    fn saw(&self, seq: i64) -> bool {
        let (word, bit) = Self::bit(seq);
        seq <= self.top && (seq <= self.top - REACH || self.bits[word] & bit != 0)
    }

    /// Clears the numbers that leave the bitmap when `top` becomes `seq`.
    fn slide(&mut self, seq: i64) {
        if seq - self.top >= REACH {
            self.bits = [0; WORDS];
        } else {
            for gone in self.top + 1..=seq {
                let (word, bit) = Self::bit(gone);
                self.bits[word] &= !bit;
            }
        }
        self.top = seq;
    }

    fn mark(&mut self, seq: i64) {
        if seq > self.top {
            self.slide(seq);
        }
        let (word, bit) = Self::bit(seq);
        self.bits[word] |= bit;
        self.received += 1;
        self.dirty = true;
    }
}

impl Writers {
    pub(crate) fn new(timeouts: WriterTimeouts, limit: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            clock: Span(0),
            watermark: None,
            relayed: None,
            log: LogTime::default(),
            held: Span(0),
            timeouts,
            limit: limit.max(1),
            removed: Vec::new(),
            ahead: [None, None],
        }
    }

    /// Classifies a record by its sequence number. Changes nothing.
    pub(crate) fn look(&self, writer: WriterView<'_>) -> Seen {
        if writer.seq < 1 {
            return Seen::Malformed;
        }
        let Some(state) = self.known.get(writer.name) else { return Seen::New };
        match writer.incarnation.cmp(&state.incarnation) {
            std::cmp::Ordering::Less => Seen::OldIncarnation,
            std::cmp::Ordering::Equal if state.saw(writer.seq) => Seen::Repeated,
            std::cmp::Ordering::Greater | std::cmp::Ordering::Equal => Seen::New,
        }
    }

    /// Records a number that [`Self::look`] classified as new.
    pub(crate) fn mark(&mut self, writer: WriterView<'_>) {
        if let Some(state) = self.known.get_mut(writer.name)
            && state.incarnation == writer.incarnation
        {
            return state.mark(writer.seq);
        }
        let state = self.incarnation(writer.name, writer.incarnation, writer.seq - 1);
        state.mark(writer.seq);
        self.note_ahead();
    }

    /// The state of this incarnation. A new incarnation starts after number `base`.
    fn incarnation(&mut self, name: &str, incarnation: i64, base: i64) -> &mut WriterState {
        if !self.known.contains_key(name) {
            self.make_room();
        }
        let fresh =
            WriterState { incarnation, top: base, base, heard: self.clock, dirty: true, ..WriterState::default() };
        let state = self.known.entry(name.to_owned()).or_insert_with(|| fresh.clone());
        if state.incarnation != incarnation {
            *state = fresh;
        }
        state
    }

    /// Forgets the writer that has been silent for longest when there are too many.
    fn make_room(&mut self) {
        if self.known.len() < self.limit {
            return;
        }
        let silent = self.known.iter().min_by_key(|(_, state)| (!state.left, state.heard));
        if let Some(name) = silent.map(|(name, _)| name.clone()) {
            self.known.remove(&name);
            self.removed.push(name);
        }
    }

    /// Whether a writer has neither left nor been silent for `writer_ttl`.
    fn is_live(&self, state: &WriterState) -> bool {
        let Timing { stated, heard, .. } = state.timing;
        let silence = if stated { self.log.since(heard) } else { Span(self.clock.0.saturating_sub(state.heard.0)) };
        state.low.is_some() && !state.left && silence.0 <= self.timeouts.ttl.0
    }

    /// Whether a low watermark is so far behind event time that the writer's records are late anyway.
    fn is_behind(&self, low: Option<EventTime>, by: Span) -> bool {
        self.watermark.is_some_and(|mark| low.is_none_or(|low| low < mark.minus(by)))
    }

    /// Whether a writer holds back the watermark; see the module documentation.
    fn holds(&self, state: &WriterState) -> bool {
        let Timing { stated, relay, in_time, .. } = state.timing;
        if !stated {
            return self.is_live(state) && !self.is_behind(state.low, self.timeouts.max_skew);
        }
        let in_time = in_time.is_some_and(|at| self.log.since(at).0 <= self.timeouts.silent_after.0);
        // A writer that is heard in time but is behind had its event time pushed ahead by another writer's wrong
        // clock.
        let behind = self.is_behind(state.low, Span(2 * self.timeouts.clock_tolerance.0));
        self.is_live(state) && in_time && !relay && !behind
    }

    /// Whether a writer holds back the watermark by its own clock when no writer was heard in time.
    fn holds_alone(&self, state: &WriterState) -> bool {
        let Timing { relay, heard, rose, .. } = state.timing;
        let WriterTimeouts { silent_after, clock_tolerance, max_skew, .. } = self.timeouts;
        let heard = self.log.since(heard).0 <= silent_after.0;
        let behind = self.is_behind(state.low, if relay { max_skew } else { Span(2 * clock_tolerance.0) });
        // The watermark of a relay does not move while it relays only old records, which are late.
        let stalled = relay && self.log.since(rose).0 > 2 * silent_after.0;
        self.is_live(state) && heard && !behind && !stalled
    }

    fn lows(&self, belongs: impl Fn(&WriterState) -> bool) -> impl Iterator<Item = (&String, EventTime)> {
        self.known.iter().filter(move |(_, state)| belongs(state)).filter_map(|(name, state)| Some((name, state.low?)))
    }

    fn holders(&self) -> impl Iterator<Item = (&String, EventTime)> {
        self.lows(|state| self.holds(state))
    }

    /// The smallest low watermark of all writers that have neither left nor been silent for `writer_ttl`. Relays
    /// count only when there is no router.
    pub(crate) fn heard_through(&self) -> Option<EventTime> {
        let lowest = |relay: bool| {
            let live = self.lows(move |state| state.timing.relay == relay && self.is_live(state));
            live.map(|(_, low)| low).min()
        };
        lowest(false).or_else(|| lowest(true))
    }

    /// The silent routers without which the watermark advances.
    pub(crate) fn silent(&self) -> Vec<String> {
        let silent = self.lows(|state| {
            let Timing { stated, relay, in_time, .. } = state.timing;
            let late = in_time.is_none_or(|at| self.log.since(at).0 > self.timeouts.silent_after.0);
            stated && !relay && late && self.off(state).is_none() && self.is_live(state)
        });
        silent.map(|(name, _)| name.clone()).take(MAX_NAMED).collect()
    }

    /// Writers whose clocks are off, with the offset.
    pub(crate) fn skewed(&self) -> Vec<ClockOffset> {
        let live = self.known.iter().filter(|(_, state)| self.is_live(state));
        live.filter_map(|(name, state)| Some(ClockOffset { writer: name.clone(), offset: self.off(state)? }))
            .take(MAX_NAMED)
            .collect()
    }

    fn off(&self, state: &WriterState) -> Option<Span> {
        state.timing.off(self.log, self.timeouts)
    }

    /// Whether `at` is more than `max_skew` ahead of the other live writers, or of this one if it is the only one.
    pub(crate) fn is_far_future(&self, writer: &str, at: EventTime) -> bool {
        let others = self.ahead.iter().flatten().find(|(name, _)| name != writer).map(|(_, low)| *low);
        let own = || self.known.get(writer).and_then(|state| state.low);
        others.or_else(own).is_some_and(|reference| at > reference.plus(self.timeouts.max_skew))
    }

    /// Handles a heartbeat: updates the writer, losses and liveness, and then the watermark.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat) -> HeartbeatResult {
        let Writer { name, incarnation, seq } = &heartbeat.writer;
        let seq = (*seq).max(0);
        if self.known.get(name).is_some_and(|state| state.incarnation > *incarnation) {
            return HeartbeatResult { old_incarnation: true, ..HeartbeatResult::default() };
        }
        let timeouts @ WriterTimeouts { ttl, clock_tolerance, max_skew, .. } = self.timeouts;
        let others = self.holders().filter(|(other, _)| *other != name).map(|(_, low)| low).max();
        let jumped = others.is_some_and(|low| heartbeat.low_watermark > low.plus(max_skew));
        let behind = self.is_behind(Some(heartbeat.low_watermark), max_skew);

        let (clock, log) = (self.clock, self.log);
        let stamp = log.stamp_ms.map(|ms| EventTime(ms.saturating_mul(1000)));
        // With another router that reports its send time, all clocks are wall clocks, and a low watermark is a send
        // time.
        let sent = heartbeat.sent_at.or_else(|| self.has_other_router(name).then_some(heartbeat.low_watermark));
        let offset = sent.zip(stamp).map(|(sent, stamp)| sent.since(stamp));
        let state = self.incarnation(name, *incarnation, seq);
        let advance = match state.low {
            Some(low) if !state.left => heartbeat.low_watermark.since(low).0.max(0),
            _ => 0,
        };
        // One jump (a wrong clock, a machine that slept) must not expire the other writers: they may be heard again
        // right after.
        let advance = if others.is_some() { advance.min(ttl.0 / 4) } else { advance };
        let clock = Span(clock.0.max(state.heard.0.saturating_add(advance)));
        state.heard = clock;
        let rose = state.low.is_none_or(|low| heartbeat.low_watermark > low);
        state.low = Some(state.low.map_or(heartbeat.low_watermark, |low| low.max(heartbeat.low_watermark)));
        state.left = heartbeat.leaving;
        state.timing.relay = heartbeat.relay;
        state.timing.hear(offset, rose, log, clock_tolerance);
        state.dirty = true;
        let gaps = state.gaps(seq);
        let drops = state.new_drops(&heartbeat.drops);
        let off = state.timing.off(log, timeouts).is_some();
        self.clock = clock;
        self.advance_watermark(heartbeat);
        HeartbeatResult { old_incarnation: false, skewed: jumped || behind || off, gaps, drops }
    }

    fn advance_watermark(&mut self, heartbeat: &Heartbeat) {
        let mut lowest = self.holders().map(|(_, low)| low).min();
        if lowest.is_some() {
            self.held = self.log.now;
        } else if self.log.since(self.held).0 > self.timeouts.silent_after.0 {
            lowest = self.lows(|state| self.holds_alone(state)).map(|(_, low)| low).min();
        }
        // The last writer to leave has promised that nothing older follows.
        let in_time = |state: &WriterState| state.timing.deviation.is_none();
        let last = heartbeat.leaving && self.known.get(&heartbeat.writer.name).is_some_and(in_time);
        let reached = lowest.or(last.then_some(heartbeat.low_watermark));
        self.watermark = self.watermark.max(reached);
        // Where relays or a replay drive event time themselves, relayed records are not behind it.
        let wait = if self.has_other_router("") { self.timeouts.lateness } else { Span(0) };
        self.relayed = self.relayed.max(self.watermark.map(|mark| mark.minus(wait)));
        self.note_ahead();
    }

    /// Whether there is a live router other than `name` that reports its send time.
    fn has_other_router(&self, name: &str) -> bool {
        let router = |state: &WriterState| state.timing.stated && !state.timing.relay && self.is_live(state);
        self.lows(router).any(|(other, _)| other != name)
    }

    /// Updates the writers that are furthest ahead. Called after every change of a low watermark and after the stored
    /// writers were restored.
    pub(crate) fn note_ahead(&mut self) {
        let named = |(name, low): (&String, EventTime)| (low, name.clone());
        let mut lows: Vec<(EventTime, String)> = self.holders().map(named).collect();
        if lows.is_empty() {
            lows = self.lows(|state| self.is_live(state)).map(named).collect();
        }
        lows.sort_unstable_by(|one, two| two.cmp(one));
        let mut highest = lows.into_iter().map(|(low, name)| (name, low));
        self.ahead = [highest.next(), highest.next()];
    }

    /// The writers changed and the names removed since the last call.
    pub(crate) fn take_changes(&mut self) -> (Vec<(&String, &WriterState)>, Vec<String>) {
        let mut changed = Vec::new();
        for (name, state) in &mut self.known {
            if std::mem::take(&mut state.dirty) {
                changed.push((name, &*state));
            }
        }
        (changed, std::mem::take(&mut self.removed))
    }

    /// Restores a stored writer.
    pub(crate) fn restore(&mut self, name: String, state: WriterState) {
        self.known.insert(name, state);
    }
}

impl WriterState {
    /// The sequence numbers up to `seq` that are newly found missing.
    fn gaps(&mut self, seq: i64) -> i64 {
        let missing = (self.top.max(seq) - self.base - self.received).max(0);
        let found = (missing - self.lost).max(0);
        self.lost += found;
        found
    }

    fn new_drops(&mut self, drops: &[ArmDrops]) -> Vec<ArmDrops> {
        let mut fresh = Vec::new();
        for drop in drops {
            let counted = self.drops.entry((drop.model.clone(), drop.arm)).or_default();
            if drop.dropped > *counted {
                fresh.push(ArmDrops { dropped: drop.dropped - *counted, ..drop.clone() });
                *counted = drop.dropped;
            }
        }
        fresh
    }
}

#[cfg(test)]
#[path = "writers_tests.rs"]
mod tests;
