//! A stage: membership in a group, and one task for each assigned partition.
//!
//! Invariant: at most one thread of this process works on a partition. A task that does not end in time keeps its
//! partition until its thread has ended. The group may still reassign the partition, because the next owner fences
//! the task on the log.

mod manager;
mod preflight;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::manager::Manager;
pub use self::preflight::TopologyError;
use crate::{
    clock::{Clock, SystemClock},
    fold::FoldFactory,
    local::lock,
    log::{Log, LogError},
    store::Stores,
    task::{TaskOptions, TaskState, TaskStatus},
};

/// Options of a stage.
#[derive(Clone)]
pub struct StageOptions {
    /// Options of its tasks.
    pub task: TaskOptions,
    /// Longest time for the last commits when partitions are revoked. It must be below the group's rebalance timeout.
    pub drain_within: Duration,
    /// The clock of the stage and its tasks.
    pub clock: Arc<dyn Clock>,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            task: TaskOptions::default(),
            drain_within: Duration::from_secs(5),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A stage could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topics do not match the stage's requirements.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The log could not be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No thread could be started.
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
}

/// The tasks did not end in time. The next owner repeats their uncommitted work.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: did not stop in time; the next owner will repeat uncommitted work")]
pub struct StopError {
    /// The stage that did not stop.
    pub stage: &'static str,
}

/// The health of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageHealth {
    /// The stage's tasks, by partition.
    pub tasks: BTreeMap<i32, TaskStatus>,
    /// The error of the stage's group membership.
    pub error: Option<String>,
    /// Whether the group has assigned partitions to it at least once since it joined.
    pub assigned: bool,
}

impl StageHealth {
    /// Whether every task of this stage is running.
    pub fn is_ready(&self) -> bool {
        let works = |task: &TaskStatus| task.state == TaskState::Running && task.stuck_at.is_none();
        self.assigned && self.error.is_none() && self.tasks.values().all(works)
    }

    /// The first error that needs an operator: that of a failed task, as `partition: error`.
    pub fn failure(&self) -> Option<String> {
        let failed = self.tasks.values().find(|task| task.state == TaskState::Failed)?;
        let at = failed.stuck_at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
        Some(format!("partition {}{at}: {}", failed.partition, failed.error.as_deref().unwrap_or("no reason given")))
    }

    /// The error of the first task that has one, with its position.
    pub fn trouble(&self) -> Option<String> {
        let works = |task: &&TaskStatus| task.state == TaskState::Running && task.stuck_at.is_none();
        let task = self.tasks.values().find(|task| !works(task) && task.error.is_some())?;
        let at = task.stuck_at.as_ref().map_or_else(String::new, |at| format!(" makes no progress at {at}"));
        Some(format!("partition {}{at}: {}", task.partition, task.error.as_deref().unwrap_or_default()))
    }
}

/// Entry point for starting stages.
pub struct Stage;

impl Stage {
    /// Checks the topics, joins the group and runs one task for each assigned partition.
    pub fn start(
        log: Arc<dyn Log>,
        stores: Arc<dyn Stores>,
        factory: Arc<dyn FoldFactory>,
        options: StageOptions,
    ) -> Result<StageHandle, StartError> {
        preflight::check(log.as_ref(), factory.as_ref(), &options.task)?;
        let stage = factory.stage();
        let membership = log.join(stage, factory.inputs())?;
        let health = Arc::new(Mutex::new(StageHealth::default()));
        let (stop, stopped) = bounded(1);
        let (end, ended) = bounded::<()>(0);
        let mut manager = Manager::new(log, stores, factory, options, Arc::clone(&health));
        let thread = Builder::new().name(format!("{stage}-stage")).spawn(move || {
            // The channel disconnects when the thread ends, however it ends.
            let _end = end;
            manager.run(membership, &stopped);
        })?;
        Ok(StageHandle { stage, health, stop, ended, thread: Some(thread) })
    }
}

/// A running stage. Dropping it asks it to stop and does not wait.
pub struct StageHandle {
    stage: &'static str,
    health: Arc<Mutex<StageHealth>>,
    stop: Sender<()>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl StageHandle {
    /// The stage's name.
    pub fn stage(&self) -> &'static str {
        self.stage
    }

    /// The health of the stage, updated continuously.
    pub fn health(&self) -> StageHealth {
        lock(&self.health).clone()
    }

    /// A function that returns the health of the stage, for `/readyz`.
    pub fn watch(&self) -> impl Fn() -> StageHealth + Clone + Send + Sync + 'static {
        let health = Arc::clone(&self.health);
        move || lock(&health).clone()
    }

    /// Asks the stage to stop: its tasks make their last commits, then it leaves the group.
    pub fn ask_to_stop(&self) {
        // A full channel already contains the request, and a closed one belongs to a stage that has ended.
        let _ = self.stop.try_send(());
    }

    /// Stops the stage and waits for it.
    pub fn stop(mut self, deadline: Duration) -> Result<(), StopError> {
        use crossbeam_channel::RecvTimeoutError::Disconnected;
        self.ask_to_stop();
        if self.ended.recv_timeout(deadline) != Err(Disconnected) {
            return Err(StopError { stage: self.stage });
        }
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        joined.map_err(|_| StopError { stage: self.stage })
    }
}

impl Drop for StageHandle {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}
