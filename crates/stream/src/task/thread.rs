//! The thread of a task: opens, runs, reopens and stops it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    Next, OpenTask, Pace, Retry, State, TaskError, TaskParts,
    open::Watch,
    state::{TaskState, panic_text},
};
use crate::{local::lock, metrics::TaskMetrics};

/// A task that has failed this many times without progress is stuck: it is not ready, even while it retries.
const STUCK_AFTER: u32 = 3;

/// The status of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStatus {
    /// The partition that the task reads.
    pub partition: i32,
    /// The lifecycle state.
    pub state: TaskState,
    /// How often it was reopened after an error.
    pub reopened: u64,
    /// The number of its last commit.
    pub commit_seq: u64,
    /// The last error. It is cleared by the next success.
    pub error: Option<String>,
    /// Set while the task fails repeatedly: its position in each input, as `topic[partition]@offset` of the next
    /// record.
    pub stuck_at: Option<String>,
}

/// How a task was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stop {
    /// Keep running.
    No = 0,
    /// Commit completed work, then end.
    Drain = 1,
    /// End without a commit, because the partition has another owner.
    Drop = 2,
}

/// A running task. Dropping the handle ends it without a commit.
pub struct TaskHandle {
    shared: Arc<Shared>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by thread and handle.
struct Shared {
    stop: AtomicU8,
    /// Interrupts a pause between attempts.
    interrupt: Sender<()>,
    waker: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    status: Mutex<TaskStatus>,
    metrics: TaskMetrics,
}

impl TaskHandle {
    /// Starts the task.
    pub fn start(parts: TaskParts) -> std::io::Result<Self> {
        let (interrupt, interrupted) = bounded(1);
        let (end, ended) = bounded::<()>(0);
        let shared = Arc::new(Shared {
            stop: AtomicU8::new(Stop::No as u8),
            interrupt,
            waker: Mutex::default(),
            status: Mutex::new(TaskStatus { partition: parts.partition, ..TaskStatus::default() }),
            metrics: TaskMetrics::new(parts.factory.stage(), parts.partition),
        });
        let name = format!("{}-{}", parts.factory.stage(), parts.partition);
        let runner = Runner { parts, shared: Arc::clone(&shared), interrupted };
        let thread = Builder::new().name(name).spawn(move || {
            // The channel disconnects when the thread ends, however it ends.
            let _end = end;
            runner.run();
        })?;
        Ok(Self { shared, ended, thread: Some(thread) })
    }

    /// The status of the task.
    pub fn status(&self) -> TaskStatus {
        lock(&self.shared.status).clone()
    }

    /// Asks the task to commit completed work and end.
    pub fn drain(&self) {
        self.shared.ask(Stop::Drain);
    }

    /// Asks the task to end without a commit.
    pub fn abandon(&self) {
        self.shared.ask(Stop::Drop);
    }

    /// Waits until the thread has ended. Returns false on a timeout.
    pub fn wait(&mut self, deadline: Duration) -> bool {
        use crossbeam_channel::RecvTimeoutError::Disconnected;
        if self.ended.recv_timeout(deadline) != Err(Disconnected) {
            return false;
        }
        if let Some(thread) = self.thread.take() {
            // A panic was caught in the thread and is in the status.
            let _ = thread.join();
        }
        true
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Shared {
    fn ask(&self, stop: Stop) {
        self.stop.fetch_max(stop as u8, Ordering::SeqCst);
        // A full channel already contains an interruption.
        let _ = self.interrupt.try_send(());
        if let Some(waker) = &*lock(&self.waker) {
            waker();
        }
    }

    fn stop(&self) -> Stop {
        match self.stop.load(Ordering::SeqCst) {
            0 => Stop::No,
            1 => Stop::Drain,
            _ => Stop::Drop,
        }
    }

    fn update(&self, change: impl FnOnce(&mut TaskStatus)) {
        change(&mut lock(&self.status));
    }
}

impl Watch for Shared {
    fn entered(&self, state: TaskState) {
        self.metrics.state(state.code());
        self.update(|status| status.state = state);
    }

    fn stopping(&self) -> bool {
        self.stop() != Stop::No
    }
}

struct Runner {
    parts: TaskParts,
    shared: Arc<Shared>,
    interrupted: Receiver<()>,
}

impl Runner {
    fn run(self) {
        let (stage, partition) = (self.parts.factory.stage(), self.parts.partition);
        let mut retry = Retry::new(&self.parts.options);
        let mut state = State::default();
        loop {
            let error = match self.attempt(&mut retry, state) {
                Ok(()) | Err(TaskError::Stopped) => return self.shared.entered(TaskState::Closed),
                Err(error) => error,
            };
            let text = error.to_string();
            self.shared.update(|status| status.error = Some(text.clone()));
            let pause = match retry.after(error, self.parts.clock.elapsed()) {
                Next::Fail(error) => {
                    tracing::error!(stage, partition, %error, "task failed");
                    self.shared.update(|status| status.error = Some(error.to_string()));
                    return self.shared.entered(TaskState::Failed);
                }
                Next::Open(pause, next) => {
                    state = next;
                    pause
                }
            };
            if retry.in_a_row() < STUCK_AFTER {
                self.shared.update(|status| status.stuck_at = None);
            }
            if self.shared.stopping() {
                tracing::warn!(stage, partition, error = text, "task ended without a final commit");
                return self.shared.entered(TaskState::Closed);
            }
            tracing::warn!(stage, partition, error = text, ?pause, "reopening the task");
            self.shared.entered(TaskState::Waiting);
            // The loop checks for a stop request in both cases.
            let _ = self.interrupted.recv_timeout(pause);
            self.shared.metrics.reopened();
            self.shared.update(|status| status.reopened += 1);
        }
    }

    /// Runs one attempt, from opening to the first error or to the end.
    fn attempt(&self, retry: &mut Retry, state: State) -> Result<(), TaskError> {
        if self.shared.stopping() {
            return Ok(());
        }
        catch_unwind(AssertUnwindSafe(|| self.open_and_run(retry, state)))
            .unwrap_or_else(|panic| Err(TaskError::Panicked(panic_text(panic.as_ref()).to_owned())))
    }

    fn open_and_run(&self, retry: &mut Retry, state: State) -> Result<(), TaskError> {
        self.shared.entered(TaskState::Opening);
        let metrics = &self.shared.metrics;
        let mut task = OpenTask::open(&self.parts, metrics, self.shared.as_ref(), state, retry.failures())?;
        let opened_at = task.commit_seq();
        *lock(&self.shared.waker) = Some(task.waker());
        self.shared.update(|status| status.commit_seq = opened_at);
        self.shared.entered(TaskState::Running);
        loop {
            match self.shared.stop() {
                Stop::No => {}
                Stop::Drop => return Ok(()),
                Stop::Drain => {
                    self.shared.entered(TaskState::Draining);
                    return task.close(metrics);
                }
            }
            if let Err(error) = task.step(Pace::Due, metrics) {
                self.shared.update(|status| status.stuck_at = Some(task.position()));
                return Err(error);
            }
            if task.commit_seq() > opened_at || task.is_idle() {
                retry.reset();
                let commit_seq = task.commit_seq();
                self.shared.update(|status| {
                    status.commit_seq = commit_seq;
                    (status.error, status.stuck_at) = (None, None);
                });
            }
        }
    }
}
