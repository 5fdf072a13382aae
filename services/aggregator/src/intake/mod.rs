//! The intake relay: brings what others write to `predictions` and `feedback` into `events`.
//!
//! Only writers that number their records and send heartbeats write to `events`; intake is that writer for everybody else. It
//! takes Serin's own Avro records and JSON bodies, as `CloudEvents` in binary or structured mode or with no envelope at all,
//! under any key, and keys them by request id. It decides nothing: whether an event counts is the aggregator's business.
//!
//! Invariants:
//! - Relayed records, their numbers and the input position commit in one transaction, so each input record is relayed once.
//! - A record that cannot be used is a dead letter with a stable code; the relay goes on.
//! - Feedback is stamped with its topic and the models that may be judged from there; a prediction is refused that speaks for
//!   another model.
//! - Its heartbeats promise no more than the records themselves show, and end when nothing comes: intake never holds the
//!   watermark for long.

mod incoming;
mod relay;
mod topics;

pub use relay::IntakeFold;
pub use topics::{IntakeTopic, check_topics};

use std::time::Duration as StdDuration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_spec::units::Duration;
use serin_stream::fold::{Fold, FoldFactory};

/// Largest body of which an event can be made.
const MAX_BODY: usize = 1_000_000;

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

/// Makes the relay of the same-numbered partitions of `predictions`, `feedback` and the topics of [`IntakeConfig::topics`].
#[derive(Clone, Debug)]
pub struct IntakeFactory {
    config: IntakeConfig,
    events: i32,
    prefix: String,
    inputs: &'static [&'static str],
}

impl IntakeFactory {
    /// For a topic `events` of `events` partitions.
    pub fn new(config: IntakeConfig, events: i32) -> Self {
        let named = config.topics.iter().flat_map(IntakeTopic::names);
        // A process makes one factory, and what a stage reads has names for as long as the process lives.
        let named = named.map(|name| &*Box::leak(name.to_owned().into_boxed_str()));
        let inputs: Vec<&'static str> = ["predictions", "feedback"].into_iter().chain(named).collect();
        Self { config, events, prefix: String::new(), inputs: Box::leak(inputs.into_boxed_slice()) }
    }

    /// The same on topics with a prefix.
    #[must_use]
    pub fn prefixed(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }
}

impl FoldFactory for IntakeFactory {
    fn stage(&self) -> &'static str {
        "intake"
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.inputs
    }

    fn tick_every(&self) -> Option<StdDuration> {
        Some(StdDuration::from_secs(1))
    }

    /// Strangers write its inputs: whatever they send, the others' records are relayed.
    fn is_bad_deploy(&self, _code: &str) -> bool {
        false
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(IntakeFold::new(self.config.clone(), partition, self.events).prefixed(&self.prefix))
    }
}
