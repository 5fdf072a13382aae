//! Examples of what two versions answered to the same call, read from the log on request.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serin_schemas::{
    codec,
    ids::{ModelName, NextOffset, RolloutId},
    records::Capture,
};
use serin_stream::{
    log::{Log, LogError, Start},
    partition_of,
    record::TopicPartition,
};
use serin_topology::CAPTURES;

/// Newest records of a partition that are searched. The topic is bounded per minute; this bounds time and memory.
const NEWEST: i64 = 2000;
/// Records per poll.
const BATCH: usize = 500;
/// Longest wait for one batch.
const WAIT: Duration = Duration::from_secs(2);

/// The topic `captures`.
pub(crate) struct Examples(Arc<dyn Log>);

impl Examples {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self(log)
    }

    /// The newest examples of a rollout, newest first. Examples that disagree come before those drawn at random. This blocks.
    pub(crate) fn newest(&self, model: &ModelName, rollout: &RolloutId, most: usize) -> Result<Vec<Capture>, LogError> {
        let partition = partition_of(model.as_str().as_bytes(), self.0.partitions(CAPTURES)?);
        let place = TopicPartition { topic: self.0.full_name(CAPTURES), partition };
        let (first, next) = self.0.bounds(&place)?;
        let from = NextOffset(first.0.max(next.0 - NEWEST));
        let mut reader = self.0.reader(&[(place.clone(), Start::At(from))])?;
        // No more of each kind is kept than was asked for, so that a client cannot make the API keep the whole topic in memory.
        let (mut differing, mut drawn, mut records) = (VecDeque::new(), VecDeque::new(), Vec::new());
        loop {
            reader.poll(BATCH, WAIT, &mut records)?;
            let quiet = records.is_empty();
            // A record that cannot be read is skipped.
            let read =
                records.drain(..).filter_map(|record| codec::read::<Capture>(&record.headers, &record.value?).ok());
            for capture in read.filter(|capture| capture.rollout.as_ref() == Some(rollout)) {
                let kept = if capture.differences.is_empty() { &mut drawn } else { &mut differing };
                kept.push_front(capture);
                kept.truncate(most);
            }
            if quiet || reader.at_end(&place) {
                break;
            }
        }
        Ok(differing.into_iter().chain(drawn).take(most).collect())
    }
}
