//! A prediction that waits for labels, outputs, or the other answer to a mirrored call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serin_schemas::ids::{EventTime, Generation};

use crate::{
    keys::{Group, JoinKey},
    label::{Label, RowState},
    memory,
    pairing::PairSide,
};

/// A waiting prediction. Its stored form is the one in the rows of its window (see `journal.rs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// The request id of the prediction.
    #[serde(skip)]
    pub(crate) id: Arc<str>,
    /// Number of the rollout.
    pub(crate) rollout: u32,
    pub(crate) generation: Generation,
    /// Index of the arm.
    pub(crate) arm: u8,
    /// End of the window.
    pub(crate) end: EventTime,
    pub(crate) error: bool,
    pub(crate) invalid: bool,
    /// Whether its values are sketched. Otherwise it only waits for the other answer to a mirrored call.
    pub(crate) sketched: bool,
    /// Hash of the assigned unit, if units are assigned.
    pub(crate) unit: Option<u64>,
    /// Numbers of the segment values.
    pub(crate) numbers: Box<[u16]>,
    /// Bit `i` is set while the value of `CompiledSpec::fillable[i]` is missing.
    pub(crate) missing: u64,
    /// Outputs that label metrics read; NaN if absent.
    pub(crate) outputs: Box<[f64]>,
    /// Hashes of the categorical outputs that label metrics read.
    pub(crate) classes: Box<[Option<u64>]>,
    /// Labels that have arrived.
    pub(crate) labels: Box<[Option<Label>]>,
    /// Labels whose value is a class.
    pub(crate) truths: Box<[Option<Label<u64>>]>,
    /// Values for the metrics in `CompiledSpec::paired`.
    pub(crate) sides: Box<[Option<PairSide>]>,
    /// Index in the list of its window.
    #[serde(skip)]
    pub(crate) place: usize,
    #[serde(skip)]
    pub(crate) row: RowState,
}

impl Join {
    /// The window whose rows contain the prediction.
    pub(crate) fn group(&self) -> Group {
        Group { rollout: self.rollout, end: self.end, generation: self.generation }
    }

    /// Bytes of memory, including its share of the tables.
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
            + size_of_val(&*self.sides)
    }
}

/// The share of one key in the list of its window, which doubles when it grows.
const LISTED: usize = size_of::<JoinKey>() * 3 / 2;
