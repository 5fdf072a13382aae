//! How far the folds of this process have planned, for clients that must know whether a verdict has been acted upon.
//!
//! The API's view is fed by topics, and a verdict that has no effect does not appear on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use serin_schemas::ids::{EventTime, Generation, ModelName};

/// How far one model has been planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Event time of the newest verdict that was acted upon, in microseconds; `None` before the first verdict.
    pub planned_through: Option<EventTime>,
    /// The generation after that verdict. It may not be committed yet; routers use it once it is.
    pub generation: Generation,
}

/// The progress of every model whose partition this process owns or has owned.
#[derive(Clone, Debug, Default)]
pub struct ProgressBoard(Arc<Mutex<BTreeMap<ModelName, Progress>>>);

impl ProgressBoard {
    /// Posts the progress of a model.
    pub(crate) fn post(&self, model: &ModelName, progress: Progress) {
        // A map of plain values is consistent even if a thread panicked while it held the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(model.clone(), progress);
    }

    /// The progress of a model.
    pub fn of(&self, model: &ModelName) -> Option<Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied()
    }
}
