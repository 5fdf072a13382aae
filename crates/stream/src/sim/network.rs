//! The steps of a process that can fail, and what can happen to them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A step of a task: R0 to R5 while it opens, S1 to S5 while it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// R0: the store is opened.
    OpenStore,
    /// R1: the transactional id is taken over.
    TakeOver,
    /// R2: the local checkpoint is read.
    ReadStore,
    /// R2, R5: the bounds or the partitions of a topic are requested.
    Ask,
    /// R3, R5: reading starts at a position.
    Assign,
    /// R3, and all reading: records are fetched.
    Fetch,
    /// S1: the transaction is opened.
    Begin,
    /// S2: records are written to one partition.
    Produce,
    /// S3: the positions of the group are written.
    Positions,
    /// S4: the transaction is committed.
    Commit,
    /// The transaction is aborted after an error.
    Abort,
    /// S5, and R3: rows are written to the store.
    WriteStore,
    /// A record is written without a transaction.
    Write,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// The step succeeds.
    #[default]
    Works,
    /// The request is lost, and the process times out.
    Lost,
    /// The step succeeds, but the response is lost.
    ReplyLost,
    /// The request arrives twice.
    Doubled,
    /// The process times out, and the request arrives after this many others.
    Late(u32),
    /// The request is refused: a leader has moved, the generation is stale, the disk is full.
    Refused,
    /// The process dies before the step.
    Dies,
    /// The process dies right after the step.
    DiesAfter,
}

/// Decides what happens to each step. It may run other processes first; the caller then sees the results of their
/// work.
pub trait World: Send + Sync {
    /// What happens to this step of this process.
    fn at(&self, process: &str, step: Step) -> Fate;
}

/// A world without faults.
pub(super) struct NoFaults;

impl World for NoFaults {
    fn at(&self, _: &str, _: Step) -> Fate {
        Fate::Works
    }
}

/// A process as seen by the log and its disk. Clones represent the same process.
#[derive(Clone)]
pub(crate) struct Process {
    name: Arc<str>,
    world: Arc<dyn World>,
    dead: Arc<AtomicBool>,
}

impl Process {
    pub(crate) fn new(name: &str, world: Arc<dyn World>) -> Self {
        Self { name: name.into(), world, dead: Arc::default() }
    }

    /// Creates a process without faults.
    pub(super) fn undisturbed() -> Self {
        Self::new("", Arc::new(NoFaults))
    }

    /// Decides what happens at `step`. A dead process does nothing.
    pub(super) fn at(&self, step: Step) -> Fate {
        if self.is_dead() {
            return Fate::Dies;
        }
        let fate = self.world.at(&self.name, step);
        match fate {
            // The process may have been killed while others ran.
            _ if self.is_dead() => Fate::Dies,
            Fate::Dies | Fate::DiesAfter => {
                self.kill();
                fate
            }
            fate => fate,
        }
    }

    /// Whether the process is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Kills the process.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

impl Fate {
    /// Whether the step takes effect.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Works | Self::ReplyLost | Self::Doubled | Self::DiesAfter)
    }

    /// Whether the process learns that the step took effect.
    pub(super) fn is_heard(self) -> bool {
        matches!(self, Self::Works | Self::Doubled)
    }

    /// Why the process does not learn that the step took effect.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Dies | Self::DiesAfter => "the process is dead",
            _ => "no answer in time",
        }
    }
}
