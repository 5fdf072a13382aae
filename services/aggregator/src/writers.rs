//! Who writes to the partition: duplicates, losses, and how far event time has come.
//!
//! Everything here is a function of the records of the partition alone.
//!
//! **Duplicates and losses.** `seq` counts from 1 per (writer, incarnation, partition). A bitmap over the last [`REACH`] numbers
//! tells a repeated record from one that came out of order; what lies further back counts as repeated. At a heartbeat, numbers
//! that are missing are lost. A newer incarnation of a writer replaces the older one for good.
//!
//! **Watermark.** The smallest low watermark of the writers that hold event time; it never goes back. Harm must not wait for the
//! slowest writer, so a writer holds event time only while it is heard *in time*: one of its heartbeats stood on the log within
//! `clock_tolerance` of the time at which it says it was sent, and since then the partition's [log time](LogTime) has moved by
//! at most `silent_after`. One rule covers a writer that is dead, stopped, cut off or slow, and one whose clock is off either way.
//! What such a writer sends later is late, and counted.
//!
//! - A pause of the log makes nobody silent: a step of log time counts for at most a second, and after the pause everybody has
//!   `silent_after` to catch up.
//! - A relay of what others write follows their clocks, so it holds event time only while no router is heard. Models whose calls
//!   others report have [a mark of their own](Writers::relayed), which gives the reports time to come.
//! - If nobody was heard in time for `silent_after`, those that are heard at all hold event time by their own clocks.
//! - A writer that does not say when it sends (an older version) is judged by its low watermark while a router is there that does say
//!   it. Where none is (a replay clock), it is waited for until it leaves, or until the clock of
//!   *another* writer has moved `writer_ttl` since it was last heard. Each writer's clock is measured by its own advance between
//!   heartbeats, of which one counts for at most a quarter of `writer_ttl`: a writer whose clock is wrong by a year does not
//!   declare all others dead. If it is more than `max_skew` behind the watermark, it does not hold it back.
//!
//! Promotion waits for everybody: [`Writers::heard_through`] is the smallest low watermark of all writers that have neither left nor
//! been silent for `writer_ttl`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, ModelName, Span},
    records::{Arm, ArmDrops, ClockOffset, Heartbeat, Writer},
    view::WriterView,
};

/// Words of the bitmap of one writer.
const WORDS: usize = 16;

/// How many sequence numbers back a record can still be told from a repetition.
pub(crate) const REACH: i64 = WORDS as i64 * 64;

/// What a record's place in its writer's sequence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not seen before.
    New,
    /// Seen before, or too far back to know.
    Repeated,
    /// From a process of this writer that a newer one has replaced.
    OldIncarnation,
    /// `seq` is below 1.
    Malformed,
}

/// Most silent writers, and most writers with a wrong clock, that are named.
const MOST_NAMED: usize = 16;

/// Longest step of log time, in milliseconds.
const LONGEST_STEP_MS: i64 = 1000;

/// The time of one partition's log: each record moves it by the step of the log's own timestamp since the record before, at most
/// by a second and never back. So the time in which nobody could write hardly counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogTime {
    now: Span,
    /// The log's timestamp of the newest record, in milliseconds since the epoch.
    stamp_ms: Option<i64>,
}

impl LogTime {
    /// Takes the timestamp of the next record.
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
pub(crate) struct Patience {
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
    /// It says when it sends, or is beside a router that does; all else here speaks of such writers.
    stated: bool,
    /// It relays what others write.
    relay: bool,
    /// Its last heartbeat.
    heard: Span,
    /// Its last heartbeat that came in time.
    in_time: Option<Span>,
    /// Its low watermark last rose.
    rose: Span,
    /// Its heartbeats are out of time now.
    astray: Option<Astray>,
}

/// Heartbeats that were sent at another time than the log's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Astray {
    /// Since when, in log time.
    since: Span,
    /// The writer's clock less the log's: the difference nearest to zero since then, for a delay only adds to it.
    offset: Span,
}

