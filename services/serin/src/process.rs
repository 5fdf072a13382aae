//! What this process takes of the machine, as metrics: memory and open files, by the names that Prometheus knows them by.

use std::fs;

use opentelemetry::global;

/// Resident memory, in bytes.
pub(crate) const RESIDENT: &str = "process_resident_memory_bytes";
/// Open files, sockets among them.
pub(crate) const OPEN_FILES: &str = "process_open_fds";

/// Registers the metrics. They are read when somebody scrapes.
pub(crate) fn observe() {
    let meter = global::meter("serin");
    let gauge = |name, about, read: fn() -> Option<u64>| {
        meter
            .u64_observable_gauge(name)
            .with_description(about)
            .with_callback(move |observer| {
                if let Some(value) = read() {
                    observer.observe(value, &[]);
                }
            })
            .build();
    };
    gauge(RESIDENT, "Resident memory", resident);
    gauge(OPEN_FILES, "Open files", open_files);
}

/// Not every system tells.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}
