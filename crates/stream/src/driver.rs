//! Drives one fold without a log, a thread or a clock, for tests and for folding records that are already in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::{
    fold::{Context, Fold, FoldError, Poison},
    record::{Headers, Outgoing, Record, TopicPartition},
    rows::Overlay,
    store::{MemoryStore, Store},
};

/// The result of applying one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The reason why the record could not be used, if it could not.
    pub poison: Option<Poison>,
    /// Whether the fold asked for a commit right after the record.
    pub commit_now: bool,
}

/// A fold with its rows: feed records, commit, crash, inspect.
///
/// Nothing is committed automatically, even when the fold asks for a commit.
pub struct FoldDriver {
    make: Box<dyn Fn() -> Box<dyn Fold>>,
    fold: Box<dyn Fold>,
    store: MemoryStore,
    rows: Overlay,
    out: Vec<Outgoing>,
    offsets: HashMap<TopicPartition, i64>,
}

impl FoldDriver {
    /// Opens the fold that `make` creates on empty rows.
    pub fn new(make: impl Fn() -> Box<dyn Fold> + 'static) -> Result<Self, FoldError> {
        let store = MemoryStore::default();
        let mut rows = Overlay::new(Box::new(store.clone()));
        let mut fold = make();
        fold.open(&mut rows)?;
        Ok(Self { make: Box::new(make), fold, store, rows, out: Vec::new(), offsets: HashMap::new() })
    }

    /// Creates a record at the next offset of `topic[partition]` with the log timestamp `timestamp_ms`.
    pub fn record(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp_ms: i64,
        key: impl Into<Bytes>,
        headers: Headers,
        value: Option<Bytes>,
    ) -> Record {
        let at = TopicPartition::new(topic, partition);
        let next = self.offsets.entry(at.clone()).or_insert(0);
        let offset = *next;
        *next += 1;
        Record { at, offset, timestamp_ms, key: key.into(), value, headers }
    }

    /// Applies one record.
    pub fn apply(&mut self, record: &Record) -> Result<Applied, FoldError> {
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        let poison = self.fold.apply(record, &mut context)?.err();
        Ok(Applied { poison, commit_now: context.commit_now })
    }

    /// Advances the wall clock to `now_ms`. Returns whether the fold asked for a commit.
    pub fn tick(&mut self, now_ms: i64) -> Result<bool, FoldError> {
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        self.fold.tick(now_ms, &mut context)?;
        Ok(context.commit_now)
    }

    /// Commits the changes into the rows. Returns the records of the transaction in order.
    pub fn commit(&mut self) -> Result<Vec<Outgoing>, FoldError> {
        let mut context = Context { rows: &mut self.rows, out: &mut self.out, commit_now: false };
        self.fold.before_commit(&mut context)?;
        let changes = self.rows.changes()?;
        self.rows.store().write(changes)?;
        self.rows.committed();
        self.fold.committed();
        Ok(std::mem::take(&mut self.out))
    }

    /// Crashes: drops everything that was not committed, and opens a new fold from the rows.
    pub fn crash(&mut self) -> Result<(), FoldError> {
        self.out.clear();
        self.rows = Overlay::new(Box::new(self.store.clone()));
        self.fold = (self.make)();
        self.fold.open(&mut self.rows)
    }

    /// Records that will be written with the next commit.
    pub fn pending(&self) -> &[Outgoing] {
        &self.out
    }

    /// The committed rows.
    pub fn rows(&self) -> BTreeMap<Bytes, Bytes> {
        self.store.rows()
    }

    /// Replaces the committed rows and reopens the fold, for tests of state that older versions wrote.
    pub fn reset(&mut self, rows: BTreeMap<Bytes, Bytes>) -> Result<(), FoldError> {
        let changes = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.store.clear().and_then(|()| self.store.write(changes))?;
        self.crash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Target;

    /// Counts records in a row and outputs the count.
    struct Count(u64);

    impl Fold for Count {
        fn open(&mut self, rows: &mut dyn crate::fold::Rows) -> Result<(), FoldError> {
            let row = rows.get(b"count")?;
            self.0 = row.map_or(0, |row| row.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)));
            Ok(())
        }

        fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
            if record.value.is_none() {
                return Ok(Err(Poison { code: serin_schemas::Code::Garbage, message: "no value".into() }));
            }
            self.0 += 1;
            context.rows.put(b"count", Bytes::copy_from_slice(&self.0.to_be_bytes()));
            context.commit_now = self.0.is_multiple_of(2);
            context.out.push(Outgoing {
                topic: "out",
                target: Target::ByKey,
                key: record.key.clone(),
                value: Some(self.0.to_string().into()),
                headers: Headers::default(),
                timestamp_ms: None,
            });
            Ok(Ok(()))
        }
    }

    #[test]
    fn a_crash_forgets_what_was_not_committed() {
        let mut harness = FoldDriver::new(|| Box::new(Count(0))).unwrap();
        let first = harness.record("in", 0, 0, "k", Headers::default(), Some("v".into()));
        let second = harness.record("in", 0, 0, "k", Headers::default(), Some("v".into()));
        assert_eq!((first.offset, second.offset), (0, 1));
        assert!(!harness.apply(&first).unwrap().commit_now);
        assert_eq!(harness.commit().unwrap().len(), 1);
        assert!(harness.apply(&second).unwrap().commit_now);
        assert_eq!(harness.pending().len(), 1);
        harness.crash().unwrap();
        assert!(harness.pending().is_empty());
        harness.apply(&second).unwrap();
        assert_eq!(harness.commit().unwrap()[0].value, Some("2".into()));
        let poison = harness.record("in", 0, 0, "k", Headers::default(), None);
        assert_eq!(harness.apply(&poison).unwrap().poison.unwrap().code.as_str(), "garbage");
    }
}
