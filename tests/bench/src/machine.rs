//! CPU time and memory of a process, from the kernel.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;

/// Clock ticks per second in `/proc`, a constant of the Linux interface.
const TICKS: f64 = 100.0;

/// CPU seconds of all threads of a process, including those that have ended.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat).map(|(_, ticks)| ticks / TICKS).context("an unreadable /proc/PID/stat")
}

/// Name and ticks of a `stat` line: user and system time are the 12th and 13th field after the name.
fn ticks(stat: &str) -> Option<(&str, f64)> {
    let (head, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((head.split_once('(')?.1, user + system))
}

/// CPU seconds by thread of this process, without the digits in the names.
pub(crate) fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        if let Some((name, ticks)) = ticks(&stat) {
            let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            *sums.entry(name.to_owned()).or_default() += ticks / TICKS;
        }
    }
    sums
}

/// CPU nanoseconds of the calling thread.
pub(crate) fn thread_nanos() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().context("an empty schedstat")?.parse()?)
}

/// Resident memory of a process in MB.
pub(crate) fn rss_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kb: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kb / 1024.0)
}

/// Name of the processor, and how many there are.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", model.trim_start_matches(['\t', ' ', ':']))
}
