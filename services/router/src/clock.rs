//! Injectable time: a source that tests can control, and the router's clock for event time.
//!
//! Two kinds of time must not be confused. **Event time** stamps predictions and heartbeats; it is wall time, or in replay mode the time
//! set by the client that replays. **Lease time** is always the machine's own, independent of event time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serin_schemas::ids::EventTime;

/// The source of the router's time.
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

    /// A clock that does not move until [`advance`](Self::advance) is called. Clones share it.
    pub fn manual(start: EventTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// Moves a manual clock. It has no effect on the machine's clocks.
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

    /// Monotonic time from an arbitrary zero, used for leases.
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

/// A duration in microseconds, truncated at 292,000 years.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The router's clock for event time.
#[derive(Debug)]
pub(crate) struct Clock {
    source: TimeSource,
    /// In replay mode the time that was set last; [`UNSET`] before that.
    replay: Option<AtomicI64>,
}

const UNSET: i64 = i64::MIN;

/// Why the replay clock could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    #[error("the clock is at {now} and cannot go back to {asked}; send a time that is not earlier")]
    Backwards { now: i64, asked: i64 },
    #[error("this router uses the wall clock; start it with `clock: replay` to set the time")]
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

    /// Fails if the replay clock must not be set to `to`.
    fn may_set(&self, to: EventTime) -> Result<(), SetError> {
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
    fn a_replay_clock_only_moves_forward() {
        let clock = Clock::new(TimeSource::manual(EventTime(7)), true);
        assert_eq!(clock.now(), None);
        assert_eq!(clock.set(EventTime(100)), Ok(()));
        assert_eq!(clock.set(EventTime(100)), Ok(()));
        assert_eq!(clock.set(EventTime(99)), Err(SetError::Backwards { now: 100, asked: 99 }));
        assert_eq!(clock.now(), Some(EventTime(100)));
    }

    #[test]
    fn a_wall_clock_cannot_be_set() {
        let source = TimeSource::manual(EventTime(7));
        let clock = Clock::new(source.clone(), false);
        assert_eq!(clock.set(EventTime(100)), Err(SetError::NotReplay));
        source.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Some(EventTime(1_000_007)));
        assert_eq!(source.steady(), Duration::from_micros(1_000_007));
    }
}
