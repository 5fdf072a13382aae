//! The intake: brings what others write to `predictions` and `feedback` into `events`.
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

mod config;
mod incoming;
pub mod metrics;
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
        let inputs: Vec<&'static str> = [PREDICTIONS, FEEDBACK].into_iter().chain(named).collect();
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

    fn tick_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    /// Strangers write its inputs: whatever they send, the others' records are relayed.
    fn is_bad_deploy(&self, _code: Code) -> bool {
        false
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(IntakeFold::new(self.config.clone(), partition, self.events).prefixed(&self.prefix))
    }
}
