//! Where a process meets the world: each step that something can happen to, and what can happen.

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
    /// R2, R5: the bounds or the partitions of a topic are asked for.
    Ask,
    /// R3, R5: reading begins at a place.
    Assign,
    /// R3, and all reading: records are fetched.
    Fetch,
    /// S1: the transaction is opened.
    Begin,
    /// S2: records of one partition are written.
    Produce,
    /// S3: the positions of the group are written.
    Positions,
    /// S4: the transaction is committed.
    Commit,
    /// The transaction is aborted after an error.
    Abort,
    /// S5, and R3: rows are written to the store.
    WriteStore,
    /// A plain record is written.
    Write,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It works.
    #[default]
    Works,
    /// The request gets lost; the process waits in vain.
    Lost,
    /// It is done, and the answer gets lost.
    ReplyLost,
    /// The request arrives twice, and the answers too.
    Doubled,
    /// The process waits in vain; the request arrives after this many others.
    Late(u32),
    /// The other side says no: a leader has moved, the generation is stale, the disk is full.
    Refused,
    /// The process dies before it.
    Dies,
    /// The process dies right after it.
    DiesAfter,
}

/// Decides what happens. It may let others go first: what the caller meets then is what they left behind.
pub trait World: Send + Sync {
    /// What happens to this step of this process.
    fn at(&self, process: &str, step: Step) -> Fate;
}

/// Everything works.
pub(super) struct Peace;

impl World for Peace {
    fn at(&self, _: &str, _: Step) -> Fate {
        Fate::Works
    }
}

/// A process, as the log and its disk see it. Clones are the same process.
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

    /// A process to which nothing happens.
    pub(super) fn undisturbed() -> Self {
        Self::new("", Arc::new(Peace))
    }

    /// What happens at `step`. From its death on, a process does nothing.
    pub(super) fn at(&self, step: Step) -> Fate {
        if self.is_dead() {
            return Fate::Dies;
        }
        let fate = self.world.at(&self.name, step);
        match fate {
            // It may have been killed while others went first.
            _ if self.is_dead() => Fate::Dies,
            Fate::Dies | Fate::DiesAfter => {
                self.kill();
                fate
            }
            fate => fate,
        }
    }

    /// Whether it is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

impl Fate {
    /// Whether the step is done.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Works | Self::ReplyLost | Self::Doubled | Self::DiesAfter)
    }

    /// Whether the process hears that it is done.
    pub(super) fn is_heard(self) -> bool {
        matches!(self, Self::Works | Self::Doubled)
    }

    /// Why the process does not hear that it is done.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Dies | Self::DiesAfter => "the process is dead",
            _ => "no answer in time",
        }
    }
}
