//! Settings of the analyzer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the analyzer. They never change a decision: what is decided, and how, is in each rollout's spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Maximum number of windows per task that wait for the slowest partition of `events`. Above it, the task stops with an error that
    /// names the partition: verdicts stop, leases expire, and traffic returns to stable.
    pub max_pending_windows: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_pending_windows: 100_000 }
    }
}

impl Config {
    /// All problems of these settings. Each one starts with the name of its setting.
    pub fn problems(&self) -> Vec<String> {
        let none = self.max_pending_windows == 0;
        none.then(|| "max_pending_windows: must be at least 1".to_owned()).into_iter().collect()
    }
}
