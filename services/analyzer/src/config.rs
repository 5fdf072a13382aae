//! Settings of the analyzer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the analyzer. What is decided and how is in each rollout's spec, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Config {
    /// Everything that is wrong with these settings. Each problem begins with its setting.
    pub fn problems(&self) -> Vec<String> {
        let none = self.max_pending_windows == 0;
        none.then(|| "max_pending_windows: must be at least 1".to_owned()).into_iter().collect()
    }
}
