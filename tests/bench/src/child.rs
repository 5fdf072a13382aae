//! Processes that this process starts and stops.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::worker::{Job, Outcome};

/// Maximum wait for the next line of a child.
const PATIENCE: Duration = Duration::from_mins(5);

/// A running child whose output lines are read as they are printed. A worker exits when this process does, because its standard input
/// closes.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
}

impl Running {
    /// Starts a command.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let out = child.stdout.take().context("standard output is a pipe")?;
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    /// Starts a worker.
    pub(crate) fn worker(job: &Job) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.arg("worker").arg(serde_json::to_string(job)?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line and its time, or `None` if no line is printed within the wait. Fails if the child has closed its output.
    pub(crate) fn line(&self, wait: Duration) -> anyhow::Result<Option<(Instant, String)>> {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("a process of the benchmark exited; its messages are above"),
        }
    }

    /// Skips lines until the first one that starts with `{` (the child's measurements), waits until the child exits, and returns that line.
    pub(crate) fn result(mut self) -> anyhow::Result<String> {
        loop {
            match self.line(PATIENCE)? {
                Some((_, line)) if line.starts_with('{') => {
                    self.child.wait()?;
                    return Ok(line);
                }
                Some(_) => {}
                None => bail!("a process of the benchmark printed nothing for {PATIENCE:?}"),
            }
        }
    }

    /// Waits for the measurements of a worker.
    pub(crate) fn outcome(self) -> anyhow::Result<Outcome> {
        Ok(serde_json::from_str(&self.result()?)?)
    }

    /// Closes a worker's standard input, so that it exits, and returns its measurements.
    pub(crate) fn stop(mut self) -> anyhow::Result<Outcome> {
        self.stdin = None;
        self.outcome()
    }

    /// Kills the process (SIGKILL), waits until it is gone, and returns the time of the kill.
    pub(crate) fn kill(mut self) -> anyhow::Result<Instant> {
        let at = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(at)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Usually the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
