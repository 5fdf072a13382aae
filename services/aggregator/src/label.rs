//! A label, how it updates an existing one, and which models its writer may judge.

use serde::{Deserialize, Serialize};

/// A label of a prediction: a number, or the hash of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Label<T = f64> {
    pub(crate) revision: i64,
    pub(crate) value: T,
}

/// The state of the row of a value in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowState {
    /// Whether the value has changed since it was last written.
    pub(crate) dirty: bool,
    /// Whether the value has a row.
    pub(crate) stored: bool,
}

/// The result of applying a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelUpdate {
    First,
    Revised,
    /// The same value again.
    Repeated,
    /// Another value under the same revision. There is no way to know which one is right, so the first one stays.
    Contradicts,
    Older,
}

/// Stores a label unless one of the same or a later revision exists.
pub(crate) fn apply_label<T: PartialEq>(there: &mut Option<Label<T>>, label: Label<T>) -> LabelUpdate {
    let update = match there {
        None => LabelUpdate::First,
        Some(old) if label.revision > old.revision => LabelUpdate::Revised,
        Some(old) if label.revision == old.revision && label.value == old.value => return LabelUpdate::Repeated,
        Some(old) if label.revision == old.revision => return LabelUpdate::Contradicts,
        Some(_) => return LabelUpdate::Older,
    };
    *there = Some(label);
    update
}

/// Separates the name of a waiting label from the models that its writer may judge. The model is known only when the
/// prediction arrives. Labels of writers with different rights wait under different names, so none replaces another.
pub(crate) const BY: &str = "\0by\0";

/// Splits a waiting label into its name and the models that its writer may judge. `None`: every model.
pub(crate) fn rights(name: &str) -> (&str, Option<&str>) {
    name.split_once(BY).map_or((name, None), |(bare, models)| (bare, Some(models)))
}