impl Timing {
    /// Takes a heartbeat. `offset` is the writer's clock less the log's.
    fn hear(&mut self, offset: Option<Span>, rose: bool, log: LogTime, tolerance: Span) {
        self.stated = offset.is_some();
        self.heard = log.now;
        if rose {
            self.rose = log.now;
        }
        let Some(offset) = offset else { return };
        if offset.0.saturating_abs() <= tolerance.0 {
            self.in_time = Some(log.now);
            self.astray = None;
            return;
        }
        let before = self.astray.filter(|before| before.offset.0.signum() == offset.0.signum());
        self.astray = Some(match before {
            Some(Astray { since, offset: known }) if known.0.saturating_abs() < offset.0.saturating_abs() => {
                Astray { since, offset: known }
            }
            Some(Astray { since, .. }) => Astray { since, offset },
            None => Astray { since: log.now, offset },
        });
    }

    /// How far its clock is off. No delay makes a clock look ahead; one that looks behind may be a queue after a pause, which
    /// is gone soon.
    fn off(&self, log: LogTime, patience: Patience) -> Option<Span> {
        let Astray { since, offset } = self.astray?;
        (offset.0 > 0 || log.since(since) >= patience.silent_after).then_some(offset)
    }
}

/// What is known of one writer: the writer row. Formats 2 and 3 of it end before `timing`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriterState {
    incarnation: i64,
    /// Largest `seq` seen.
    top: i64,
    /// Bit `seq % REACH`: seen, for the numbers in `top - REACH < seq <= top`.
    bits: [u64; WORDS],
    /// `seq` before the first one seen: nothing is known of numbers up to it.
    base: i64,
    /// Different numbers seen.
    received: i64,
    /// Numbers counted as lost so far.
    lost: i64,
    /// Last low watermark; `None` before the first heartbeat.
    low: Option<EventTime>,
    /// [`Writers::clock`] when it was last heard.
    heard: Span,
    left: bool,
    /// Drops already counted, per model and arm.
    drops: BTreeMap<(ModelName, Arm), i64>,
    timing: Timing,
    #[serde(skip)]
    dirty: bool,
}

/// What a heartbeat brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// From a process that a newer one has replaced: nothing was done.
    pub(crate) old_incarnation: bool,
    /// The writer's clock is off.
    pub(crate) skewed: bool,
    /// Records of this partition found missing.
    pub(crate) gaps: i64,
    /// New drops by model and arm.
    pub(crate) drops: Vec<ArmDrops>,
}

/// All writers of a partition.
#[derive(Debug)]
pub(crate) struct Writers {
    known: BTreeMap<String, WriterState>,
    /// Progress of the fastest clock, measured by advances between heartbeats.
    pub(crate) clock: Span,
    /// How far event time has come.
    pub(crate) watermark: Option<EventTime>,
    /// How far it has come for models whose calls others report: while a router drives event time, their reports may take
    /// `lateness` longer.
    pub(crate) relayed: Option<EventTime>,
    /// The partition's log time.
    pub(crate) log: LogTime,
    /// Log time when a writer that is heard in time last held event time.
    pub(crate) held: Span,
    patience: Patience,
    limit: usize,
    /// Names removed since the last store.
    removed: Vec<String>,
    /// The two highest low watermarks of the writers that hold event time, for [`Self::is_far_future`].
    ahead: [Option<(String, EventTime)>; 2],
}

impl WriterState {
    fn bit(seq: i64) -> (usize, u64) {
        let slot = seq.rem_euclid(REACH) as usize;
        (slot / 64, 1 << (slot % 64))
    }

    /// Whether a number was seen, or lies too far back to know.
    fn saw(&self, seq: i64) -> bool {
        let (word, bit) = Self::bit(seq);
        seq <= self.top && (seq <= self.top - REACH || self.bits[word] & bit != 0)
    }

