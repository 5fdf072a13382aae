//! The verdicts of a log, recomputed from its windows and compared.
//!
//! Verdicts that this build wrote under its own rules are compared byte by byte. Another build may have other sentences, and an
//! older schema has fewer fields. Of such verdicts, only the evidence, the results and the decision are compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use serin_schemas::{
    codec::{self, Record as _},
    envelope,
    event::WindowRecord,
    ids::{EventTime, RolloutId},
    records::{Phase, RULES, Verdict},
};
use serin_sketches::hash::hash64;
use serin_spec::Rules;
use serin_stream::{fold::Fold, record::Record};

use crate::in_process::LocalFold;

/// Identifies a verdict: there is one per rollout and event time.
type Key = (RolloutId, EventTime);

/// The result for one partition, or for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Records of `windows` that were replayed.
    pub(crate) windows: u64,
    /// Verdicts that are equal.
    pub(crate) equal: u64,
    /// Verdicts that were compared without their sentences, because another build wrote them or they have older rules.
    pub(crate) without_sentences: u64,
    /// Verdicts that differ.
    pub(crate) different: u64,
    /// Recomputed verdicts that are not on the log, or no longer.
    pub(crate) not_recorded: u64,
    /// Verdicts on the log whose windows are no longer on the log.
    pub(crate) not_recomputed: u64,
    /// Rollouts that cannot be recomputed, because their start is no longer on the log.
    pub(crate) cut_off: BTreeSet<RolloutId>,
    /// Rollouts that cannot be recomputed, because this build does not know their rules.
    pub(crate) other_rules: BTreeSet<RolloutId>,
    /// Position of the first verdict that differs.
    pub(crate) first_different: Option<Place>,
}

/// Position of a recorded verdict, and the recomputed bytes.
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
    /// Path of the field, such as `metrics[3].ln_e_fail`.
    pub(crate) field: String,
    pub(crate) recorded: Value,
    pub(crate) recomputed: Value,
}

/// A verdict on the log.
struct Recorded {
    /// A hash of the parts that are compared.
    hash: u64,
    sentences: Sentences,
    offset: i64,
}

/// Whether the sentences of a verdict are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sentences {
    /// All bytes are compared, because this build wrote the verdict under its own rules.
    Compared,
    /// Sentences are not compared, nor fields that this schema version does not have.
    LeftOut(u32),
}

/// Recomputes one partition. It takes the recorded verdicts first, then the windows.
pub(crate) struct Verifier {
    partition: i32,
    analyzer: LocalFold,
    recorded: BTreeMap<Key, Recorded>,
    started: BTreeSet<RolloutId>,
    found: Verified,
}

impl Verifier {
    /// A verifier that uses this fold of the analyzer.
    pub(crate) fn new(partition: i32, analyzer: Box<dyn Fold>) -> anyhow::Result<Self> {
        let analyzer = LocalFold::new(analyzer)?;
        let (recorded, started, found) = (BTreeMap::new(), BTreeSet::new(), Verified::default());
        Ok(Self { partition, analyzer, recorded, started, found })
    }

    /// Takes a record of `verdicts`.
    pub(crate) fn recorded(&mut self, record: &Record) -> anyhow::Result<()> {
        if let Some(body) = &record.value {
            let (_, version) = envelope::record_type(&record.headers)?;
            let verdict: Verdict = codec::decode(version, body)?;
            let sentences = Sentences::of(&verdict, version);
            let hash = sentences.hash(&verdict, body)?;
            self.recorded.insert((verdict.rollout, verdict.as_of), Recorded { hash, sentences, offset: record.offset });
        }
        Ok(())
    }

    /// Takes a record of `windows`.
    pub(crate) fn window(&mut self, record: &Record) -> anyhow::Result<()> {
        self.found.windows += 1;
        let body = record.value.as_deref().unwrap_or_default();
        if let Ok(WindowRecord::Control(control)) = WindowRecord::decode(&record.headers, body) {
            if !Rules::numbered(control.rules).is_known() {
                self.found.other_rules.insert(control.rollout.clone());
            }
            if self.started.insert(control.rollout.clone()) && !matches!(control.phase, Phase::Pending | Phase::Warming)
            {
                self.found.cut_off.insert(control.rollout);
            }
        }
        // Records that the analyzer cannot use were dead-lettered when they were recorded, too.
        self.analyzer.apply(record)?;
        for outgoing in std::mem::take(&mut self.analyzer.out) {
            let computed = outgoing.value.unwrap_or_default();
            let verdict: Verdict = codec::read(&outgoing.headers, &computed)?;
            self.compare(&verdict, &computed)?;
        }
        Ok(())
    }

