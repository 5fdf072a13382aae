//! The loop of a stage: applies the group's assignments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{StageHealth, StageOptions};
use crate::{
    fold::FoldFactory,
    local::lock,
    log::{Assignment, Log, LogError, Membership},
    store::Stores,
    task::{TaskHandle, TaskParts, TaskStatus},
};

/// How long the loop waits for a change of the assignment. It is the longest delay of a stop and of the published
/// health.
const POLL: Duration = Duration::from_millis(50);
/// Pause before rejoining after a lost membership.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

/// Runs the tasks of a stage.
pub(super) struct Manager {
    log: Arc<dyn Log>,
    stores: Arc<dyn Stores>,
    factory: Arc<dyn FoldFactory>,
    options: StageOptions,
    health: Arc<Mutex<StageHealth>>,
    tasks: BTreeMap<i32, TaskHandle>,
    /// Tasks that were asked to end and have not ended yet.
    ending: BTreeMap<i32, TaskHandle>,
    /// Assigned partitions whose previous task has not ended yet.
    waiting: BTreeSet<i32>,
    assigned: bool,
    turns: Arc<Mutex<()>>,
}

impl Manager {
    pub(super) fn new(
        log: Arc<dyn Log>,
        stores: Arc<dyn Stores>,
        factory: Arc<dyn FoldFactory>,
        options: StageOptions,
        health: Arc<Mutex<StageHealth>>,
    ) -> Self {
        Self {
            log,
            stores,
            factory,
            options,
            health,
            tasks: BTreeMap::new(),
            ending: BTreeMap::new(),
            waiting: BTreeSet::new(),
            assigned: false,
            turns: Arc::default(),
        }
    }

    /// Runs until asked to stop.
    pub(super) fn run(&mut self, membership: Box<dyn Membership>, stopped: &Receiver<()>) {
        let mut membership: Option<Arc<dyn Membership>> = Some(Arc::from(membership));
        while stopped.is_empty() {
            let result = match &membership {
                Some(member) => self.follow(member),
                None => self.join().map(|member| {
                    tracing::info!(stage = self.factory.stage(), "rejoined the group");
                    membership = Some(member);
                }),
            };
            if let Err(error) = &result {
                tracing::error!(stage = self.factory.stage(), %error, "group membership lost");
                self.give_up(&self.owned(), Duration::ZERO, TaskHandle::abandon);
                membership = None;
                // The previous member's assignment is no longer valid.
                self.assigned = false;
            }
            self.publish(result.as_ref().err());
            if result.is_err() && stopped.recv_timeout(REJOIN_PAUSE).is_ok() {
                break;
            }
        }
        self.give_up(&self.owned(), self.options.drain_within, TaskHandle::drain);
        self.publish(None);
    }

    fn join(&self) -> Result<Arc<dyn Membership>, LogError> {
        self.log.join(self.factory.stage(), self.factory.inputs()).map(Arc::from)
    }

    fn owned(&self) -> Vec<i32> {
        self.tasks.keys().chain(&self.waiting).copied().collect()
    }

    /// Handles the next change of the assignment.
    fn follow(&mut self, membership: &Arc<dyn Membership>) -> Result<(), LogError> {
        let news = membership.poll(POLL)?;
        if let Some(news) = &news {
            tracing::debug!(stage = self.factory.stage(), ?news, "assignment changed");
        }
        match news {
            Some(Assignment::Assigned(partitions)) => {
                self.assigned = true;
                self.waiting.extend(partitions);
            }
            Some(Assignment::Revoked(partitions)) => {
                self.give_up(&partitions, self.options.drain_within, TaskHandle::drain);
                membership.release(&partitions);
            }
            Some(Assignment::Lost(partitions)) => {
                self.give_up(&partitions, Duration::ZERO, TaskHandle::abandon);
                membership.release(&partitions);
            }
            None => {}
        }
        self.start_waiting(membership);
        Ok(())
    }

    /// Starts the tasks of assigned partitions whose previous task has ended.
    fn start_waiting(&mut self, membership: &Arc<dyn Membership>) {
        self.ending.retain(|_, task| !task.wait(Duration::ZERO));
        for partition in std::mem::take(&mut self.waiting) {
            if self.ending.contains_key(&partition) {
                self.waiting.insert(partition);
                continue;
            }
            let parts = TaskParts {
                partition,
                log: Arc::clone(&self.log),
                stores: Arc::clone(&self.stores),
                factory: Arc::clone(&self.factory),
                membership: Some(Arc::clone(membership)),
                clock: Arc::clone(&self.options.clock),
                options: self.options.task.clone(),
                turns: Arc::clone(&self.turns),
            };
            match TaskHandle::start(parts) {
                Ok(task) => {
                    self.tasks.insert(partition, task);
                }
                Err(error) => {
                    tracing::error!(stage = self.factory.stage(), partition, %error, "the thread of a task could not be started");
                    self.waiting.insert(partition);
                }
            }
        }
    }

    /// Asks all tasks to end simultaneously, and waits for them.
    fn give_up(&mut self, partitions: &[i32], within: Duration, ask: fn(&TaskHandle)) {
        let deadline = Instant::now() + within;
        let mut ending = Vec::new();
        for partition in partitions {
            self.waiting.remove(partition);
            ending.extend(self.tasks.remove(partition).map(|task| (*partition, task)));
        }
        for (_, task) in &ending {
            ask(task);
        }
        for (partition, mut task) in ending {
            if !task.wait(deadline.saturating_duration_since(Instant::now())) {
                task.abandon();
                self.ending.insert(partition, task);
            }
        }
    }

    fn publish(&self, error: Option<&LogError>) {
        // Partitions that wait for their previous task are not running either.
        let opening = |partition: &i32| (*partition, TaskStatus { partition: *partition, ..TaskStatus::default() });
        let running = self.tasks.iter().map(|(partition, task)| (*partition, task.status()));
        let tasks = self.waiting.iter().map(opening).chain(running).collect();
        let error = error.map(ToString::to_string);
        *lock(&self.health) = StageHealth { tasks, error, assigned: self.assigned };
    }
}