    /// Forgets what slides out of reach when `top` becomes `seq`.
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
    pub(crate) fn new(patience: Patience, limit: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            clock: Span(0),
            watermark: None,
            relayed: None,
            log: LogTime::default(),
            held: Span(0),
            patience,
            limit: limit.max(1),
            removed: Vec::new(),
            ahead: [None, None],
        }
    }

    /// What the place of a record in its writer's sequence says. Changes nothing.
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

    /// Notes a record that [`Self::look`] called new.
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

    /// The state of this incarnation, begun anew after number `base` if it is a new one.
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

    /// Forgets the writer that was silent for longest when there are too many.
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

    /// Neither left nor silent for `writer_ttl`.
    fn is_live(&self, state: &WriterState) -> bool {
        let Timing { stated, heard, .. } = state.timing;
        let silence = if stated { self.log.since(heard) } else { Span(self.clock.0.saturating_sub(state.heard.0)) };
        state.low.is_some() && !state.left && silence.0 <= self.patience.ttl.0
    }

    /// Whether a low watermark is so far behind event time that what follows it is late anyway.
    fn is_behind(&self, low: Option<EventTime>, by: Span) -> bool {
        self.watermark.is_some_and(|mark| low.is_none_or(|low| low < mark.minus(by)))
    }

    /// Whether a writer holds event time; see the module.
    fn holds(&self, state: &WriterState) -> bool {
        let Timing { stated, relay, in_time, .. } = state.timing;
        if !stated {
            return self.is_live(state) && !self.is_behind(state.low, self.patience.max_skew);
        }
        let in_time = in_time.is_some_and(|at| self.log.since(at).0 <= self.patience.silent_after.0);
        // Who is heard in time and is behind nevertheless has met an event time that somebody's wrong clock made.
        let behind = self.is_behind(state.low, Span(2 * self.patience.clock_tolerance.0));
        self.is_live(state) && in_time && !relay && !behind
    }

    /// Whether a writer holds event time when no other does: by its own clock.
    fn holds_alone(&self, state: &WriterState) -> bool {
        let Timing { relay, heard, rose, .. } = state.timing;
        let Patience { silent_after, clock_tolerance, max_skew, .. } = self.patience;
        let heard = self.log.since(heard).0 <= silent_after.0;
        let behind = self.is_behind(state.low, if relay { max_skew } else { Span(2 * clock_tolerance.0) });
        // The watermark of a relay stands still while it relays old records only: they are late.
        let stalled = relay && self.log.since(rose).0 > 2 * silent_after.0;
        self.is_live(state) && heard && !behind && !stalled
    }

    fn who(&self, belongs: impl Fn(&WriterState) -> bool) -> impl Iterator<Item = (&String, EventTime)> {
        self.known.iter().filter(move |(_, state)| belongs(state)).filter_map(|(name, state)| Some((name, state.low?)))
    }

    fn holders(&self) -> impl Iterator<Item = (&String, EventTime)> {
        self.who(|state| self.holds(state))
    }

    /// The smallest low watermark of all writers that have neither left nor been silent for `writer_ttl`; relays count only when
    /// there is no router.
    pub(crate) fn heard_through(&self) -> Option<EventTime> {
        let lowest = |relay: bool| {
            let live = self.who(move |state| state.timing.relay == relay && self.is_live(state));
            live.map(|(_, low)| low).min()
        };
        lowest(false).or_else(|| lowest(true))
    }

    /// Routers without which event time goes on because they are not heard.
    pub(crate) fn silent(&self) -> Vec<String> {
        let silent = self.who(|state| {
            let Timing { stated, relay, in_time, .. } = state.timing;
            let late = in_time.is_none_or(|at| self.log.since(at).0 > self.patience.silent_after.0);
            stated && !relay && late && self.off(state).is_none() && self.is_live(state)
        });
        silent.map(|(name, _)| name.clone()).take(MOST_NAMED).collect()
    }

    /// Writers whose clocks are off, and how far.
    pub(crate) fn skewed(&self) -> Vec<ClockOffset> {
        let live = self.known.iter().filter(|(_, state)| self.is_live(state));
        live.filter_map(|(name, state)| Some(ClockOffset { writer: name.clone(), offset: self.off(state)? }))
            .take(MOST_NAMED)
            .collect()
    }

    fn off(&self, state: &WriterState) -> Option<Span> {
        state.timing.off(self.log, self.patience)
    }

    /// Whether `at` is further than `max_skew` ahead of the other live writers, or of this one if it is alone.
    pub(crate) fn is_far_future(&self, writer: &str, at: EventTime) -> bool {
        let others = self.ahead.iter().flatten().find(|(name, _)| name != writer).map(|(_, low)| *low);
        let own = || self.known.get(writer).and_then(|state| state.low);
        others.or_else(own).is_some_and(|reference| at > reference.plus(self.patience.max_skew))
    }

    /// Takes a heartbeat: writer, losses, liveness, and then the watermark.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Heard {
        let Writer { name, incarnation, seq } = &heartbeat.writer;
        let seq = (*seq).max(0);
        if self.known.get(name).is_some_and(|state| state.incarnation > *incarnation) {
            return Heard { old_incarnation: true, ..Heard::default() };
        }
        let patience @ Patience { ttl, clock_tolerance, max_skew, .. } = self.patience;
        let others = self.holders().filter(|(other, _)| *other != name).map(|(_, low)| low).max();
        let jumped = others.is_some_and(|low| heartbeat.low_watermark > low.plus(max_skew));
        let behind = self.is_behind(Some(heartbeat.low_watermark), max_skew);

        let (clock, log) = (self.clock, self.log);
        let stamp = log.stamp_ms.map(|ms| EventTime(ms.saturating_mul(1000)));
        // Beside a router that says when it sends, all clocks are those of walls, and a low watermark is a time of sending.
        let sent = heartbeat.sent_at.or_else(|| self.has_router_beside(name).then_some(heartbeat.low_watermark));
        let offset = sent.zip(stamp).map(|(sent, stamp)| sent.since(stamp));
        let state = self.incarnation(name, *incarnation, seq);
        let advance = match state.low {
            Some(low) if !state.left => heartbeat.low_watermark.since(low).0.max(0),
            _ => 0,
        };
        // One jump (a wrong clock, a machine that slept) must not outlive the others: they may be heard again right after.
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
        let off = state.timing.off(log, patience).is_some();
        self.clock = clock;
        self.advance_watermark(heartbeat);
        Heard { old_incarnation: false, skewed: jumped || behind || off, gaps, drops }
    }

    fn advance_watermark(&mut self, heartbeat: &Heartbeat) {
        let mut lowest = self.holders().map(|(_, low)| low).min();
        if lowest.is_some() {
            self.held = self.log.now;
        } else if self.log.since(self.held).0 > self.patience.silent_after.0 {
            lowest = self.who(|state| self.holds_alone(state)).map(|(_, low)| low).min();
        }
        // The last one to leave has promised that nothing older follows.
        let in_time = |state: &WriterState| state.timing.astray.is_none();
        let last = heartbeat.leaving && self.known.get(&heartbeat.writer.name).is_some_and(in_time);
        let reached = lowest.or(last.then_some(heartbeat.low_watermark));
        self.watermark = self.watermark.max(reached);
        // Where relays drive event time themselves, or a replay does, what is relayed is not behind it.
        let wait = if self.has_router_beside("") { self.patience.lateness } else { Span(0) };
        self.relayed = self.relayed.max(self.watermark.map(|mark| mark.minus(wait)));
        self.note_ahead();
    }

    /// Whether a router other than `name` is there whose clock is held against the log's.
    fn has_router_beside(&self, name: &str) -> bool {
        let router = |state: &WriterState| state.timing.stated && !state.timing.relay && self.is_live(state);
        self.who(router).any(|(other, _)| other != name)
    }

    /// Notes who is furthest ahead. Called after every change of a low watermark, and when all stored writers are back.
    pub(crate) fn note_ahead(&mut self) {
        let named = |(name, low): (&String, EventTime)| (low, name.clone());
        let mut lows: Vec<(EventTime, String)> = self.holders().map(named).collect();
        if lows.is_empty() {
            lows = self.who(|state| self.is_live(state)).map(named).collect();
        }
        lows.sort_unstable_by(|one, two| two.cmp(one));
        let mut highest = lows.into_iter().map(|(low, name)| (name, low));
        self.ahead = [highest.next(), highest.next()];
    }

    /// Writers changed and names removed since the last call.
    pub(crate) fn take_changes(&mut self) -> (Vec<(&String, &WriterState)>, Vec<String>) {
        let mut changed = Vec::new();
        for (name, state) in &mut self.known {
            if std::mem::take(&mut state.dirty) {
                changed.push((name, &*state));
            }
        }
        (changed, std::mem::take(&mut self.removed))
    }

    /// Puts a stored writer back.
    pub(crate) fn restore(&mut self, name: String, state: WriterState) {
        self.known.insert(name, state);
    }
}

impl WriterState {
    /// Numbers up to `seq` found missing since the last call.
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
