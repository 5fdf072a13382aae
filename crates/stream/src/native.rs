//! Counts the native databases that are open in this process.
//!
//! A process must not end before they are closed: `RocksDB`'s static objects are destroyed when it does, and a thread that is
//! still closing one then aborts it. The last holder of a log or store is often a thread that has just been told to end, so
//! the binary waits here before it returns.

use std::{
    sync::{Condvar, Mutex},
    time::Duration,
};

use crate::local::lock;

static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// Stands for one open database. A holder's field of this type comes after the database's, so that it is dropped later.
#[derive(Debug)]
pub(crate) struct Open(());

impl Open {
    pub(crate) fn new() -> Self {
        *lock(&OPEN) += 1;
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *lock(&OPEN) -= 1;
        CLOSED.notify_all();
    }
}

/// Waits until every database of this process is closed; false if one is still open after `patience`.
pub fn wait_until_closed(patience: Duration) -> bool {
    let waited = CLOSED.wait_timeout_while(lock(&OPEN), patience, |open| *open > 0);
    waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_holder_is_waited_for() {
        let open = Open::new();
        assert!(!wait_until_closed(Duration::ZERO));
        let holder = std::thread::spawn(move || drop(open));
        assert!(wait_until_closed(Duration::from_mins(1)));
        holder.join().unwrap();
    }
}
