//! Numbered pieces of work in parallel, with a progress bar on standard error.

use std::sync::atomic::{AtomicU32, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::Terminal;

/// Does `count` pieces of work on `jobs` threads. Results are ordered by number, independent of the threads.
pub(crate) fn run<T: Send>(
    title: &str,
    count: u32,
    jobs: usize,
    work: impl Fn(u32) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta}");
    let target = match Terminal::stderr().redraws() {
        Some(_) => ProgressDrawTarget::stderr(),
        None => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(u64::from(count)), target);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(title.to_owned());
    let next = AtomicU32::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push((number, work(number)?));
            bar.inc(1);
        }
    };
    let done: Vec<anyhow::Result<Vec<(u32, T)>>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
        };
        handles.into_iter().map(join).collect()
    });
    bar.finish_and_clear();
    let mut done: Vec<(u32, T)> = done.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Number of threads that this machine can run in parallel.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_errors_come_through() {
        assert_eq!(run("", 100, 4, |number| Ok(number * 2)).unwrap(), (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let failed = run("", 100, 4, |number| if number == 50 { anyhow::bail!("no") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }
}
