//! The lifecycle state of a task, and why its fold panicked.

use std::any::Any;

/// The lifecycle state of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskState {
    /// The task takes over from the previous owner.
    #[default]
    Opening,
    /// The task reads the changelog.
    Restoring,
    /// The task reads its inputs.
    Running,
    /// The task makes its last commit.
    Draining,
    /// The task has ended as requested.
    Closed,
    /// The task waits before it reopens.
    Waiting,
    /// The task has ended with an error that needs an operator.
    Failed,
}

impl TaskState {
    /// The number of the state in metrics.
    pub(super) fn code(self) -> u64 {
        match self {
            Self::Opening => 1,
            Self::Restoring => 2,
            Self::Running => 3,
            Self::Draining => 4,
            Self::Closed => 5,
            Self::Waiting => 6,
            Self::Failed => 7,
        }
    }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
