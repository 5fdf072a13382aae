//! What can be set about the intake.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;

use crate::topics::IntakeTopic;

/// Largest body of which an event can be made.
pub(crate) const MAX_BODY: usize = 1_000_000;

/// Settings of the intake relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeConfig {
    /// Whether intake sends heartbeats for what it relays. Default `wall`; a deployment with a replay clock sets `replay`.
    pub clock: IntakeClock,
    /// How much older than the newest relayed prediction a later one may be; and how much longer than those of routers the windows
    /// of a model with `traffic: external` stay open. Default 3 s.
    pub lateness: Duration,
    /// After this long without a record intake leaves and no longer holds the watermark. Default 10 s.
    pub idle_after: Duration,
    /// A record whose event time is further ahead of its log timestamp than this is a dead letter. Default 10 m.
    pub max_skew: Duration,
    /// Largest body taken, in bytes. Default and most 1,000,000: what comes of it must fit into a record of `events`, for which a
    /// broker takes 1 MiB by default.
    pub max_body: usize,
    /// Topics of others that may speak for some models only, beside `predictions` and `feedback`. Default none.
    pub topics: Vec<IntakeTopic>,
}

/// Whether intake sends heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntakeClock {
    /// While it relays predictions.
    #[default]
    Wall,
    /// Never: event time is driven by a replay clock.
    Replay,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            clock: IntakeClock::Wall,
            lateness: Duration::from_secs(3),
            idle_after: Duration::from_secs(10),
            max_skew: Duration::from_secs(600),
            max_body: MAX_BODY,
            topics: Vec::new(),
        }
    }
}

impl IntakeConfig {
    /// Everything that is wrong with these settings, but for the names of topics. Each problem begins with its setting.
    pub fn problems(&self) -> Vec<String> {
        let spans = [("idle_after", self.idle_after), ("max_skew", self.max_skew)];
        let zero = spans.iter().filter(|(_, span)| span.is_zero());
        let mut problems: Vec<String> = zero.map(|(name, _)| format!("{name}: must be longer than 0")).collect();
        if !(1..=MAX_BODY).contains(&self.max_body) {
            problems.push(format!("max_body: {} is out of range; use 1 to {MAX_BODY} bytes", self.max_body));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_used_and_every_other_problem_is_listed() {
        assert_eq!(IntakeConfig::default().problems(), Vec::<String>::new());
        let zero = Duration::default();
        for max_body in [0, MAX_BODY + 1] {
            let config = IntakeConfig { idle_after: zero, max_skew: zero, max_body, ..IntakeConfig::default() };
            assert_eq!(config.problems().len(), 3, "{:?}", config.problems());
        }
    }
}
