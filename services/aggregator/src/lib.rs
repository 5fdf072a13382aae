//! The aggregator role: from single events to windows of sketches.
//!
//! - [`AggregatorFactory`] makes the fold over `events`: it removes duplicates, follows event time, sketches the arms of active
//!   rollouts per window, metric and segment, joins late feedback by request id, and writes what closes to `windows`.
//! - [`intake`] relays what others produce on `predictions` and `feedback` into `events`.
//!
//! Everything here is pure: time is in the records, randomness is a hash of ids, and state is rows.

mod alarms;
mod close;
mod config;
mod early;
mod fold;
pub mod intake;
mod join;
mod journal;
mod mature;
mod memory;
pub mod metrics;
mod pairing;
mod plan;
mod rollout;
mod rows;
mod segments;
mod state;
mod truths;
mod window;
mod writers;

pub use config::Config;
pub use fold::AggregatorFold;
pub use intake::{IntakeConfig, IntakeFactory};

use serin_stream::fold::{Fold, FoldFactory};

/// Makes the aggregator's fold of each partition of `events`.
#[derive(Clone, Debug)]
pub struct AggregatorFactory {
    config: Config,
    partitions: i32,
}

impl AggregatorFactory {
    /// For a topic `events` of `partitions` partitions.
    pub fn new(config: Config, partitions: i32) -> Self {
        Self { config, partitions }
    }
}

impl FoldFactory for AggregatorFactory {
    fn stage(&self) -> &'static str {
        "aggregator"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &["events"]
    }

    fn append_times(&self) -> &'static [&'static str] {
        &["events"]
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(AggregatorFold::new(self.config.clone(), partition, self.partitions))
    }
}
