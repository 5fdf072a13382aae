//! Says what happens again and again only now and then, with how often it happened: a full disk or a stranger must not fill the
//! log of the process too.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines about the same thing.
const EVERY: Duration = Duration::from_secs(10);

/// What is said at most once in ten seconds.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    since: u64,
}

impl Seldom {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State { said: None, since: 0 }))
    }

    /// It happened `count` times. `Some`: say it now, with how often it has happened since it was last said.
    pub fn happened(&self, count: u64) -> Option<u64> {
        self.happened_at(count, Instant::now())
    }

    fn happened_at(&self, count: u64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.since += count;
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < EVERY) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_at_once_and_then_now_and_then() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.happened_at(1, start), Some(1));
        assert_eq!(seldom.happened_at(5, start + EVERY / 2), None);
        assert_eq!(seldom.happened_at(2, start + EVERY), Some(7));
        assert_eq!(seldom.happened_at(1, start + EVERY * 3), Some(1));
    }
}
