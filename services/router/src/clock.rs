//! Time, from outside: a source that tests can hold in their hands, and the router's clock for event time.
//!
//! Two kinds of time must not be mixed up. **Event time** stamps predictions and heartbeats; it comes from the wall, or in
//! replay mode from whoever replays. **Lease time** is always the machine's own, whatever the event time says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serin_schemas::ids::EventTime;

/// Where the router takes the time from.
#[derive(Clone, Debug)]
pub struct TimeSource(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Manual(Arc<AtomicI64>),
}

impl TimeSource {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it. Clones share it.
    pub fn manual(start: EventTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// Moves a manual clock; the machine's clocks are left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(micros(by), Ordering::SeqCst);
        }
    }

    /// Wall-clock time.
    pub fn wall(&self) -> EventTime {
        match &self.0 {
            Source::System(_) => EventTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)),
            Source::Manual(now) => EventTime(now.load(Ordering::SeqCst)),
        }
    }

    /// Time that never steps, from an arbitrary zero: for leases.
    pub fn steady(&self) -> Duration {
        match &self.0 {
            Source::System(start) => start.elapsed(),
            Source::Manual(now) => Duration::from_micros(now.load(Ordering::SeqCst).max(0).unsigned_abs()),
        }
    }
}

impl Default for TimeSource {
    fn default() -> Self {
        Self::system()
    }
}

/// A span in microseconds; spans beyond 292 000 years are cut.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The router's clock for event time.
#[derive(Debug)]
pub(crate) struct Clock {
    source: TimeSource,
    /// In replay mode the time that was set last; [`UNSET`] before the first time.
    replay: Option<AtomicI64>,
}

const UNSET: i64 = i64::MIN;

/// A replay clock was asked to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    #[error("the clock is at {now} and cannot go back to {asked}; send a time that is not earlier")]
    Backwards { now: i64, asked: i64 },
    #[error("this router takes its time from the wall; start it with `clock: replay` to set the time")]
    NotReplay,
}

impl Clock {
    pub(crate) fn new(source: TimeSource, replay: bool) -> Self {
        Self { source, replay: replay.then(|| AtomicI64::new(UNSET)) }
    }

    pub(crate) fn source(&self) -> &TimeSource {
        &self.source
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// Event time now; `None` for a replay clock that was never set.
    pub(crate) fn now(&self) -> Option<EventTime> {
        match &self.replay {
            None => Some(self.source.wall()),
            Some(now) => Some(now.load(Ordering::SeqCst)).filter(|&now| now != UNSET).map(EventTime),
        }
    }

    /// Whether the replay clock may go to `to`.
    pub(crate) fn may_set(&self, to: EventTime) -> Result<(), SetError> {
        let replay = self.replay.as_ref().ok_or(SetError::NotReplay)?;
        let now = replay.load(Ordering::SeqCst);
        if to.0 < now { Err(SetError::Backwards { now, asked: to.0 }) } else { Ok(()) }
    }

    /// Sets the replay clock.
    pub(crate) fn set(&self, to: EventTime) -> Result<(), SetError> {
        self.may_set(to)?;
        if let Some(replay) = &self.replay {
            replay.fetch_max(to.0, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_clock_goes_forward_only() {
        let clock = Clock::new(TimeSource::manual(EventTime(7)), true);
        assert_eq!(clock.now(), None);
        assert_eq!(clock.set(EventTime(100)), Ok(()));
        assert_eq!(clock.set(EventTime(100)), Ok(()));
        assert_eq!(clock.set(EventTime(99)), Err(SetError::Backwards { now: 100, asked: 99 }));
        assert_eq!(clock.now(), Some(EventTime(100)));
    }

    #[test]
    fn a_wall_clock_is_not_set_from_outside() {
        let source = TimeSource::manual(EventTime(7));
        let clock = Clock::new(source.clone(), false);
        assert_eq!(clock.set(EventTime(100)), Err(SetError::NotReplay));
        source.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Some(EventTime(1_000_007)));
        assert_eq!(source.steady(), Duration::from_micros(1_000_007));
    }
}
