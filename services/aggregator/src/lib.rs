//! The aggregator role: folds events into windows of sketches.
//!
//! [`AggregatorFactory`] creates the fold over `events`. The fold removes duplicates, tracks event time, sketches the
//! arms of active rollouts per window, metric and segment, joins late feedback by request id, and writes closed
//! windows to `windows`.
//!
//! Everything here is pure: time comes from the records, randomness is a hash of ids, and state is kept in rows.

mod alarms;
mod close;
mod compiled;
mod config;
mod counts;
mod early;
mod filter;
mod fold;
mod join;
mod joins;
mod journal;
mod keys;
mod label;
mod mature;
mod memory;
pub mod metrics;
mod model;
mod pairing;
mod ranking;
mod rollout;
mod rows;
mod segments;
mod state;
mod trace;
mod truths;
mod value;
mod window;
mod writers;

pub use config::Config;
pub use fold::AggregatorFold;

use serin_stream::{
    fold::{Fold, FoldFactory},
    trace::Tracer,
};
use serin_topology::EVENTS;

/// Creates the aggregator's fold of each partition of `events`.
#[derive(Clone, Debug)]
pub struct AggregatorFactory {
    config: Config,
    partitions: i32,
}

impl AggregatorFactory {
    /// Creates the factory for a topic `events` of `partitions` partitions.
    pub fn new(config: Config, partitions: i32) -> Self {
        Self { config, partitions }
    }
}

impl FoldFactory for AggregatorFactory {
    fn stage(&self) -> &'static str {
        "aggregator"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &[EVENTS]
    }

    fn append_times(&self) -> &'static [&'static str] {
        &[EVENTS]
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(AggregatorFold::new(self.config.clone(), partition, self.partitions))
    }

    fn tracer(&self, _partition: i32) -> Option<Box<dyn Tracer>> {
        Some(Box::new(trace::Tracer::default()))
    }
}
