//! Judges a recorded log again: by the recorded policy, which must give the same bytes, or by another one.
//!
//! Folds are deterministic, so the topic `windows` and the analyzer's fold give every verdict again. Under another policy, the
//! recorded traffic does not change: weights, steps and the values frozen at warm-up are those of the record. Margins, kinds of
//! evidence, budget, thresholds and bake times are those of the other policy.

mod policy;
mod story;
mod verify;

use std::time::Duration;

use serin_stream::{
    log::{Log, LogError, Polled, Start},
    record::{Record, TopicPartition},
};

pub(crate) use policy::{Policy, Recomputed, needs_events, recompute};
pub(crate) use story::{Controls, Judge, StepEnd, Story, stories};
pub(crate) use verify::{Difference, Verified, Verifier, difference};

/// Largest number of records of one poll.
const BATCH: usize = 1000;
/// How long one poll waits.
const WAIT: Duration = Duration::from_secs(5);

/// Calls `look` with every record of a partition, oldest first, up to its current end.
pub(crate) fn each(
    log: &dyn Log,
    topic: &str,
    partition: i32,
    mut look: impl FnMut(&Record) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let at = TopicPartition::new(&log.full_name(topic), partition);
    let (_, end) = log.bounds(&at)?;
    let mut reader = log.reader(&[(at.clone(), Start::Beginning)])?;
    let mut batch = Vec::new();
    loop {
        let polled = reader.poll(BATCH, WAIT, &mut batch)?;
        for record in batch.drain(..) {
            if record.next() > end {
                return Ok(());
            }
            look(&record)?;
        }
        match polled {
            Polled::AtEnd => return Ok(()),
            Polled::Records => {}
            Polled::Nothing => {
                let cause = format!("no records arrived within {} s", WAIT.as_secs());
                let doing = format!("reading {}[{partition}]", at.topic);
                return Err(LogError::Failed { doing, cause }.into());
            }
        }
    }
}
