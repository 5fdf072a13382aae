//! What waits for something that has not come yet: predictions for labels or outputs, feedback for its prediction.
//!
//! Bounded, each by `limit`:
//! - Beyond it, the share of request ids whose predictions are kept is halved, by a hash of the request id. That is blind to arm
//!   and outcome, so both arms are sampled alike; the share doubles again when there is room.
//! - Of what waits for its prediction, that which has waited longest gives way: most of it belongs to calls that no rollout
//!   tracks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _};
use serde::{Deserialize, Serialize};
use serin_schemas::ids::{EventTime, Generation};
use serin_sketches::hash::Salt;
use serin_stream::fold::{FoldError, Rows};

use crate::{
    journal::{Group, Journal},
    metrics::Tally,
    pairing::Half,
    rows::{self, Key, Table},
};

/// Names a prediction that waits. The live answer and its mirror share the request id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JoinKey {
    pub(crate) id: Arc<str>,
    pub(crate) shadow: bool,
}

/// A truth that came for a prediction: a number, or the hash of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Label<T = f64> {
    pub(crate) revision: i64,
    pub(crate) value: T,
}

/// How a value in memory stands to its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowState {
    /// Changed since it was last written.
    dirty: bool,
    /// Has a row.
    stored: bool,
}

/// A prediction that waits. Its stored form is that in the rows of its window (see `journal.rs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// Its request.
    #[serde(skip)]
    pub(crate) id: Arc<str>,
    /// Number of its rollout.
    pub(crate) rollout: u32,
    pub(crate) generation: Generation,
    /// Place of its arm.
    pub(crate) arm: u8,
    /// End of its window.
    pub(crate) end: EventTime,
    pub(crate) error: bool,
    pub(crate) invalid: bool,
    /// Whether it is sketched; else it only waits for the other answer to a mirrored call.
    pub(crate) sketched: bool,
    /// Hash of the unit that was assigned, where units are.
    pub(crate) unit: Option<u64>,
    /// Numbers of its segment values.
    pub(crate) numbers: Box<[u16]>,
    /// Bit `i`: the value of `Plan::fillable[i]` is missing.
    pub(crate) missing: u64,
    /// Outputs that label metrics need; NaN where absent.
    pub(crate) outputs: Box<[f64]>,
    /// Hashes of the categorical outputs that label metrics need.
    pub(crate) classes: Box<[Option<u64>]>,
    /// Labels that came.
    pub(crate) labels: Box<[Option<Label>]>,
    /// Labels that name classes.
    pub(crate) truths: Box<[Option<Label<u64>>]>,
    /// What it says about `Plan::paired`.
    pub(crate) halves: Box<[Option<Half>]>,
    /// The last stream that has counted it: each counts it once.
    #[serde(skip)]
    pub(crate) counted: usize,
    #[serde(skip)]
    pub(crate) row: RowState,
}

impl Join {
    /// The window whose rows it is in.
    fn group(&self) -> Group {
        Group { rollout: self.rollout, end: self.end, generation: self.generation }
    }
}

/// What came before its prediction. Its stored form is that of the pending row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// When it is given up.
    pub(crate) expires: EventTime,
    /// Labels by name.
    pub(crate) labels: BTreeMap<String, Label>,
    /// Labels that name classes, by name.
    pub(crate) truths: BTreeMap<String, Label<u64>>,
    /// Outputs of a model server's own event.
    pub(crate) outputs: BTreeMap<String, f64>,
    /// Classes of it.
    pub(crate) classes: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) row: RowState,
}

impl Pending {
    /// Whether any label waits.
    pub(crate) fn has_labels(&self) -> bool {
        !self.labels.is_empty() || !self.truths.is_empty()
    }
}

/// How a label met what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    First,
    Revised,
    Repeated,
    Older,
}

/// Puts a label in place unless one of the same or a later revision is there.
pub(crate) fn meet<T>(there: &mut Option<Label<T>>, label: Label<T>) -> Met {
    let met = match there {
        None => Met::First,
        Some(old) if label.revision > old.revision => Met::Revised,
        Some(old) if label.revision == old.revision => return Met::Repeated,
        Some(_) => return Met::Older,
    };
    *there = Some(label);
    met
}

