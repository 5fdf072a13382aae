//! Names of what the fold keeps: windows, their groups of rows, and the predictions that wait in them.

use std::sync::Arc;

use serin_schemas::{
    ids::{EventTime, Generation},
    records::Arm,
};

/// All arms, in the order in which they are kept and written.
pub(crate) const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];

/// Place of an arm in [`ARMS`].
pub(crate) fn place_of(arm: Arm) -> usize {
    match arm {
        Arm::Stable => 0,
        Arm::Control => 1,
        Arm::Canary => 2,
        Arm::Shadow => 3,
    }
}

/// Names a window of a rollout. Ordered by stream, so that the windows due next stand first in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowKey {
    /// Index in [`CompiledSpec::streams`](crate::compiled::CompiledSpec::streams).
    pub(crate) stream: usize,
    pub(crate) end: EventTime,
    pub(crate) generation: Generation,
}

/// A window of a rollout: the rows of its predictions come and go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) rollout: u32,
    pub(crate) end: EventTime,
    pub(crate) generation: Generation,
}

/// Names a prediction that waits. The live answer and its mirror share the request id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JoinKey {
    pub(crate) id: Arc<str>,
    pub(crate) shadow: bool,
}
