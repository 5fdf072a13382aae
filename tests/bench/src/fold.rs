//! Measures the fold alone: records in memory, no log and no disk, one thread.

use std::{hint::black_box, sync::Arc};

use serin_aggregator::{AggregatorFold, Config};
use serin_schemas::{event::EventRecord, ids::EventTime};
use serin_stream::{
    fold::{Context, Fold as _},
    record::{Outgoing, Record, TopicPartition},
    rows::Overlay,
    store::MemoryStore,
};

use crate::{
    load::{Load, Mix},
    machine,
};

/// Predictions between two commits: those of a partition in one second, when four partitions have 200 000 per second.
const COMMIT: usize = 50_000;

/// The cost of folding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) records: u64,
    /// CPU seconds for applying, with decoding, and for the commits' rows.
    pub(crate) seconds: f64,
    /// CPU seconds for the commits' rows alone.
    pub(crate) commit_seconds: f64,
    /// CPU seconds for decoding every record with the Avro library, measured separately.
    pub(crate) library_seconds: f64,
    /// Rows written.
    rows: u64,
}

impl Cost {
    pub(crate) fn per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Folds `predictions` predictions of a mix. The first quarter is not measured.
pub(crate) fn measure(mix: &Mix, predictions: usize) -> anyhow::Result<Cost> {
    let mut fold = AggregatorFold::new(Config::default(), 0, 1);
    let mut rows = Overlay::new(Box::new(MemoryStore::default()));
    fold.open(&mut rows)?;
    let mut load = Load::new(mix.clone(), 1, EventTime::from_secs(1_760_000_000));
    let at = TopicPartition::new("events", 0);
    let mut cost = Cost::default();
    let (mut out, mut made, mut offset) = (Vec::new(), 0, 0);
    while made < predictions {
        let mut records = Vec::with_capacity(2 * COMMIT);
        load.make(COMMIT, &mut |record| {
            offset += 1;
            records.push(received(record, &at, offset));
            Ok(())
        })?;
        made += COMMIT;
        let started = machine::thread_nanos()?;
        for record in &records {
            if let Some(value) = &record.value {
                black_box(EventRecord::decode(&record.headers, value)?);
            }
        }
        let decoded = machine::thread_nanos()?;
        let mut context = Context { rows: &mut rows, out: &mut out, commit_now: false };
        for record in &records {
            fold.apply(record, &mut context)?.map_err(|poison| anyhow::anyhow!("unusable: {}", poison.message))?;
        }
        let applied = machine::thread_nanos()?;
        fold.before_commit(&mut context)?;
        let changes = rows.changes()?;
        let count = changes.len() as u64;
        rows.store().write(changes)?;
        rows.committed();
        fold.committed();
        out.clear();
        let committed = machine::thread_nanos()?;
        if made > predictions / 4 {
            let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
            cost.records += records.len() as u64;
            cost.library_seconds += seconds(started, decoded);
            cost.seconds += seconds(decoded, committed);
            cost.commit_seconds += seconds(applied, committed);
            cost.rows += count;
        }
    }
    Ok(cost)
}

/// Converts a record to the form in which a reader returns it.
fn received(record: Outgoing, at: &TopicPartition, offset: i64) -> Record {
    Record {
        at: TopicPartition { topic: Arc::clone(&at.topic), partition: at.partition },
        offset,
        timestamp_ms: 0,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_folded_without_a_bad_record() {
        let cost = measure(&Mix { segments: 3, models: 2, hot: 90, ..Mix::standard() }, 200_000).unwrap();
        assert!(cost.records >= 150_000 && cost.rows > 0);
    }
}