/// All that waits on a partition.
#[derive(Debug)]
pub(crate) struct Joins {
    /// Live answers, and mirrors.
    rows: [HashMap<Arc<str>, Join>; 2],
    pending: HashMap<Arc<str>, Pending>,
    expiry: BTreeSet<(EventTime, Arc<str>)>,
    /// Ids with a hash up to this are kept.
    pub(crate) keep: u64,
    limit: usize,
    salt: Salt,
    /// Predictions that changed.
    dirty: Vec<JoinKey>,
    /// Predictions that wait no longer, and the windows whose rows they are in.
    gone: Vec<(Group, JoinKey)>,
    journal: Journal,
    dirty_pending: Vec<Arc<str>>,
    /// Keys of rows to remove.
    removed: Vec<Vec<u8>>,
}

impl Joins {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            rows: [HashMap::new(), HashMap::new()],
            pending: HashMap::new(),
            expiry: BTreeSet::new(),
            keep: u64::MAX,
            limit: limit.max(1),
            salt: Salt::new(b"serin.join"),
            dirty: Vec::new(),
            gone: Vec::new(),
            journal: Journal::default(),
            dirty_pending: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Number of predictions that wait.
    fn len(&self) -> usize {
        self.rows[0].len() + self.rows[1].len()
    }

    /// Whether this id is in the sample that is kept.
    pub(crate) fn admits(&self, id: &str) -> bool {
        self.keep == u64::MAX || self.salt.hash(id.as_bytes()) <= self.keep
    }

    pub(crate) fn get(&self, id: &str, shadow: bool) -> Option<&Join> {
        self.rows[usize::from(shadow)].get(id)
    }

    /// A row to change.
    pub(crate) fn get_mut(&mut self, id: &str, shadow: bool) -> Option<&mut Join> {
        let join = self.rows[usize::from(shadow)].get_mut(id)?;
        if !join.row.dirty {
            join.row.dirty = true;
            self.dirty.push(JoinKey { id: Arc::clone(&join.id), shadow });
        }
        Some(join)
    }

    /// Notes that a stream counts a prediction of a window. False: it is none, or the stream has counted it before.
    pub(crate) fn count(&mut self, key: &JoinKey, group: Group, stream: usize) -> bool {
        let join = self.rows[usize::from(key.shadow)].get_mut(&key.id);
        join.filter(|join| join.group() == group && join.counted != stream).map(|join| join.counted = stream).is_some()
    }

    /// Adds a row; there is none with this key.
    pub(crate) fn insert(&mut self, key: JoinKey, mut join: Join, tally: &mut Tally) {
        join.row.dirty = true;
        self.journal.joined(join.group());
        self.dirty.push(key.clone());
        self.rows[usize::from(key.shadow)].insert(key.id, join);
        self.make_room(tally);
    }

    pub(crate) fn remove(&mut self, key: &JoinKey) {
        let Some(join) = self.rows[usize::from(key.shadow)].remove(&key.id) else { return };
        self.journal.left(join.group());
        if join.row.stored {
            self.gone.push((join.group(), key.clone()));
        }
    }

