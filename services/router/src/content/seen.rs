//! Names seen in answers and feedback, for operators that look for a value under another name.
//!
//! The names are untrusted, so their number and length are bounded.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Maximum number of names that are kept.
pub(super) const MOST: usize = 32;
/// Maximum length of a name in bytes.
const LONGEST: usize = 128;

/// The first names that were seen.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Mutex<BTreeSet<String>>,
    full: AtomicBool,
}

impl Names {
    /// Adds names.
    pub(crate) fn note<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names.into_iter().filter(|name| !name.is_empty() && name.len() <= LONGEST) {
            if known.len() >= MOST {
                self.full.store(true, Ordering::Relaxed);
                return;
            }
            if !known.contains(name) {
                known.insert(name.to_owned());
            }
        }
    }

    /// All names, sorted.
    pub(crate) fn all(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_are_kept() {
        let names = Names::default();
        names.note(["b", "a", "b", "", &"x".repeat(LONGEST + 1)]);
        assert_eq!(names.all(), ["a", "b"]);
        let more: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
        names.note(more.iter().map(String::as_str));
        names.note(["late"]);
        assert_eq!(names.all().len(), MOST);
        assert!(!names.all().contains(&"late".to_owned()));
    }
}
