//! Counts the native databases that are open in this process.
//!
//! A process must not exit before they are closed: the exit destroys `RocksDB`'s static objects, and a thread that is
//! still closing a database then aborts the process. The last holder of a log or store is often a thread that was
//! just asked to end, so the binary waits here before it returns.

use std::{
    sync::{Condvar, Mutex},
    time::Duration,
};

use crate::local::lock;

static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// Represents one open database. In a struct, this field must come after the database, so that it is dropped later.
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

/// Waits until every database of this process is closed. Returns false if one is still open after `timeout`.
pub fn wait_until_closed(timeout: Duration) -> bool {
    let waited = CLOSED.wait_timeout_while(lock(&OPEN), timeout, |open| *open > 0);
    waited.is_ok_and(|(_, result)| !result.timed_out())
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
