//! One simulated machine with one process. It follows the group and steps its tasks like the stage's threads do, one
//! action at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Dice, Hook};
use crate::{
    clock::ManualClock,
    fold::FoldFactory,
    log::{Assignment, Log as _, Membership},
    metrics::TaskMetrics,
    sim::{Process, SimDisk, SimLog, SimStores},
    task::{Next, OpenTask, Pace, Retry, State, TaskError, TaskOptions, TaskParts, TaskState, Watch},
};

/// The program of a machine: creates the stages of a process that uses `log`.
pub type Program = Arc<dyn Fn(&SimLog) -> Vec<Arc<dyn FoldFactory>> + Send + Sync>;

pub(super) struct Host {
    pub(super) name: String,
    pub(super) disk: SimDisk,
    program: Program,
    options: TaskOptions,
    running: Option<Running>,
}

struct Running {
    process: Process,
    log: SimLog,
    stages: Vec<Stage>,
}

struct Stage {
    factory: Arc<dyn FoldFactory>,
    membership: Arc<dyn Membership>,
    tasks: BTreeMap<i32, Slot>,
}

/// One assigned partition.
struct Slot {
    parts: TaskParts,
    metrics: TaskMetrics,
    task: Option<OpenTask>,
    retry: Retry,
    state: State,
    /// When the task opens.
    due: Duration,
    committed: u64,
    failed: Option<TaskError>,
}

/// Opening a task is a single step here, so it is never asked to stop.
struct Unwatched;

impl Watch for Unwatched {
    fn entered(&self, _: TaskState) {}

    fn stopping(&self) -> bool {
        false
    }
}

impl Host {
    pub(super) fn new(name: &str, program: Program, options: TaskOptions) -> Self {
        Self { name: name.to_owned(), disk: SimDisk::new(), program, options, running: None }
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the process and returns its memberships, so that their sessions can time out. `ghosts` are the
    /// memberships of a previous process that died without the group knowing; the new process takes them over.
    pub(super) fn start(
        &mut self,
        log: &SimLog,
        hook: Hook,
        ghosts: Vec<Arc<dyn Membership>>,
    ) -> Vec<Arc<dyn Membership>> {
        let process = Process::new(&self.name, Arc::new(hook));
        let seen = log.of(process.clone());
        let mut stages = Vec::new();
        let mut ghosts = ghosts.into_iter();
        for factory in (self.program)(&seen) {
            let membership = if let Some(ghost) = ghosts.next() {
                log.resume(ghost.as_ref());
                ghost
            } else {
                // The stage retries joining until it succeeds; here it succeeds at once.
                Arc::from(log.join(factory.stage(), factory.inputs()).expect("the topics exist"))
            };
            stages.push(Stage { factory, membership, tasks: BTreeMap::new() });
        }
        let memberships = stages.iter().map(|stage| Arc::clone(&stage.membership)).collect();
        self.running = Some(Running { process, log: seen, stages });
        memberships
    }

    /// Kills the process. `dice` decide which unflushed batches reached the disk. The group does not know yet.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        if let Some(running) = self.running.take() {
            running.process.kill();
            self.disk.crash(|batches| dice.range(0..batches + 1));
        }
    }

    /// Stops the process gracefully: last commits, flush, leave.
    pub(super) fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        for stage in running.stages {
            for slot in stage.tasks.into_values() {
                slot.close();
            }
        }
        if running.process.is_dead() {
            self.disk.crash(|batches| batches / 2);
        }
    }

    /// Runs one available action.
    pub(super) fn turn(&mut self, clock: &Arc<ManualClock>, dice: &mut dyn FnMut(usize) -> usize) {
        let Some(running) = &mut self.running else { return };
        let stores = Arc::new(SimStores::of(&self.disk, running.process.clone()));
        for stage in &mut running.stages {
            while let Ok(Some(news)) = stage.membership.poll(Duration::ZERO) {
                let slot = |partition| {
                    let parts = TaskParts {
                        partition,
                        log: Arc::new(running.log.clone()),
                        stores: Arc::clone(&stores) as _,
                        factory: Arc::clone(&stage.factory),
                        membership: Some(Arc::clone(&stage.membership)),
                        clock: Arc::clone(clock) as _,
                        options: self.options.clone(),
                        turns: Arc::default(),
                    };
                    (partition, Slot::new(parts))
                };
                match news {
                    Assignment::Assigned(partitions) => stage.tasks.extend(partitions.into_iter().map(slot)),
                    Assignment::Revoked(partitions) => {
                        let given_up = partitions.iter().filter_map(|partition| stage.tasks.remove(partition));
                        given_up.for_each(Slot::close);
                        stage.membership.release(&partitions);
                    }
                    Assignment::Lost(partitions) => {
                        stage.tasks.retain(|partition, _| !partitions.contains(partition));
                        stage.membership.release(&partitions);
                    }
                }
            }
        }
        let slots: Vec<&mut Slot> = running.stages.iter_mut().flat_map(|stage| stage.tasks.values_mut()).collect();
        if !slots.is_empty() {
            let which = dice(slots.len());
            if let Some(slot) = slots.into_iter().nth(which) {
                slot.step();
            }
        }
    }

    /// Whether the process died during an action.
    pub(super) fn is_dead(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.process.is_dead())
    }

    /// Errors that need an operator, with stage and partition.
    pub(super) fn failures(&self) -> Vec<String> {
        let stages = self.running.iter().flat_map(|running| &running.stages);
        let failed =
            stages.flat_map(|stage| stage.tasks.iter().map(move |(partition, slot)| (stage, *partition, slot)));
        failed
            .filter_map(|(stage, partition, slot)| {
                Some(format!("{}-{partition}: {}", stage.factory.stage(), slot.failed.as_ref()?))
            })
            .collect()
    }
}

impl Slot {
    fn new(parts: TaskParts) -> Self {
        Self {
            metrics: TaskMetrics::new(parts.factory.stage(), parts.partition),
            task: None,
            retry: Retry::new(&parts.options),
            state: State::Kept,
            due: parts.clock.elapsed(),
            committed: 0,
            failed: None,
            parts,
        }
    }

    /// Opens the task when it is due, or runs one step of it.
    fn step(&mut self) {
        let now = self.parts.clock.elapsed();
        if self.failed.is_some() || now < self.due {
            return;
        }
        let result = match &mut self.task {
            Some(task) => task.step(Pace::AtMost(Duration::ZERO), &self.metrics).map(drop),
            None => self.open(),
        };
        match result {
            Ok(()) => {
                if self.task.as_ref().is_some_and(|task| task.commit_seq() > self.committed) {
                    self.retry.reset();
                }
            }
            Err(error) => {
                self.task = None;
                match self.retry.after(error, self.parts.clock.elapsed()) {
                    Next::Fail(error) => self.failed = Some(error),
                    Next::Open(pause, state) => (self.due, self.state) = (self.parts.clock.elapsed() + pause, state),
                }
            }
        }
    }

    fn open(&mut self) -> Result<(), TaskError> {
        let task = OpenTask::open(&self.parts, &self.metrics, &Unwatched, self.state, self.retry.failures())?;
        self.committed = task.commit_seq();
        self.task = Some(task);
        Ok(())
    }

    fn close(self) {
        if let Some(task) = self.task {
            // Errors are ignored: the next owner continues from the log.
            let _ = task.close(&self.metrics);
        }
    }
}
