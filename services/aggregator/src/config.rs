//! Settings of the aggregator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;

/// Settings of the aggregator role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a promotion waits for a writer that went silent. Writers that left cleanly are not waited for. Default
    /// 30 s.
    pub writer_ttl: Duration,
    /// After this long without a timely heartbeat, a writer no longer holds back the watermark, and its later records
    /// may count as late. The time is measured by append timestamps. Use at least twice the `heartbeat_every` of the
    /// routers. Default 2 s.
    pub silent_after: Duration,
    /// A writer whose clock differs from the append timestamps by more than this is reported and does not hold back the
    /// watermark. Default 2 s.
    pub clock_tolerance: Duration,
    /// An event that is ahead of the writers' low watermarks by more than a window plus this time is dead-lettered. A
    /// writer does not hold back the watermark if it is behind the partition's watermark by more than this and does not
    /// report its send time. Default 10 min.
    pub max_skew: Duration,
    /// Maximum number of writers that are tracked per partition. Beyond it, the writers that have been silent for longest
    /// are removed. Default 1024.
    pub max_writers: usize,
    /// Memory limit of the join state, in bytes per partition: three quarters for predictions that wait for labels or
    /// outputs, one quarter for feedback and outputs that arrived before their prediction. Beyond the limit,
    /// predictions of both arms are sampled alike by a hash of the request id, and the early feedback that would
    /// expire first is dropped. At least 64 KiB. Default 128 MiB.
    pub join_memory: usize,
    /// Maximum number of waiting predictions per partition, and of request ids with early feedback, regardless of
    /// memory. Kept for existing configurations; prefer `join_memory`. Default none.
    pub max_join_rows: Option<usize>,
    /// Maximum number of distinct values per dimension that warm-up keeps. Further values count as `other`. Default
    /// 200.
    pub max_warmup_values: usize,
    /// How long feedback that a rollout reads waits for its prediction if no rollout has a maturity. If any rollout has
    /// one, feedback waits for the longest maturity. Feedback that no rollout reads does not wait. Default 1 h.
    pub feedback_ttl: Duration,
    /// Extra time that the windows of a model with `traffic: external` stay open, because the intake relays their events.
    /// It is the `lateness` of the intake. Default 3 s.
    #[serde(skip, default = "relay_lateness")]
    pub relay_lateness: Duration,
}

fn relay_lateness() -> Duration {
    Duration::from_secs(3)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            writer_ttl: Duration::from_secs(30),
            silent_after: Duration::from_secs(2),
            clock_tolerance: Duration::from_secs(2),
            max_skew: Duration::from_secs(600),
            max_writers: 1024,
            join_memory: 128 << 20,
            max_join_rows: None,
            max_warmup_values: 200,
            feedback_ttl: Duration::from_secs(3600),
            relay_lateness: relay_lateness(),
        }
    }
}

/// Minimum memory of the join state, in bytes per partition.
const MIN_JOIN_MEMORY: usize = 64 << 10;

impl Config {
    /// Every problem of these settings. Each problem starts with its setting.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let spans = [
            ("writer_ttl", self.writer_ttl),
            ("silent_after", self.silent_after),
            ("clock_tolerance", self.clock_tolerance),
            ("max_skew", self.max_skew),
            ("feedback_ttl", self.feedback_ttl),
        ];
        let zero = spans.iter().filter(|(_, span)| span.is_zero());
        problems.extend(zero.map(|(name, _)| format!("{name}: must be longer than 0")));
        let counts = [
            ("max_writers", Some(self.max_writers)),
            ("max_join_rows", self.max_join_rows),
            ("max_warmup_values", Some(self.max_warmup_values)),
        ];
        let none = counts.iter().filter(|(_, count)| *count == Some(0));
        problems.extend(none.map(|(name, _)| format!("{name}: must be at least 1")));
        if self.join_memory < MIN_JOIN_MEMORY {
            problems
                .push(format!("join_memory: {} is too little; use at least {MIN_JOIN_MEMORY} bytes", self.join_memory));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_every_problem_is_listed() {
        assert_eq!(Config::default().problems(), Vec::<String>::new());
        let zero = Duration::default();
        let config = Config {
            writer_ttl: zero,
            silent_after: zero,
            clock_tolerance: zero,
            max_skew: zero,
            feedback_ttl: zero,
            max_writers: 0,
            max_join_rows: Some(0),
            max_warmup_values: 0,
            join_memory: MIN_JOIN_MEMORY - 1,
            relay_lateness: zero,
        };
        assert_eq!(config.problems().len(), 9, "{:?}", config.problems());
    }
}
