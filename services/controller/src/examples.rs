//! Examples of what two versions answered to the same call, read from the log on request.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serin_schemas::{
    codec,
    ids::{ModelName, RolloutId},
    records::Capture,
};
use serin_stream::log::{Log, LogError};
use serin_topology::CAPTURES;

use crate::recorded::{Bound, newest, partition_with};

/// How much of the topic is searched. The topic is bounded per minute; this bounds time and memory.
const BOUND: Bound = Bound { records: 2000, time: Duration::from_secs(10) };

/// The newest examples of a rollout, newest first. Examples that disagree come before those drawn at random. This blocks.
pub(crate) fn examples(
    log: &Arc<dyn Log>,
    model: &ModelName,
    rollout: &RolloutId,
    most: usize,
) -> Result<Vec<Capture>, LogError> {
    // No more of each kind is kept than was asked for, so that a client cannot make the API keep the whole topic in memory.
    let (mut differing, mut drawn) = (VecDeque::new(), VecDeque::new());
    let partition = partition_with(log.as_ref(), CAPTURES, model.as_str())?;
    newest(log, CAPTURES, [partition], BOUND, |record| {
        // A record that cannot be read is skipped.
        let Some(Ok(capture)) = record.value.as_deref().map(|body| codec::read::<Capture>(&record.headers, body))
        else {
            return;
        };
        if capture.rollout.as_ref() == Some(rollout) {
            let kept = if capture.differences.is_empty() { &mut drawn } else { &mut differing };
            kept.push_front(capture);
            kept.truncate(most);
        }
    })?;
    Ok(differing.into_iter().chain(drawn).take(most).collect())
}
