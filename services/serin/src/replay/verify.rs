//! The verdicts of a log, recomputed from its windows and compared byte by byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use serin_schemas::{
    codec,
    event::WindowRecord,
    ids::{EventTime, RolloutId},
    records::{Phase, Verdict},
};
use serin_sketches::hash::hash64;
use serin_stream::{fold::Fold, record::Record};

use crate::in_process::Driven;

/// Names a verdict: there is one per rollout and point of event time.
type Key = (RolloutId, EventTime);

/// What came of one partition, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Records of `windows` that were replayed.
    pub(crate) windows: u64,
    /// Verdicts with the same bytes.
    pub(crate) equal: u64,
    /// Verdicts with other bytes.
    pub(crate) different: u64,
    /// Recomputed, but not on the log (any more).
    pub(crate) not_recorded: u64,
    /// On the log, but their windows are gone.
    pub(crate) not_recomputed: u64,
    /// Rollouts whose beginning is no longer on the log: they cannot be recomputed.
    pub(crate) cut_off: BTreeSet<RolloutId>,
    /// Where the first different one stands.
    pub(crate) first_different: Option<Place>,
}

/// A recorded verdict, and the bytes that were computed instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    #[serde(skip)]
    pub(crate) computed: Vec<u8>,
}

/// The first field in which two verdicts differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// Such as `metrics[3].ln_e_fail`.
    pub(crate) field: String,
    pub(crate) recorded: Value,
    pub(crate) recomputed: Value,
}

/// Recomputes one partition: first it is shown the recorded verdicts, then the windows.
pub(crate) struct Verifier {
    partition: i32,
    analyzer: Driven,
    /// Per recorded verdict a hash of its bytes, and its offset.
    recorded: BTreeMap<Key, (u64, i64)>,
    begun: BTreeSet<RolloutId>,
    found: Verified,
}

impl Verifier {
    /// A verifier that uses this fold of the analyzer.
    pub(crate) fn new(partition: i32, analyzer: Box<dyn Fold>) -> anyhow::Result<Self> {
        let analyzer = Driven::new(analyzer)?;
        let (recorded, begun, found) = (BTreeMap::new(), BTreeSet::new(), Verified::default());
        Ok(Self { partition, analyzer, recorded, begun, found })
    }

    /// Takes a record of `verdicts`.
    pub(crate) fn recorded(&mut self, record: &Record) -> anyhow::Result<()> {
        if let Some(body) = &record.value {
            let verdict: Verdict = codec::read(&record.headers, body)?;
            self.recorded.insert((verdict.rollout, verdict.as_of), (fingerprint(body), record.offset));
        }
        Ok(())
    }

    /// Takes a record of `windows`.
    pub(crate) fn window(&mut self, record: &Record) -> anyhow::Result<()> {
        self.found.windows += 1;
        let body = record.value.as_deref().unwrap_or_default();
        if let Ok(WindowRecord::Control(control)) = WindowRecord::decode(&record.headers, body)
            && self.begun.insert(control.rollout.clone())
            && !matches!(control.phase, Phase::Pending | Phase::Warming)
        {
            self.found.cut_off.insert(control.rollout);
        }
        // What the analyzer could not use is on `dead-letters`, then as now.
        self.analyzer.apply(record)?;
        for outgoing in std::mem::take(&mut self.analyzer.out) {
            let computed = outgoing.value.unwrap_or_default();
            let verdict: Verdict = codec::read(&outgoing.headers, &computed)?;
            self.compare(&(verdict.rollout, verdict.as_of), &computed);
        }
        Ok(())
    }

    fn compare(&mut self, key: &Key, computed: &[u8]) {
        if self.found.cut_off.contains(&key.0) {
            return;
        }
        match self.recorded.remove(key) {
            None => self.found.not_recorded += 1,
            Some((bytes, _)) if bytes == fingerprint(computed) => self.found.equal += 1,
            Some((_, offset)) => {
                self.found.different += 1;
                let place = Place { partition: self.partition, offset, computed: computed.to_vec() };
                self.found.first_different.get_or_insert(place);
            }
        }
    }

    /// What came of the partition.
    pub(crate) fn finish(mut self) -> Verified {
        self.found.not_recomputed = self.recorded.len() as u64;
        self.found
    }
}

impl Verified {
    /// Adds what came of another partition.
    pub(crate) fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.equal += other.equal;
        self.different += other.different;
        self.not_recorded += other.not_recorded;
        self.not_recomputed += other.not_recomputed;
        self.cut_off.extend(other.cut_off);
        self.first_different = self.first_different.take().or(other.first_different);
    }

    /// Whether every verdict that could be recomputed has the recorded bytes.
    pub(crate) fn holds(&self) -> bool {
        self.different == 0 && self.not_recorded == 0
    }
}

/// The first field in which two verdicts differ; `None`: only their bytes do.
pub(crate) fn difference(recorded: &Verdict, computed: &Verdict) -> anyhow::Result<Option<Difference>> {
    Ok(first("", &serde_json::to_value(recorded)?, &serde_json::to_value(computed)?))
}

fn first(path: &str, recorded: &Value, recomputed: &Value) -> Option<Difference> {
    match (recorded, recomputed) {
        (Value::Object(one), Value::Object(two)) => {
            let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            one.iter().find_map(|(name, value)| first(&join(name), value, two.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            let pairs = one.iter().zip(two).enumerate();
            pairs.into_iter().find_map(|(index, (one, two))| first(&format!("{path}[{index}]"), one, two))
        }
        _ if recorded == recomputed => None,
        _ => Some(Difference { field: path.to_owned(), recorded: recorded.clone(), recomputed: recomputed.clone() }),
    }
}

fn fingerprint(body: &[u8]) -> u64 {
    hash64(b"serin replay", body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let one = json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "z": 1});
        let two = json!({"a": 1, "list": [{"x": 1}, {"x": 3}], "z": 2});
        let found = first("", &one, &two).unwrap();
        assert_eq!((found.field.as_str(), found.recorded, found.recomputed), ("list[1].x", json!(2), json!(3)));
        assert_eq!(first("", &one, &one), None);
        assert_eq!(first("", &json!([1]), &json!([1, 2])).unwrap().field, "");
    }
}