    fn compare(&mut self, verdict: &Verdict, computed: &[u8]) -> anyhow::Result<()> {
        let id = &verdict.rollout;
        if self.found.cut_off.contains(id) || self.found.other_rules.contains(id) {
            return Ok(());
        }
        let Some(recorded) = self.recorded.remove(&(id.clone(), verdict.as_of)) else {
            self.found.not_recorded += 1;
            return Ok(());
        };
        self.found.without_sentences += u64::from(recorded.sentences != Sentences::Compared);
        if recorded.sentences.hash(verdict, computed)? == recorded.hash {
            self.found.equal += 1;
        } else {
            self.found.different += 1;
            let place = Place { partition: self.partition, offset: recorded.offset, computed: computed.to_vec() };
            self.found.first_different.get_or_insert(place);
        }
        Ok(())
    }

    /// The result for the partition.
    pub(crate) fn finish(mut self) -> Verified {
        self.found.not_recomputed = self.recorded.len() as u64;
        self.found
    }
}

impl Verified {
    /// Adds the result of another partition.
    pub(crate) fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.equal += other.equal;
        self.different += other.different;
        self.not_recorded += other.not_recorded;
        self.not_recomputed += other.not_recomputed;
        self.without_sentences += other.without_sentences;
        self.cut_off.extend(other.cut_off);
        self.other_rules.extend(other.other_rules);
        self.first_different = self.first_different.take().or(other.first_different);
    }

    /// Whether every recomputed verdict is equal to the recorded one.
    pub(crate) fn holds(&self) -> bool {
        self.different == 0 && self.not_recorded == 0
    }
}

impl Sentences {
    /// What to compare for a recorded verdict of this schema version.
    fn of(recorded: &Verdict, version: u32) -> Self {
        let own = serin_analyzer::BUILD == recorded.build && recorded.rules == RULES && version == Verdict::VERSION;
        if own { Self::Compared } else { Self::LeftOut(version) }
    }

    fn hash(self, verdict: &Verdict, body: &[u8]) -> anyhow::Result<u64> {
        match self {
            Self::Compared => Ok(fingerprint(body)),
            Self::LeftOut(version) => Ok(fingerprint(&codec::encode(&without_sentences(verdict, version))?)),
        }
    }
}

/// A verdict without its sentences, its id and its build: the evidence, the results and the decision remain. `version`: the recorded
/// schema version; fields that it does not have are left out of both verdicts.
fn without_sentences(verdict: &Verdict, version: u32) -> Verdict {
    let mut verdict = verdict.clone();
    verdict.id.clear();
    verdict.build.clear();
    verdict.sentence.clear();
    verdict.reasons.iter_mut().for_each(|reason| reason.sentence.clear());
    verdict.metrics.iter_mut().for_each(|metric| metric.sentence.clear());
    verdict.health.iter_mut().for_each(|issue| issue.sentence.clear());
    if version < 3 {
        verdict.metrics.iter_mut().for_each(|metric| metric.units = None);
        for arm in &mut verdict.arms {
            (arm.refused, arm.redirected, arm.unread, arm.cancelled) = (0, 0, 0, 0);
        }
    }
    if version < 4 {
        verdict.seen.clear();
        verdict.metrics.iter_mut().for_each(|metric| metric.harm = None);
        verdict.arms.iter_mut().for_each(|arm| arm.left = 0);
    }
    verdict
}

/// The first field in which a verdict differs from the recorded one of this schema version; `None`: only the bytes differ.
pub(crate) fn difference(recorded: &Verdict, version: u32, computed: &Verdict) -> anyhow::Result<Option<Difference>> {
    let compared = |verdict: &Verdict| match Sentences::of(recorded, version) {
        Sentences::Compared => serde_json::to_value(verdict),
        Sentences::LeftOut(version) => serde_json::to_value(without_sentences(verdict, version)),
    };
    Ok(first("", &compared(recorded)?, &compared(computed)?))
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
