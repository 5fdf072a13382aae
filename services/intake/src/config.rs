//! Settings of the intake.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_doors::DoorRules;
use serin_spec::units::Duration;

use crate::topics::IntakeTopic;

/// Largest body that fits into an event.
pub(crate) const MAX_BODY: usize = 1_000_000;

/// Settings of the intake relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeConfig {
    /// The clock that drives event time. With `wall` (the default) intake sends heartbeats for the records that it
    /// relays. A deployment with a replay clock sets `replay`.
    pub clock: IntakeClock,
    /// How much older than the newest relayed prediction a later prediction may be. The windows of a model with
    /// `traffic: external` stay open longer than those of routers by this time. Default 3 s.
    pub lateness: Duration,
    /// After this time without a record, intake sends a last heartbeat and no longer holds the watermark. Default 10
    /// s.
    pub idle_after: Duration,
    /// A record whose event time is further ahead of its append timestamp than this is dead-lettered. Default 10 min.
    pub max_skew: Duration,
    /// Largest accepted body in bytes. Default and maximum 1,000,000: the relayed event must fit into a record of
    /// `events`, and a broker accepts 1 MiB by default.
    pub max_body: usize,
    /// Additional topics that may report only on certain models, along with `predictions` and `feedback`. Default
    /// none.
    pub topics: Vec<IntakeTopic>,
    /// Where the events of payload loggers have their model, version and outputs. Set under `doors` of the whole configuration.
    #[serde(skip)]
    pub doors: DoorRules,
}

/// The clock that drives event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntakeClock {
    /// Intake sends heartbeats while it relays predictions.
    #[default]
    Wall,
    /// Intake sends no heartbeats: a replay clock drives event time.
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
            doors: DoorRules::default(),
        }
    }
}

impl IntakeConfig {
    /// Every problem of these settings, except those of topic names. Each problem starts with its setting.
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
    fn the_default_is_valid_and_every_problem_is_listed() {
        assert_eq!(IntakeConfig::default().problems(), Vec::<String>::new());
        let zero = Duration::default();
        for max_body in [0, MAX_BODY + 1] {
            let config = IntakeConfig { idle_after: zero, max_skew: zero, max_body, ..IntakeConfig::default() };
            assert_eq!(config.problems().len(), 3, "{:?}", config.problems());
        }
    }
}
