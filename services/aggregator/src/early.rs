//! Feedback and outputs that arrived before their prediction, bounded in bytes.
//!
//! Most of them belong to calls that no rollout tracks. When there is no room, the entry that would expire first is
//! dropped. Only values that a rollout reads are kept. The bound depends only on the entries, so a restart changes
//! nothing.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _};
use serde::{Deserialize, Serialize};
use serin_schemas::ids::EventTime;
use serin_stream::fold::{FoldError, Rows};

use crate::{
    label::{Label, RowState, rights},
    memory::{self, Room},
    metrics::Tally,
    rows::{self, Key, Table},
};

/// Values by name, sorted by name.
pub(crate) type Named<T> = Vec<(Box<str>, T)>;

/// Sets a value without reserving spare capacity.
pub(crate) fn set<T>(values: &mut Named<T>, name: &str, value: T) {
    match values.binary_search_by(|(known, _)| (**known).cmp(name)) {
        Ok(at) => values[at].1 = value,
        Err(at) => {
            values.reserve_exact(1);
            values.insert(at, (name.into(), value));
        }
    }
}

/// Looks up the value of a name.
pub(crate) fn find<'a, T>(values: &'a Named<T>, name: &str) -> Option<&'a T> {
    let at = values.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
    Some(&values[at].1)
}

/// Values that arrived before their prediction. The stored form is that of the pending row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// When the entry expires.
    expires: EventTime,
    /// Numeric labels.
    pub(crate) labels: Named<Label>,
    /// Labels whose value is a class.
    pub(crate) truths: Named<Label<u64>>,
    /// Numeric outputs of a model server's own event.
    pub(crate) outputs: Named<f64>,
    /// Classes of a model server's own event.
    pub(crate) classes: Named<String>,
    #[serde(skip)]
    row: RowState,
}

impl Pending {
    /// Whether labels are waiting.
    pub(crate) fn has_labels(&self) -> bool {
        !self.labels.is_empty() || !self.truths.is_empty()
    }

    /// Whether outputs of a model server's own event are waiting.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty() || !self.classes.is_empty()
    }

    /// Bytes of memory for this entry under an id, including its share of the tables.
    fn cost(&self, id: &str) -> usize {
        fn of<T>(values: &Named<T>) -> usize {
            values.iter().map(|(name, _)| name.len() + size_of::<(Box<str>, T)>()).sum()
        }
        let classes: usize = self.classes.iter().map(|(_, class)| class.len()).sum();
        size_of::<Self>()
            + memory::shared_text(id)
            + memory::TABLE_ENTRY
            + memory::ORDERED_ENTRY
            + of(&self.labels)
            + of(&self.truths)
            + of(&self.outputs)
            + of(&self.classes)
            + classes
    }
}

/// The names that active rollouts read.
pub(crate) trait ReadNames {
    /// Whether a numeric label, or the time of a label, is read.
    fn label(&self, name: &str) -> bool;
    /// Whether a label whose value is a class is read.
    fn truth(&self, name: &str) -> bool;
    /// Whether a numeric output is read.
    fn output(&self, name: &str) -> bool;
    /// Whether a categorical output is read.
    fn class(&self, name: &str) -> bool;
}

/// All values of a partition that arrived before their prediction.
#[derive(Debug)]
pub(crate) struct Early {
    waiting: HashMap<Arc<str>, Box<Pending>>,
    expiry: BTreeSet<(EventTime, Arc<str>)>,
    bytes: usize,
    room: Room,
    dirty: Vec<Arc<str>>,
    /// Keys of rows to remove.
    removed: Vec<Vec<u8>>,
    /// Approximate bytes of the rows that the next commit writes.
    unsaved: usize,
}

impl Early {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            waiting: HashMap::new(),
            expiry: BTreeSet::new(),
            bytes: 0,
            room,
            dirty: Vec::new(),
            removed: Vec::new(),
            unsaved: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Estimated bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn unsaved(&self) -> usize {
        self.unsaved
    }

    /// The values that wait for this prediction.
    pub(crate) fn get(&self, id: &str) -> Option<&Pending> {
        self.waiting.get(id).map(Box::as_ref)
    }

    /// Removes and returns the values that wait for this prediction.
    pub(crate) fn take(&mut self, id: &str) -> Option<Pending> {
        let (id, pending) = self.waiting.remove_entry(id)?;
        self.bytes -= pending.cost(&id);
        if pending.row.stored {
            let key = rows::pending(&id);
            self.unsaved += key.len();
            self.removed.push(key);
        }
        self.expiry.remove(&(pending.expires, id));
        Some(*pending)
    }

