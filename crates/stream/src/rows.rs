//! The rows of a fold: the committed rows from the store, overlaid with the changes since the last commit.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    fold::{FoldError, Rows},
    store::{Changes, Store},
};

/// First byte of the keys that belong to the task itself. A fold's keys never start with it.
pub const RESERVED: u8 = 0;

/// The rows of a task with uncommitted changes.
pub struct Overlay {
    store: Box<dyn Store>,
    dirty: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    misused: Option<Bytes>,
}

impl Overlay {
    /// Creates an overlay of `store` without changes.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store, dirty: BTreeMap::new(), bytes: 0, misused: None }
    }

    /// The committed rows.
    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }

    /// Bytes of keys and values that the next commit writes.
    pub fn dirty_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing has changed since the last commit.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// The changes since the last commit, in key order. Fails if the fold used a reserved key.
    pub fn changes(&self) -> Result<Changes, FoldError> {
        match &self.misused {
            Some(key) => Err(FoldError::State(format!("row key {key:?} starts with the reserved byte {RESERVED}"))),
            None => Ok(self.dirty.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        }
    }

    /// Clears the changes after they were written to the store.
    pub fn committed(&mut self) {
        self.dirty.clear();
        self.bytes = 0;
    }

    fn set(&mut self, key: &[u8], value: Option<Bytes>) {
        if key.first() == Some(&RESERVED) {
            self.misused = Some(Bytes::copy_from_slice(key));
            return;
        }
        let size = |value: &Option<Bytes>| key.len() + value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        if let Some(old) = self.dirty.insert(Bytes::copy_from_slice(key), value) {
            self.bytes -= size(&old);
        }
    }
}

impl Rows for Overlay {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, FoldError> {
        match self.dirty.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.store.get(key)?),
        }
    }

    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), FoldError> {
        let dirty = self.dirty.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        let mut dirty = dirty.take_while(|(key, _)| key.starts_with(prefix)).peekable();
        let mut goes_on = true;
        self.store.visit(prefix, &mut |key, value| {
            // Changed rows that sort before this row.
            while goes_on && let Some((changed, value)) = dirty.next_if(|(changed, _)| **changed < key) {
                goes_on = value.as_ref().is_none_or(|value| row(changed.clone(), value.clone()));
            }
            let value = match dirty.next_if(|(changed, _)| **changed == key) {
                Some((_, change)) => change.clone(),
                None => Some(value).filter(|_| key.first() != Some(&RESERVED)),
            };
            goes_on = goes_on && value.is_none_or(|value| row(key, value));
            goes_on
        })?;
        let mut behind = dirty.filter_map(|(key, value)| Some((key, value.as_ref()?)));
        if goes_on {
            behind.all(|(key, value)| row(key.clone(), value.clone()));
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: Bytes) {
        self.set(key, Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        self.set(key, None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    proptest! {
        /// Rows behave like a map, wherever commits happen.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0_u8..4, "[ab]{1,3}", "[a-z]{0,4}"), 0..60)) {
            let mut rows = Overlay::new(Box::new(MemoryStore::default()));
            let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            for (step, key, value) in steps {
                match step {
                    0 | 1 => {
                        rows.put(key.as_bytes(), bytes(&value));
                        model.insert(bytes(&key), bytes(&value));
                    }
                    2 => {
                        rows.delete(key.as_bytes());
                        model.remove(key.as_bytes());
                    }
                    _ => {
                        let changes = rows.changes().unwrap();
                        rows.store().write(changes).unwrap();
                        rows.committed();
                        prop_assert_eq!(rows.dirty_bytes(), 0);
                    }
                }
                prop_assert_eq!(rows.get(key.as_bytes()).unwrap(), model.get(key.as_bytes()).cloned());
                for prefix in ["", "a", "ab", "b"] {
                    let expected: Vec<_> = model.clone().into_iter().filter(|(k, _)| k.starts_with(prefix.as_bytes())).collect();
                    prop_assert_eq!(rows.scan(prefix.as_bytes()).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn a_reserved_key_is_refused() {
        let mut rows = Overlay::new(Box::new(MemoryStore::default()));
        rows.put(b"\0mine", bytes("x"));
        assert!(rows.changes().unwrap_err().to_string().contains("reserved"));
    }
}
