//! Metrics about this process and its use of the machine, with the usual Prometheus names.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::KeyValue;
use serin_schemas::records::RULES;
use serin_stream::{
    declare_metrics,
    metric::{Metric, bounded, meter, words},
};

declare_metrics! {
    #[cfg(test)]
    pub(crate) METRICS {
        /// Always 1. The labels are the version and the role of the process, and the rules under which it starts new rollouts.
        BUILD = Gauge "serin_build_info" in "1" [
            bounded("version", "the one version of the process"),
            bounded("rules", "the one version of the rules, see docs/upgrade.md"),
            words("role", &["router", "aggregator", "analyzer", "controller", "up"]),
        ];
        /// Metrics that have more label sets than are kept.
        OVERFLOWING = Gauge "serin_telemetry_overflowing_metrics" in "{metric}" [];
        /// Resident memory.
        RESIDENT = Gauge "process_resident_memory_bytes" in "By" [];
        /// Open files, including sockets.
        OPEN_FILES = Gauge "process_open_fds" in "{file}" [];
        /// Largest number of open files.
        MOST_FILES = Gauge "process_max_fds" in "{file}" [];
        /// Processor time in user and system mode.
        PROCESSOR = Counter "process_cpu_seconds_total" in "s" [];
        /// Start time of the process, in seconds since the Unix epoch.
        STARTED = Gauge "process_start_time_seconds" in "s" [];
    }
}

/// Clock ticks per second in `/proc`: the same on every Linux target of Rust.
const TICKS: f64 = 100.0;

/// Registers the metrics. They are read at each scrape.
pub(crate) fn observe(role: &str) {
    let gauge = |metric: &Metric, read: fn() -> Option<u64>| {
        metric.observe(move |observer| {
            if let Some(value) = read() {
                observer.observe(value, &[]);
            }
        });
    };
    gauge(&RESIDENT, resident);
    gauge(&OPEN_FILES, open_files);
    gauge(&MOST_FILES, most_files);
    meter()
        .f64_observable_counter(PROCESSOR.name)
        .with_description(PROCESSOR.help())
        .with_unit(PROCESSOR.unit)
        .with_callback(|observer| {
            if let Some(seconds) = processor() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    STARTED.observe_f64(move |observer| observer.observe(started, &[]));
    let build = [
        KeyValue::new("version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("rules", i64::from(RULES)),
        KeyValue::new("role", role.to_owned()),
    ];
    BUILD.observe(move |observer| observer.observe(1, &build));
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
