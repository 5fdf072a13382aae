//! Time as an argument: runtimes take a clock, so that tests control the time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// Time since a fixed moment, for intervals. It never goes back.
    fn elapsed(&self) -> Duration;
}

/// The system clock.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock whose wall-clock time never goes back and never stops, for the timestamps of a log. While the system's
/// wall clock is behind the last time shown, time advances at the pace of the steady clock.
pub struct ForwardClock {
    clock: Arc<dyn Clock>,
    /// The last time shown, and the steady clock's time at that moment.
    last: Mutex<(i64, Duration)>,
}

impl ForwardClock {
    /// Starts at the time of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Mutex::new((clock.now_ms(), clock.elapsed()));
        Self { clock, last }
    }
}

impl Clock for ForwardClock {
    fn now_ms(&self) -> i64 {
        // Plain values are consistent even if a thread panicked while it held the lock.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, steady) = (self.clock.now_ms(), self.clock.elapsed());
        let gone = i64::try_from(steady.saturating_sub(last.1).as_millis()).unwrap_or(0);
        if wall >= last.0 {
            *last = (wall, steady);
        } else if gone > 0 {
            *last = (last.0.saturating_add(gone), steady);
        }
        last.0
    }

    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// A clock that moves only when it is advanced.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock that shows `now_ms`.
    pub fn at(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms().max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wall clock and a steady clock that are set by hand.
    struct Set {
        wall: AtomicI64,
        steady: AtomicI64,
    }

    impl Clock for Set {
        fn now_ms(&self) -> i64 {
            self.wall.load(Ordering::SeqCst)
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.steady.load(Ordering::SeqCst).unsigned_abs())
        }
    }

    #[test]
    fn a_forward_clock_follows_the_steady_clock_while_the_wall_clock_is_behind() {
        let set = Arc::new(Set { wall: AtomicI64::new(1000), steady: AtomicI64::new(7) });
        let clock = ForwardClock::new(Arc::clone(&set) as _);
        let mut shown = Vec::new();
        for (wall, steady) in
            [(1010, 17), (600_000, 27), (1030, 37), (1040, 47), (1040, 47), (600_015, 57), (600_100, 67)]
        {
            set.wall.store(wall, Ordering::SeqCst);
            set.steady.store(steady, Ordering::SeqCst);
            shown.push(clock.now_ms());
        }
        assert_eq!(shown, [1010, 600_000, 600_010, 600_020, 600_020, 600_030, 600_100]);
    }
}
