//! Routing tables of the data plane: how they are compiled, how they split calls, and the latest ones on disk.

pub(crate) mod disk;
mod fleet;
pub(crate) mod measured;
pub(crate) mod route;
pub(crate) mod split;
pub(crate) mod table;
pub(crate) mod undecided;
