//! Runs many seeded simulations on all cores, with results in a fixed order.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many runs to make, and whether to show progress.
#[derive(Clone, Copy)]
pub(crate) struct Lab {
    /// The short form takes seconds instead of minutes and uses the same bounds.
    pub(crate) short: bool,
    /// Whether progress is written to standard error.
    pub(crate) progress: bool,
}

impl Lab {
    /// Number of runs: `full`, or `short` in the short form.
    pub(crate) fn runs(self, full: u64, short: u64) -> u64 {
        if self.short { short } else { full }
    }

    /// Results of `run(0)`, `run(1)` ... `run(runs - 1)`, in this order, computed on all cores.
    pub(crate) fn each<T: Send>(self, name: &str, runs: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (next, results) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= runs {
                    return;
                }
                let result = run(seed);
                let mut results = results.lock().expect("no run panicked");
                results.push((seed, result));
                self.show(name, results.len() as u64, runs);
            }
        };
        std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
        let mut results = results.into_inner().expect("no run panicked");
        results.sort_by_key(|&(seed, _)| seed);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Shows a line that is updated on a terminal; otherwise only the finished scenarios.
    fn show(self, name: &str, done: u64, runs: u64) {
        let mut out = std::io::stderr();
        let step = (runs / 50).max(1);
        let moves = out.is_terminal() && done.is_multiple_of(step);
        // A failure to show progress must not stop the run.
        let _shown = match (self.progress, done == runs) {
            (true, true) => writeln!(out, "\r{name}: {runs} runs"),
            (true, false) if moves => write!(out, "\r{name}: {done} of {runs}").and_then(|()| out.flush()),
            _ => Ok(()),
        };
    }
}