    /// Removes what waits in a window that has closed, and its rows.
    pub(crate) fn close(&mut self, group: Group, waiting: &[JoinKey]) {
        for key in waiting {
            let table = &mut self.rows[usize::from(key.shadow)];
            if let Some((id, join)) = table.remove_entry(&key.id)
                && join.group() != group
            {
                table.insert(id, join);
            }
        }
        self.journal.close(group);
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What waits for this prediction.
    pub(crate) fn pending(&self, id: &str) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// What waits for this prediction; it waits no longer.
    pub(crate) fn take_pending(&mut self, id: &str) -> Option<Pending> {
        let (id, pending) = self.pending.remove_entry(id)?;
        if pending.row.stored {
            self.removed.push(rows::pending(&id));
        }
        self.expiry.remove(&(pending.expires, id));
        Some(pending)
    }

    /// What waits under this id, to be changed; it is given up at `expires` at the earliest.
    pub(crate) fn pending_mut(&mut self, id: &str, expires: EventTime, tally: &mut Tally) -> &mut Pending {
        let id: Arc<str> = self.pending.get_key_value(id).map_or_else(|| id.into(), |(id, _)| Arc::clone(id));
        if !self.pending.contains_key(&id) && self.pending.len() >= self.limit {
            let oldest = self.expiry.first().map(|(_, id)| Arc::clone(id));
            let given_up = oldest.and_then(|id| self.take_pending(&id));
            tally.unknown += u64::from(given_up.is_some_and(|pending| pending.has_labels()));
        }
        let pending = self.pending.entry(Arc::clone(&id)).or_default();
        if !pending.row.dirty {
            self.dirty_pending.push(Arc::clone(&id));
        }
        pending.row.dirty = true;
        if expires > pending.expires || pending.expires == EventTime::default() {
            self.expiry.remove(&(pending.expires, Arc::clone(&id)));
            pending.expires = expires;
            self.expiry.insert((expires, id));
        }
        pending
    }

    /// Gives up what has waited until `now`; returns how many labels and how many outputs.
    pub(crate) fn expire(&mut self, now: EventTime) -> (u64, u64) {
        let (mut labels, mut outputs) = (0, 0);
        while let Some((expires, id)) = self.expiry.first()
            && *expires <= now
        {
            let id = Arc::clone(id);
            if let Some(pending) = self.take_pending(&id) {
                labels += u64::from(pending.has_labels());
                outputs += u64::from(!pending.outputs.is_empty() || !pending.classes.is_empty());
            }
        }
        (labels, outputs)
    }

    /// Halves the sample until the bound holds.
    fn make_room(&mut self, tally: &mut Tally) {
        while self.len() > self.limit && self.keep > 0 {
            self.keep /= 2;
            let (salt, keep) = (self.salt, self.keep);
            let out = |id: &Arc<str>| salt.hash(id.as_bytes()) > keep;
            for shadow in [false, true] {
                let gone: Vec<Arc<str>> = self.rows[usize::from(shadow)].keys().filter(|id| out(id)).cloned().collect();
                tally.sampled_out += gone.len() as u64;
                for id in gone {
                    self.remove(&JoinKey { id, shadow });
                }
            }
        }
    }

    /// Doubles the sample when there is plenty of room. Called when windows close.
    pub(crate) fn relax(&mut self) {
        if self.keep < u64::MAX && self.len() < self.limit / 4 {
            self.keep = self.keep.saturating_mul(2).saturating_add(1);
        }
    }

    /// Writes what changed since the last call.
    pub(crate) fn store(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        for key in self.removed.drain(..) {
            to.delete(&key);
        }
        self.store_predictions(to)?;
        for id in self.dirty_pending.drain(..) {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if std::mem::take(&mut pending.row.dirty) {
                pending.row.stored = true;
                to.put(&rows::pending(&id), rows::encode(pending)?);
            }
        }
        Ok(())
    }

    /// Writes the predictions that changed into the rows of their windows.
    fn store_predictions(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        let Self { rows, journal, dirty, gone, .. } = self;
        journal.forget(to);
        for (group, JoinKey { id, shadow }) in gone.drain(..) {
            journal.append(group, &id, shadow, None, to)?;
        }
        for JoinKey { id, shadow } in dirty.drain(..) {
            let Some(join) = rows[usize::from(shadow)].get_mut(&id) else { continue };
            if std::mem::take(&mut join.row.dirty) {
                join.row.stored = true;
                journal.append(join.group(), &id, shadow, Some(join), to)?;
            }
        }
        for group in journal.finish(to) {
            journal.clear(group, to);
            for (table, shadow) in rows.iter().zip([false, true]) {
                for join in table.values().filter(|join| join.group() == group) {
                    journal.append(group, &join.id, shadow, Some(join), to)?;
                }
            }
        }
        journal.finish(to);
        Ok(())
    }

    /// Puts stored predictions back and returns their keys.
    pub(crate) fn restore(&mut self, from: &mut dyn Rows) -> Result<Vec<JoinKey>, FoldError> {
        let mut keys = Vec::new();
        for (key, mut join) in self.journal.restore(from)? {
            join.id = Arc::clone(&key.id);
            join.row.stored = true;
            self.rows[usize::from(key.shadow)].insert(Arc::clone(&key.id), join);
            keys.push(key);
        }
        // Format 2 had a row for each: they are written into chunks with the next commit.
        for (row, value) in rows::scan(from, Key::new(Table::Join))? {
            let mut parts = rows::Parts::of(&row);
            let shadow = parts.byte()? != 0;
            let key = JoinKey { id: parts.text()?.into(), shadow };
            let mut join: Join = rows::decode(&value)?;
            join.id = Arc::clone(&key.id);
            join.row.dirty = true;
            self.journal.joined(join.group());
            self.dirty.push(key.clone());
            self.rows[usize::from(shadow)].insert(Arc::clone(&key.id), join);
            from.delete(&row);
            keys.push(key);
        }
        Ok(keys)
    }

    /// Puts a stored pending row back.
    pub(crate) fn restore_pending(&mut self, key: &[u8], value: &Bytes) -> Result<(), FoldError> {
        let id: Arc<str> = rows::Parts::of(key).text()?.into();
        let mut pending: Pending = rows::decode(value)?;
        pending.row.stored = true;
        self.expiry.insert((pending.expires, Arc::clone(&id)));
        self.pending.insert(id, pending);
        Ok(())
    }
}
