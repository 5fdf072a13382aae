//! Real pipelines for tests: `serin` as child processes with their own directories and ports, which can be killed and restarted.
//!
//! Invariants: only processes that this module started are ended, by their own id, and all of them end when their owner is dropped.
//! Nothing sleeps for a fixed time: waits check a condition, with a deadline.

#![allow(dead_code, reason = "each test file uses only a part of this module")]

pub(crate) mod oracle;

use std::{
    collections::BTreeMap,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const SERIN: &str = env!("CARGO_BIN_EXE_serin");

/// Timeout for every start, answer or exit. It is far longer than needed, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);
/// Ports below the range of ports for outgoing connections, so that a port stays free while its process is down. They are disjoint from
/// the ports of the tests' Kafka.
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// The roles that run as separate processes on Kafka, in the order of their start.
pub(crate) const ROLES: [&str; 4] = ["controller", "analyzer", "aggregator", "router"];

/// Settings of a pipeline with a replay clock, like that of the demo.
pub(crate) const REPLAY: [&str; 4] =
    ["router.clock=replay", "aggregator.writer_ttl=1000d", "aggregator.max_skew=1000d", "topology.partitions=2"];

/// Settings of a pipeline on the machine's clock, with two partitions.
pub(crate) const WALL: [&str; 1] = ["topology.partitions=2"];

/// A pipeline of child processes.
#[derive(Debug)]
pub(crate) struct Pipeline {
    binary: PathBuf,
    dir: TempDir,
    settings: Vec<String>,
    router: u16,
    admin: u16,
    api: u16,
    telemetry: BTreeMap<&'static str, u16>,
    running: BTreeMap<&'static str, Child>,
}

impl Pipeline {
    /// Starts `serin up` on the embedded log, and waits until it is ready.
    pub(crate) fn embedded(settings: &[&str]) -> Result<Self> {
        let mut pipeline = Self::new(&["up"], settings)?;
        pipeline.start("up")?;
        pipeline.ready()?;
        Ok(pipeline)
    }

    /// Starts `serin up` of another binary, on a directory that `prepare` has filled.
    pub(crate) fn embedded_by(
        binary: &Path,
        settings: &[&str],
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let mut pipeline = Self::new(&["up"], settings)?;
        binary.clone_into(&mut pipeline.binary);
        prepare(&pipeline.data_dir("up"))?;
        pipeline.start("up")?;
        pipeline.ready()?;
        Ok(pipeline)
    }

    /// Starts every role as a separate process on the Kafka cluster at `brokers`, with its own topics, and waits until all are ready.
    pub(crate) fn kafka(brokers: &str, prefix: &str, settings: &[&str]) -> Result<Self> {
        Self::kafka_roles(brokers, prefix, settings, &ROLES)
    }

    /// Like [`Pipeline::kafka`], with these roles only.
    pub(crate) fn kafka_roles(brokers: &str, prefix: &str, settings: &[&str], roles: &[&'static str]) -> Result<Self> {
        let mut pipeline = Self::new(roles, settings)?;
        pipeline.settings.extend([
            "log.kind=kafka".to_owned(),
            format!("log.kafka.brokers={brokers}"),
            format!("topology.prefix={prefix}"),
        ]);
        let ensured = pipeline.cli(&["topology", "ensure"])?;
        ensure!(ensured.status.success(), "serin topology ensure: {}", String::from_utf8_lossy(&ensured.stderr));
        for role in roles {
            pipeline.start(role)?;
        }
        pipeline.ready()?;
        Ok(pipeline)
    }

    fn new(processes: &[&'static str], settings: &[&str]) -> Result<Self> {
        let dir = TempDir::with_prefix("serin-test-")?;
        let (router, admin, api) = (free_port()?, free_port()?, free_port()?);
        let telemetry = processes.iter().map(|name| Ok((*name, free_port()?))).collect::<Result<_>>()?;
        let mut all = vec![
            format!("router.listen=127.0.0.1:{router}"),
            format!("router.admin_listen=127.0.0.1:{admin}"),
            format!("controller.listen=127.0.0.1:{api}"),
            "router.random_seed=1".to_owned(),
            "telemetry.log_level=warn".to_owned(),
        ];
        all.extend(settings.iter().map(ToString::to_string));
        Ok(Self { binary: SERIN.into(), dir, settings: all, router, admin, api, telemetry, running: BTreeMap::new() })
    }

    /// Settings, directory and ports of a `serin up` that is not started here.
    pub(crate) fn idle(settings: &[&str]) -> Result<Self> {
        Self::new(&["up"], settings)
    }

    /// Starts a process (`up` or a role) with its directory and ports, without waiting for it.
    pub(crate) fn start(&mut self, name: &'static str) -> Result<()> {
        self.start_with(name, &[])
    }

    /// Like [`Pipeline::start`], with additional arguments.
    pub(crate) fn start_with(&mut self, name: &'static str, further: &[&str]) -> Result<()> {
        ensure!(!self.running.contains_key(name), "{name} runs already");
        let port = self.telemetry.get(name).with_context(|| format!("this pipeline has no process {name}"))?;
        let log = File::options().create(true).append(true).open(self.log_file(name))?;
        let child = Command::new(&self.binary)
            .arg(name)
            .args(self.arguments(name))
            .args(further)
            .args(["--set".to_owned(), format!("telemetry.listen=127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        self.running.insert(name, child);
        Ok(())
    }

    /// Starts a process that takes over from the running one, and waits until the old process has exited.
    pub(crate) fn replace(&mut self, name: &'static str) -> Result<()> {
        let mut before = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        let mut ended = None;
        let replaced = self.start_with(name, &["--replace"]).and_then(|()| {
            wait_until(PATIENCE, || {
                self.check_alive(name)?;
                ended = before.try_wait()?;
                Ok(ended.is_some())
            })
        });
        if ended.is_none() {
            before.kill()?;
            before.wait()?;
        }
        replaced.with_context(|| format!("{name} was not replaced\n{}", self.log_end(name)))?;
        ensure!(ended.is_some_and(|status| status.success()), "{name} ended with {ended:?}\n{}", self.log_end(name));
        Ok(())
    }

    /// `--set` for every setting, for `serin tail`, `serin topology` and the like on this pipeline's log.
    pub(crate) fn arguments(&self, name: &str) -> Vec<String> {
        let data = format!("data_dir={}", self.data_dir(name).display());
        self.settings.iter().chain([&data]).flat_map(|setting| ["--set".to_owned(), setting.clone()]).collect()
    }

    /// Directory of a process's log and state.
    pub(crate) fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `serin ARGUMENTS` with this pipeline's settings.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(&self.binary).args(arguments).args(self.arguments("up")).stdin(Stdio::null()).output()?)
    }

    /// Every record of a topic, as `serin tail --output json` prints it.
    pub(crate) fn tail(&self, topic: &str) -> Result<Vec<Value>> {
        let output = self.cli(&["tail", topic, "--from-beginning", "--until-end", "--output", "json"])?;
        ensure!(output.status.success(), "serin tail {topic}: {}", String::from_utf8_lossy(&output.stderr));
        let lines = std::str::from_utf8(&output.stdout)?.lines();
        lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits until every running process reports on `/readyz` that it is ready.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let names: Vec<_> = self.running.keys().copied().collect();
        for name in names {
            let url = format!("{}/readyz", self.telemetry(name));
            let mut reported = String::new();
            let ready = wait_until(PATIENCE, || {
                self.check_alive(name)?;
                reported = http(Method::GET, &url, None).map_or_else(|error| error.to_string(), |answer| answer.text);
                Ok(reported == "ready\n")
            });
            ready.with_context(|| format!("{name} is not ready: {reported}\n{}", self.log_end(name)))?;
        }
        Ok(())
    }

    /// Returns an error with the end of its log if a process has exited by itself.
    fn check_alive(&mut self, name: &str) -> Result<()> {
        let child = self.running.get_mut(name).with_context(|| format!("{name} does not run"))?;
        let Some(status) = child.try_wait()? else { return Ok(()) };
        self.running.remove(name);
        bail!("{name} ended by itself with {status}:\n{}", self.log_end(name))
    }

    /// Process id of a running process.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.running.get(name).map(Child::id)
    }

    /// Sends SIGKILL and waits for the exit.
    pub(crate) fn kill(&mut self, name: &str) -> Result<()> {
        self.check_alive(name)?;
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(&mut self, name: &str) -> Result<()> {
        let mut child = self.running.remove(name).with_context(|| format!("{name} does not run"))?;
        // The standard library only knows SIGKILL.
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let ended = asked.map_err(Into::into).and_then(|_| wait_until(PATIENCE, || Ok(child.try_wait()?.is_some())));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended.with_context(|| format!("{name} did not stop on SIGTERM\n{}", self.log_end(name)))
    }

    /// Stops all running processes, the router first.
    pub(crate) fn stop_all(&mut self) -> Result<()> {
        let names: Vec<_> = self.running.keys().copied().rev().collect();
        names.into_iter().try_for_each(|name| self.stop(name))
    }

    /// Base URL of the router's data plane.
    pub(crate) fn router(&self) -> String {
        format!("http://127.0.0.1:{}", self.router)
    }

    /// Base URL of the router's admin port.
    pub(crate) fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// Base URL of the controller's API.
    pub(crate) fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// Base URL of `/metrics`, `/healthz`, `/readyz` of a process.
    pub(crate) fn telemetry(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.telemetry[name])
    }

    /// The value of `serin demo --attach`.
    pub(crate) fn doors(&self) -> String {
        [self.router(), self.admin(), self.api()].join(",")
    }

    /// Sends a request to the controller's API; `None` if there is no successful answer.
    pub(crate) fn ask(&self, path: &str) -> Option<Value> {
        let answer = http(Method::GET, &format!("{}{path}", self.api()), None).ok()?;
        if answer.status == 200 { answer.json().ok() } else { None }
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Everything that a process logged.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// The last lines that a process logged.
    fn log_end(&self, name: &str) -> String {
        last_lines(&self.log_file(name))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for (name, child) in &mut self.running {
            if thread::panicking() {
                eprintln!(
                    "--- end of the log of {name}:\n{}",
                    last_lines(&self.dir.path().join(format!("{name}.log")))
                );
            }
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Lets one test of this process run at a time. The demo judges latency, and parallel tests on a small machine would affect it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `serin demo` as a child process.
#[derive(Debug)]
pub(crate) struct Demo {
    child: Child,
    dir: TempDir,
}

impl Demo {
    /// Starts `serin demo --output json ARGUMENTS`.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let dir = TempDir::with_prefix("serin-test-demo-")?;
        let child = Command::new(SERIN)
            .args(["demo", "--output", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("stdout"))?)
            .stderr(File::create(dir.path().join("stderr"))?)
            .spawn()?;
        Ok(Self { child, dir })
    }

    /// Whether the demo is still running.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What the demo has printed so far: its result and the last lines of its log.
    pub(crate) fn printed(&self) -> String {
        let printed = std::fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default();
        format!("{printed}\n{}", last_lines(&self.dir.path().join("stderr")))
    }

    /// Waits for the end of the demo, and returns its output.
    pub(crate) fn finish(mut self, within: Duration) -> Result<Value> {
        let ended = wait_until(within, || Ok(self.child.try_wait()?.is_some()));
        let errors = last_lines(&self.dir.path().join("stderr"));
        ended.with_context(|| format!("the demo did not end:\n{errors}"))?;
        let printed = std::fs::read_to_string(self.dir.path().join("stdout"))?;
        serde_json::from_str(&printed).with_context(|| format!("the demo printed {printed:?}\n{errors}"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{} {:?} is not JSON", self.status, self.text))
    }
}

/// Sends an HTTP request. A body is sent as JSON.
pub(crate) fn http(method: Method, url: &str, body: Option<&Value>) -> Result<Answer> {
    http_with(method, url, &[], body.map(|body| body.to_string().into_bytes()))
}

/// Sends an HTTP request with headers. A body is sent as JSON.
pub(crate) fn http_with(method: Method, url: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let mut request = client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Answer { status, headers, text: response.text().await? })
    })
}

/// Waits until `condition` is true. Returns an error if it is not true within `limit`.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() > deadline {
            return Err(anyhow!("waited {} s", limit.as_secs()));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Returns a loopback port that is free and that no other test of this process gets.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // The standard library seeds each hasher randomly, so test processes rarely get the same ports.
    let random = (RandomState::new().hash_one(0) % u64::from(span)) as u16;
    let _ = NEXT.compare_exchange(0, random.max(1), Ordering::Relaxed, Ordering::Relaxed);
    (0..1000)
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % span)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port on 127.0.0.1")
}

fn last_lines(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Asserts the demo's three outcomes, each with its reason.
pub(crate) fn three_outcomes(summary: &Value) {
    let rollouts = summary["rollouts"].as_array().expect("a list of rollouts");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ends: Vec<[String; 4]> = rollouts
        .iter()
        .map(|rollout| {
            let Value::Object(reason) = &rollout["reason"] else { panic!("no reason in {rollout}") };
            [&rollout["canary"], &rollout["outcome"], &reason["metric"], &reason["segment"]].map(text)
        })
        .collect();
    assert_eq!(ends.len(), 3, "{summary:#}");
    assert_eq!(ends[0][..2], ["v2", "promoted"], "{summary:#}");
    assert_eq!(ends[1], ["v3", "rolled_back", "wrong_rate", "origin=LGA"], "{summary:#}");
    assert_eq!(ends[2], ["v4", "rolled_back", "latency_p99", "all"], "{summary:#}");
}

/// A moment of the demo, according to the controller's API: rollout number `rollout` (from 1) has reached at least this step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) rollout: usize,
    /// Index of the step; -1 during warm-up.
    pub(crate) step: i64,
}

impl Moment {
    /// Waits until the demo has reached this moment and windows are passing through the pipeline.
    pub(crate) fn wait(self, pipeline: &Pipeline, demo: &mut Demo) -> Result<()> {
        let mut first: Option<i64> = None;
        let here = || -> Option<i64> {
            let rollouts = pipeline.ask("/v1/rollouts")?;
            let newest = rollouts.get(0)?;
            let there = rollouts.as_array()?.len() >= self.rollout && newest["step"].as_i64()? >= self.step;
            let runs = ["warming", "baking", "held"].contains(&newest["phase"].as_str()?);
            let progress = pipeline.ask("/v1/rollouts/flights/progress")?;
            if there && runs { progress["planned_through"].as_i64() } else { None }
        };
        wait_until(PATIENCE, || {
            ensure!(demo.is_running()?, "the demo ended before {self:?}:\n{}", demo.printed());
            let now = here();
            let moved = now.is_some() && first.is_some() && now != first;
            first = if now.is_none() { None } else { first.or(now) };
            Ok(moved)
        })
        .with_context(|| format!("the demo does not reach {self:?}"))
    }
}
