//! Who writes to the partition: duplicates, losses, and how far event time has come.
//!
//! Everything here is a function of the records of the partition alone.
//!
//! **Duplicates and losses.** `seq` counts from 1 per (writer, incarnation, partition). A bitmap over the last [`REACH`] numbers
//! tells a repeated record from one that came out of order; what lies further back counts as repeated. At a heartbeat, numbers
//! that are missing are lost. A newer incarnation of a writer replaces the older one for good.
//!
//! **Watermark.** The smallest low watermark of the live writers; it never goes back. A writer is live from its first heartbeat
//! until it says that it leaves, or until the clock of *another* writer has moved `writer_ttl` since it was last heard. Each
//! writer's clock is measured by its own advance between heartbeats, of which one counts for at most a quarter of `writer_ttl`: a
//! writer whose clock is wrong by a year does not declare all others dead. A writer more than `max_skew` behind the watermark does not hold it back: what it sends is late, and counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, ModelName, Span},
    records::{Arm, ArmDrops, Heartbeat, Writer},
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

/// What is known of one writer. Its stored form is version 1 of the writer row.
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
    #[serde(skip)]
    dirty: bool,
}

/// What a heartbeat brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// From a process that a newer one has replaced: nothing was done.
    pub(crate) old_incarnation: bool,
    /// The writer's clock is off by more than `max_skew`.
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
    ttl: Span,
    max_skew: Span,
    limit: usize,
    /// Names removed since the last store.
    removed: Vec<String>,
    /// The two highest low watermarks of live writers, for [`Self::is_far_future`].
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
    pub(crate) fn new(ttl: Span, max_skew: Span, limit: usize) -> Self {
        let known = BTreeMap::new();
        let (clock, ahead, removed) = (Span(0), [None, None], Vec::new());
        Self { known, clock, watermark: None, ttl, max_skew, limit: limit.max(1), removed, ahead }
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

    fn is_live(&self, state: &WriterState) -> bool {
        state.low.is_some_and(|low| self.watermark.is_none_or(|mark| low >= mark.minus(self.max_skew)))
            && !state.left
            && self.clock.0 - state.heard.0 <= self.ttl.0
    }

    fn live(&self) -> impl Iterator<Item = (&String, EventTime)> + '_ {
        self.known.iter().filter(|(_, state)| self.is_live(state)).filter_map(|(name, state)| Some((name, state.low?)))
    }

    /// Whether `at` is further than `max_skew` ahead of the other live writers, or of this one if it is alone.
    pub(crate) fn is_far_future(&self, writer: &str, at: EventTime) -> bool {
        let others = self.ahead.iter().flatten().find(|(name, _)| name != writer).map(|(_, low)| *low);
        let own = || self.known.get(writer).and_then(|state| state.low);
        others.or_else(own).is_some_and(|reference| at > reference.plus(self.max_skew))
    }

    /// Takes a heartbeat: writer, losses, liveness, and then the watermark.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Heard {
        let Writer { name, incarnation, seq } = &heartbeat.writer;
        let seq = (*seq).max(0);
        if self.known.get(name).is_some_and(|state| state.incarnation > *incarnation) {
            return Heard { old_incarnation: true, ..Heard::default() };
        }
        let others = self.live().filter(|(other, _)| *other != name).map(|(_, low)| low).max();
        let jumped = others.is_some_and(|low| heartbeat.low_watermark > low.plus(self.max_skew));
        let behind = self.watermark.is_some_and(|mark| heartbeat.low_watermark < mark.minus(self.max_skew));

        let (clock, ttl) = (self.clock, self.ttl);
        let state = self.incarnation(name, *incarnation, seq);
        let advance = match state.low {
            Some(low) if !state.left => heartbeat.low_watermark.since(low).0.max(0),
            _ => 0,
        };
        // One jump (a wrong clock, a machine that slept) must not outlive the others: they may be heard again right after.
        let advance = if others.is_some() { advance.min(ttl.0 / 4) } else { advance };
        let clock = Span(clock.0.max(state.heard.0.saturating_add(advance)));
        state.heard = clock;
        state.low = Some(state.low.map_or(heartbeat.low_watermark, |low| low.max(heartbeat.low_watermark)));
        state.left = heartbeat.leaving;
        state.dirty = true;
        let gaps = state.gaps(seq);
        let drops = state.new_drops(&heartbeat.drops);
        self.clock = clock;
        self.advance_watermark(heartbeat);
        Heard { old_incarnation: false, skewed: jumped || behind, gaps, drops }
    }

    fn advance_watermark(&mut self, heartbeat: &Heartbeat) {
        let lowest = self.live().map(|(_, low)| low).min();
        // The last one to leave has promised that nothing older follows.
        let reached = lowest.or(heartbeat.leaving.then_some(heartbeat.low_watermark));
        self.watermark = self.watermark.max(reached);
        self.note_ahead();
    }

    /// Notes who is furthest ahead. Called after every change of a low watermark, and when all stored writers are back.
    pub(crate) fn note_ahead(&mut self) {
        let mut lows: Vec<(EventTime, String)> = self.live().map(|(name, low)| (low, name.clone())).collect();
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
