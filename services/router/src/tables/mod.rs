//! Routing tables as the data plane uses them: what they are compiled from, how they split calls, and the last ones on disk.

pub(crate) mod disk;
mod fleet;
pub(crate) mod measured;
pub(crate) mod route;
pub(crate) mod split;
pub(crate) mod table;
pub(crate) mod undecided;
