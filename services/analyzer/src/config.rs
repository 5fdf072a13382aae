//! Settings of the analyzer.

use serde::{Deserialize, Serialize};

/// Settings of the analyzer. What is decided and how is in each rollout's spec, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most windows per task that may wait for the slowest partition of `events`. Beyond, the task stops and names the
    /// partition: verdicts stop, leases run out, and traffic returns to stable.
    pub max_pending_windows: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_pending_windows: 100_000 }
    }
}