    /// Changes the values that wait under this id. They expire at `expires` at the earliest.
    pub(crate) fn wait<T>(
        &mut self,
        id: &str,
        expires: EventTime,
        tally: &mut Tally,
        change: impl FnOnce(&mut Pending) -> T,
    ) -> T {
        let id: Arc<str> = self.waiting.get_key_value(id).map_or_else(|| id.into(), |(id, _)| Arc::clone(id));
        let before = self.waiting.get(&id).map_or(0, |pending| pending.cost(&id));
        let pending = self.waiting.entry(Arc::clone(&id)).or_default();
        let changed = change(pending);
        self.bytes = self.bytes - before + pending.cost(&id);
        if !std::mem::replace(&mut pending.row.dirty, true) {
            self.unsaved += pending.cost(&id);
            self.dirty.push(Arc::clone(&id));
        }
        if expires > pending.expires || pending.expires == EventTime::default() {
            self.expiry.remove(&(pending.expires, Arc::clone(&id)));
            pending.expires = expires;
            self.expiry.insert((expires, id));
        }
        self.make_room(tally);
        self.shrink();
        changed
    }

    /// Drops the entries that would expire first until the bound holds.
    fn make_room(&mut self, tally: &mut Tally) {
        while self.room.is_short(self.bytes, self.waiting.len())
            && let Some((_, id)) = self.expiry.first()
        {
            let id = Arc::clone(id);
            tally.no_room += u64::from(self.take(&id).is_some_and(|pending| pending.has_labels()));
        }
    }

    /// Drops the entries that have expired by `now`. Returns the number of labels and of outputs.
    pub(crate) fn expire(&mut self, now: EventTime) -> (u64, u64) {
        let (mut labels, mut outputs) = (0, 0);
        while let Some((expires, id)) = self.expiry.first()
            && *expires <= now
        {
            let id = Arc::clone(id);
            if let Some(pending) = self.take(&id) {
                labels += u64::from(pending.has_labels());
                outputs += u64::from(pending.has_outputs());
            }
        }
        self.shrink();
        (labels, outputs)
    }

    /// Drops the entries that no rollout reads any more. Called when a rollout has ended.
    pub(crate) fn retain_read(&mut self, read: &dyn ReadNames, tally: &mut Tally) {
        let reads = |pending: &Pending| {
            pending.labels.iter().any(|(name, _)| read.label(rights(name).0))
                || pending.truths.iter().any(|(name, _)| read.truth(rights(name).0))
                || pending.outputs.iter().any(|(name, _)| read.output(name))
                || pending.classes.iter().any(|(name, _)| read.class(name))
        };
        let unread = self.expiry.iter().filter(|(_, id)| self.waiting.get(id).is_some_and(|pending| !reads(pending)));
        let unread: Vec<Arc<str>> = unread.map(|(_, id)| Arc::clone(id)).collect();
        for id in unread {
            tally.not_needed += u64::from(self.take(&id).is_some_and(|pending| pending.has_labels()));
        }
        self.shrink();
    }

    /// Frees unused memory of the table.
    fn shrink(&mut self) {
        memory::shrink(&mut self.waiting);
    }

    /// Writes what changed since the last call.
    pub(crate) fn store(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        self.unsaved = 0;
        for key in std::mem::take(&mut self.removed) {
            to.delete(&key);
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(pending) = self.waiting.get_mut(&id) else { continue };
            if std::mem::take(&mut pending.row.dirty) {
                pending.row.stored = true;
                to.put(&rows::pending(&id), rows::encode(&**pending)?);
            }
        }
        Ok(())
    }

    /// Restores stored rows, as far as there is room.
    pub(crate) fn restore(&mut self, from: &dyn Rows, tally: &mut Tally) -> Result<(), FoldError> {
        rows::each(from, Key::new(Table::Pending), |key, value| self.restore_row(&key, &value, tally))
    }

    fn restore_row(&mut self, key: &[u8], value: &Bytes, tally: &mut Tally) -> Result<(), FoldError> {
        let id: Arc<str> = rows::Parts::of(key).text()?.into();
        let mut pending: Box<Pending> = Box::new(rows::decode(value)?);
        pending.row.stored = true;
        self.bytes += pending.cost(&id);
        self.expiry.insert((pending.expires, Arc::clone(&id)));
        self.waiting.insert(id, pending);
        self.make_room(tally);
        Ok(())
    }
}
