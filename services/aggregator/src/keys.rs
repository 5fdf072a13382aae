//! Keys of the fold's state: windows, their groups of rows, and waiting predictions.

use std::sync::Arc;

use serin_schemas::{
    ids::{EventTime, Generation},
    records::Arm,
};

/// All arms, in the order in which they are stored and written.
pub(crate) const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];

/// Index of an arm in [`ARMS`].
pub(crate) fn place_of(arm: Arm) -> usize {
    match arm {
        Arm::Stable => 0,
        Arm::Control => 1,
        Arm::Canary => 2,
        Arm::Shadow => 3,
    }
}

/// The key of a window of a rollout. Keys sort by stream, so the windows due next come first in each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowKey {
    /// Index in [`CompiledSpec::streams`](crate::compiled::CompiledSpec::streams).
    pub(crate) stream: usize,
    pub(crate) end: EventTime,
    pub(crate) generation: Generation,
}

/// A window of a rollout. The rows of its predictions are written and removed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) rollout: u32,
    pub(crate) end: EventTime,
    pub(crate) generation: Generation,
}

/// The key of a waiting prediction. The live answer and its mirror share the request id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JoinKey {
    pub(crate) id: Arc<str>,
    pub(crate) shadow: bool,
}
