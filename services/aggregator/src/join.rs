//! A prediction that waits for labels, outputs, or the other answer to a mirrored call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serin_schemas::ids::{EventTime, Generation};

use crate::{
    keys::{Group, JoinKey},
    label::{Label, RowState},
    memory,
    pairing::Half,
};

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
    /// Bit `i`: the value of `CompiledSpec::fillable[i]` is missing.
    pub(crate) missing: u64,
    /// Outputs that label metrics need; NaN where absent.
    pub(crate) outputs: Box<[f64]>,
    /// Hashes of the categorical outputs that label metrics need.
    pub(crate) classes: Box<[Option<u64>]>,
    /// Labels that came.
    pub(crate) labels: Box<[Option<Label>]>,
    /// Labels that name classes.
    pub(crate) truths: Box<[Option<Label<u64>>]>,
    /// What it says about `CompiledSpec::paired`.
    pub(crate) halves: Box<[Option<Half>]>,
    /// Its place among those of its window.
    #[serde(skip)]
    pub(crate) place: usize,
    #[serde(skip)]
    pub(crate) row: RowState,
}

impl Join {
    /// The window whose rows it is in.
    pub(crate) fn group(&self) -> Group {
        Group { rollout: self.rollout, end: self.end, generation: self.generation }
    }

    /// Bytes of memory that it takes, with its share of the tables.
    pub(crate) fn cost(&self) -> usize {
        size_of::<Self>()
            + memory::shared_text(&self.id)
            + memory::TABLE_ENTRY
            + LISTED
            + size_of_val(&*self.numbers)
            + size_of_val(&*self.outputs)
            + size_of_val(&*self.classes)
            + size_of_val(&*self.labels)
            + size_of_val(&*self.truths)
            + size_of_val(&*self.halves)
    }
}

/// The share of one key in the list of its window, which grows by doubling.
const LISTED: usize = size_of::<JoinKey>() * 3 / 2;
