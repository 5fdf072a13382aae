//! Rate-limits log messages about repeated events and counts the events in between, so that a full disk or a
//! misbehaving client does not flood the process's log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum interval between two messages about the same event.
const EVERY: Duration = Duration::from_secs(10);

/// Limits messages about one kind of event to one in ten seconds.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    logged: Option<Instant>,
    count: u64,
}

impl LogLimit {
    /// Creates a limiter without events.
    pub const fn new() -> Self {
        Self(Mutex::new(State { logged: None, count: 0 }))
    }

    /// Counts `count` events. `Some`: log now, with the number of events since the last message.
    pub fn happened(&self, count: u64) -> Option<u64> {
        self.happened_at(count, Instant::now())
    }

    fn happened_at(&self, count: u64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += count;
        if state.logged.is_some_and(|logged| now.saturating_duration_since(logged) < EVERY) {
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_logged_at_once_and_later_ones_are_limited() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.happened_at(1, start), Some(1));
        assert_eq!(limit.happened_at(5, start + EVERY / 2), None);
        assert_eq!(limit.happened_at(2, start + EVERY), Some(7));
        assert_eq!(limit.happened_at(1, start + EVERY * 3), Some(1));
    }
}
