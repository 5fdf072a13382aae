//! The intake: relays the records that others write to `predictions` and `feedback` into `events`.
//!
//! Only writers that number their records and send heartbeats write to `events`. Intake is that writer on behalf of
//! all external producers. It accepts Serin's own Avro records and JSON bodies, as `CloudEvents` in binary or
//! structured mode or without an envelope, under any key, and keys them by request id. It makes no decisions: the
//! aggregator decides whether an event counts.
//!
//! Invariants:
//! - Relayed records, their numbers and the input position commit in one transaction, so each input record is relayed once.
//! - A record that cannot be used is dead-lettered with a stable code, and the relay continues.
//! - Feedback is stamped with its topic and the models that this topic may report on. A prediction for any other model is
//!   refused.
//! - The request and the response of a call that a payload logger sent as two events meet in the partition of the call's id.
//! - Heartbeats promise no more than the relayed records show, and they stop when no records arrive: intake never holds the
//!   watermark for long.

mod config;
mod incoming;
pub mod metrics;
mod pairs;
mod relay;
mod rows;
mod topics;

pub use config::{IntakeClock, IntakeConfig};
pub use relay::IntakeFold;
pub use topics::{IntakeTopic, check_topics};

use serin_schemas::Code;
use std::time::Duration;

use serin_stream::fold::{Fold, FoldFactory};
use serin_topology::{FEEDBACK, PREDICTIONS};

/// Creates the relay of the same-numbered partitions of `predictions`, `feedback` and the topics of
/// [`IntakeConfig::topics`].
#[derive(Clone, Debug)]
pub struct IntakeFactory {
    config: IntakeConfig,
    events: i32,
    prefix: String,
    inputs: &'static [&'static str],
}

impl IntakeFactory {
    /// Creates the factory for a topic `events` of `events` partitions.
    pub fn new(config: IntakeConfig, events: i32) -> Self {
        let named = config.topics.iter().flat_map(IntakeTopic::names);
        // A process creates one factory, and the names of a stage's inputs must live as long as the process.
        let named = named.map(|name| &*Box::leak(name.to_owned().into_boxed_str()));
        let inputs: Vec<&'static str> = [PREDICTIONS, FEEDBACK].into_iter().chain(named).collect();
        Self { config, events, prefix: String::new(), inputs: Box::leak(inputs.into_boxed_slice()) }
    }

    /// Sets the prefix of the topics.
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

    fn tick_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    /// Always returns false: unusable records of one external producer must not stop the relay of the others.
    fn is_bad_deploy(&self, _code: Code) -> bool {
        false
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(IntakeFold::new(self.config.clone(), partition, self.events).prefixed(&self.prefix))
    }
}
