//! A truth that came for a prediction, how it meets what is there, and who may have sent it.

use serde::{Deserialize, Serialize};

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
    pub(crate) dirty: bool,
    /// Has a row.
    pub(crate) stored: bool,
}

/// How a label met what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    First,
    Revised,
    /// The same again.
    Repeated,
    /// Another value under the same revision: which one is right, nobody can know, and the first one stays.
    Contradicts,
    Older,
}

/// Puts a label in place unless one of the same or a later revision is there.
pub(crate) fn meet<T: PartialEq>(there: &mut Option<Label<T>>, label: Label<T>) -> Met {
    let met = match there {
        None => Met::First,
        Some(old) if label.revision > old.revision => Met::Revised,
        Some(old) if label.revision == old.revision && label.value == old.value => return Met::Repeated,
        Some(old) if label.revision == old.revision => return Met::Contradicts,
        Some(_) => return Met::Older,
    };
    *there = Some(label);
    met
}

/// Stands between the name of a label that waits and the models that its writer may judge: which model the prediction is of
/// shows only when it comes. Labels of writers with other rights wait under other names, so none takes another's place.
pub(crate) const BY: &str = "\0by\0";

/// The name of a label that waits, and the models that its writer may judge; `None`: every model.
pub(crate) fn rights(name: &str) -> (&str, Option<&str>) {
    name.split_once(BY).map_or((name, None), |(bare, models)| (bare, Some(models)))
}
