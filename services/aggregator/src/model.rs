//! The state of a model.

use serde::{Deserialize, Serialize};
use serin_schemas::ids::Generation;

/// The state of a model. Its stored form is that of the model row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Model {
    /// Newest generation seen.
    pub(crate) generation: Generation,
    /// Number of its active rollout.
    pub(crate) active: Option<u32>,
    #[serde(skip)]
    pub(crate) dirty: bool,
}
