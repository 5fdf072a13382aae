//! A fold that counts, and its expected outputs.

use serin_schemas::Code;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    record::{Headers, Outgoing, Record, Target},
};

/// Creates counting folds.
pub struct Counting {
    /// The input topics.
    pub inputs: &'static [&'static str],
}

impl FoldFactory for Counting {
    fn stage(&self) -> &'static str {
        "counter"
    }

    fn inputs(&self) -> &'static [&'static str] {
        self.inputs
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(Count { partition, total: 0 })
    }
}

/// Counts records per key in rows, and all records in memory until a commit. Writes both counts to `out`.
///
/// Special values: `!` is unusable, `now` asks for a commit, and `forget` removes the key. `huge` writes a record
/// that is too large for any topic, `huge row` writes such a row, and `panic` panics.
struct Count {
    partition: i32,
    total: u64,
}

/// A record size that no topic accepts.
const HUGE: usize = 10 << 20;

/// Values whose records are dead-lettered.
pub const UNUSABLE: [&str; 4] = ["!", "huge", "huge row", "panic"];

fn number(row: Option<Bytes>) -> u64 {
    row.and_then(|row| row.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Fold for Count {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        self.total = number(rows.get(b"total")?);
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let value = record.value.as_deref().unwrap_or_default();
        if value == b"!" {
            return Ok(Err(Poison { code: Code::Garbage, message: "a bang".into() }));
        }
        assert!(value != b"panic", "the record asked for a panic");
        if value == b"huge row" {
            context.rows.put(b"huge", vec![0; HUGE].into());
            return Ok(Ok(()));
        }
        let row = [b"k/", record.key.as_ref()].concat();
        let count = number(context.rows.get(&row)?) + 1;
        self.total += 1;
        if value == b"forget" {
            context.rows.delete(&row);
        } else {
            context.rows.put(&row, Bytes::copy_from_slice(&count.to_be_bytes()));
        }
        context.commit_now = value == b"now";
        let mut text = output(&record.key, count, self.total);
        if value == b"huge" {
            text = text.repeat(HUGE / text.len());
        }
        context.out.push(Outgoing {
            topic: "out",
            target: Target::Partition(self.partition),
            key: record.key.clone(),
            value: Some(text.into()),
            headers: Headers::default(),
            timestamp_ms: None,
        });
        Ok(Ok(()))
    }

    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        context.rows.put(b"total", Bytes::copy_from_slice(&self.total.to_be_bytes()));
        Ok(())
    }
}

fn output(key: &[u8], count: u64, total: u64) -> String {
    format!("{}={count} of {total}", String::from_utf8_lossy(key))
}

/// The outputs that the fold must write for these inputs, however often it crashed.
pub fn expected(inputs: &[(String, String)]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut total = 0;
    let mut outputs = Vec::new();
    for (key, value) in inputs.iter().filter(|(_, value)| !UNUSABLE.contains(&value.as_str())) {
        let count = counts.entry(key).or_default();
        *count += 1;
        total += 1;
        outputs.push(output(key.as_bytes(), *count, total));
        if value == "forget" {
            counts.remove(key.as_str());
        }
    }
    outputs
}
