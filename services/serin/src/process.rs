//! Metrics about this process and its use of the machine, with the usual Prometheus names.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::{KeyValue, global};

/// Always 1; the labels `version` and `role` describe the process.
pub(crate) const BUILD: &str = "serin_build_info";
/// Resident memory, in bytes.
pub(crate) const RESIDENT: &str = "process_resident_memory_bytes";
/// Open files, including sockets.
pub(crate) const OPEN_FILES: &str = "process_open_fds";
/// Largest number of open files.
pub(crate) const MOST_FILES: &str = "process_max_fds";
/// Processor time, in seconds.
pub(crate) const PROCESSOR: &str = "process_cpu_seconds_total";
/// Start time, in seconds since the Unix epoch.
pub(crate) const STARTED: &str = "process_start_time_seconds";

/// Clock ticks per second in `/proc`: the same on every Linux target of Rust.
const TICKS: f64 = 100.0;

/// Registers the metrics. They are read at each scrape.
pub(crate) fn observe(role: &str) {
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
    gauge(MOST_FILES, "Largest number of open files", most_files);
    meter
        .f64_observable_counter(PROCESSOR)
        .with_description("Processor time, user and system")
        .with_callback(|observer| {
            if let Some(seconds) = processor() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    meter
        .f64_observable_gauge(STARTED)
        .with_description("Start time of the process")
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
    let build = [KeyValue::new("version", env!("CARGO_PKG_VERSION")), KeyValue::new("role", role.to_owned())];
    meter
        .u64_observable_gauge(BUILD)
        .with_description("Version and role of this process")
        .with_callback(move |observer| observer.observe(1, &build))
        .build();
}

/// `None` on systems without `/proc`.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

fn most_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of `stat`. The name before them may contain spaces and ends with a parenthesis.
fn processor() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().ok());
    Some(ticks.sum::<Option<f64>>()? / TICKS)
}
