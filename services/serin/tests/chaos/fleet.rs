//! The roles as separate processes, two of each role, with a supervisor that restarts them.
//!
//! Invariants: only processes that were started here get a signal, by their own id, and all of them end with the fleet. A process that
//! exits by itself is restarted, as any platform does, and recorded. A process that fails permanently (a failed task, a panic) is an
//! error, because no injected fault justifies that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use serin_tests::clock;
use tempfile::TempDir;

use crate::support::{SERIN, free_port, http, wait_until};

/// Timeout for everything, on a machine that is busy with the previous faults.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// How long a process may take to exit after SIGTERM. The sum of its own timeouts is shorter.
const END: Duration = Duration::from_mins(1);

/// Size of the small disk of a process, which can be filled.
const SMALL_DISK: u64 = 32 << 20;

/// Number of network zones, see `serin_tests::kafka::Cluster`: those of the processes that share their work, then one per router.
pub(crate) const ZONES: usize = SHARED_ZONES + ROUTERS.len();

/// Zones of the processes that share their work.
pub(crate) const SHARED_ZONES: usize = 2;

/// Every process: its name, its role, its zone.
pub(crate) const MEMBERS: [(&str, &str, usize); 8] = [
    ("controller-a", "controller", 0),
    ("controller-b", "controller", 1),
    ("analyzer-a", "analyzer", 0),
    ("analyzer-b", "analyzer", 1),
    ("aggregator-a", "aggregator", 0),
    ("aggregator-b", "aggregator", 1),
    ("router-a", "router", 2),
    ("router-b", "router", 3),
];

/// Names of the routers.
pub(crate) const ROUTERS: [&str; 2] = ["router-a", "router-b"];

/// Permanent clock offsets of the routers in milliseconds, so that their events are late relative to each other.
const CLOCKS: [(&str, i64); 2] = [("router-a", 700), ("router-b", -700)];

/// Stages of a role.
fn stages(role: &str) -> &'static [&'static str] {
    match role {
        "aggregator" => &["aggregator", "intake"],
        "analyzer" => &["analyzer"],
        "controller" => &["controller"],
        _ => &[],
    }
}

/// The role of a process, and its peer.
pub(crate) fn role_and_peer(name: &str) -> (&'static str, Option<&'static str>) {
    let role = MEMBERS.iter().find(|member| member.0 == name).map_or("", |member| member.1);
    (role, MEMBERS.iter().find(|member| member.1 == role && member.0 != name).map(|member| member.0))
}

/// A process that has exited by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) status: String,
    /// The end of the process's log.
    pub(crate) log: String,
}

#[derive(Debug)]
struct Member {
    role: &'static str,
    settings: Vec<String>,
    telemetry: u16,
    /// Whether the process has its own small disk.
    small_disk: bool,
    /// Offset of the process's clock in milliseconds.
    clock_off: i64,
    child: Option<Child>,
    frozen: bool,
    log: Option<JoinHandle<io::Result<u64>>>,
}

/// All processes.
pub(crate) struct Fleet {
    dir: TempDir,
    /// Library that gives a process a wrong clock.
    clock: PathBuf,
    binary: PathBuf,
    common: Vec<String>,
    members: BTreeMap<&'static str, Member>,
    routers: Vec<u16>,
    apis: Vec<u16>,
    pub(crate) ended: Vec<Ended>,
}

impl Fleet {
    /// Creates a fleet without starting it. `zones` are the brokers' addresses for each zone, `test` those for the test.
    pub(crate) fn new(zones: &[String; ZONES], test: &str, settings: &[String]) -> Result<Self> {
        let dir = TempDir::with_prefix("serin-chaos-")?;
        let clock = clock::build(dir.path())?;
        let mut common = vec![
            "log.kind=kafka".to_owned(),
            // The shortest timeout that does not mistake a busy machine for a dead process.
            "log.kafka.properties.session.timeout.ms=6000".to_owned(),
            // Enough to find out later why a group did not assign a partition.
            "log.kafka.properties.debug=cgrp".to_owned(),
            "telemetry.log_level=info,serin_stream=debug,librdkafka=debug".to_owned(),
        ];
        common.extend_from_slice(settings);
        let mut fleet = Self {
            dir,
            clock,
            binary: PathBuf::from(SERIN),
            common,
            members: BTreeMap::new(),
            routers: Vec::new(),
            apis: Vec::new(),
            ended: Vec::new(),
        };
        for (name, role, zone) in MEMBERS {
            let mut own = vec![format!("log.kafka.brokers={}", zones[zone])];
            // Zone 0 uses static group membership, the other zones dynamic membership, so that both are tested.
            if zone == 0 {
                own.push(format!("log.kafka.instance={name}"));
            }
            if role == "controller" {
                let port = free_port()?;
                fleet.apis.push(port);
                own.push(format!("controller.listen=127.0.0.1:{port}"));
            }
            if role == "router" {
                let (router, admin) = (free_port()?, free_port()?);
                fleet.routers.push(router);
                own.extend([
                    format!("router.name={name}"),
                    format!("router.listen=127.0.0.1:{router}"),
                    format!("router.admin_listen=127.0.0.1:{admin}"),
                ]);
            }
            let telemetry = free_port()?;
            let clock_off = usual_clock(name);
            let member = Member {
                role,
                settings: own,
                telemetry,
                small_disk: false,
                clock_off,
                child: None,
                frozen: false,
                log: None,
            };
            fleet.members.insert(name, member);
        }
        let ensured = fleet.cli(test, &["topology", "ensure"])?;
        ensure!(ensured.status.success(), "serin topology ensure: {}", String::from_utf8_lossy(&ensured.stderr));
        Ok(fleet)
    }

    /// Runs a command of the newest binary, with the brokers' addresses for the test.
    pub(crate) fn cli(&self, brokers: &str, arguments: &[&str]) -> Result<std::process::Output> {
        let settings = self.common.iter().cloned().chain([format!("log.kafka.brokers={brokers}")]);
        let settings = settings.flat_map(|setting| ["--set".to_owned(), setting]);
        Ok(Command::new(&self.binary).args(arguments).args(settings).stdin(Stdio::null()).output()?)
    }

    /// Every record of a topic, as `serin tail --output json` prints it.
    pub(crate) fn tail(&self, brokers: &str, topic: &str) -> Result<Vec<Value>> {
        let output = self.cli(brokers, &["tail", topic, "--from-beginning", "--until-end", "--output", "json"])?;
        ensure!(output.status.success(), "serin tail {topic}: {}", String::from_utf8_lossy(&output.stderr));
        let lines = std::str::from_utf8(&output.stdout)?.lines();
        lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Sets the binary from which processes are started.
    pub(crate) fn use_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).expect("one of MEMBERS")
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// Starts a process, without waiting for it.
    pub(crate) fn start(&mut self, name: &'static str) -> Result<()> {
        let (data, log_file) = (self.data_dir(name), self.log_file(name));
        fs::create_dir_all(&data)?;
        let member = self.members.get_mut(name).expect("one of MEMBERS");
        ensure!(member.child.is_none(), "{name} runs already");
        let settings = self.common.iter().chain(&member.settings).cloned();
        let own = [format!("data_dir={}", data.display()), format!("telemetry.listen=127.0.0.1:{}", member.telemetry)];
        let settings = settings.chain(own).flat_map(|setting| ["--set".to_owned(), setting]);
        let mut command =
            if member.small_disk { on_small_disk(&data, &self.binary) } else { Command::new(&self.binary) };
        // The log is not on the disk of the process.
        let (mut printed, print) = io::pipe()?;
        let mut log = File::options().create(true).append(true).open(log_file)?;
        writeln!(log, "--- {} starts", self.binary.display())?;
        if member.clock_off != 0 {
            command.envs(clock::environment(&self.clock, member.clock_off));
        }
        command.arg(member.role).args(settings).stdin(Stdio::null()).stdout(print.try_clone()?).stderr(print);
        member.child = Some(command.spawn().with_context(|| format!("starting {name}"))?);
        member.log = Some(thread::spawn(move || io::copy(&mut printed, &mut log)));
        Ok(())
    }

    /// Starts all processes.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        MEMBERS.iter().try_for_each(|(name, _, _)| self.start(name))
    }

    /// Sends SIGKILL and waits for the exit.
    pub(crate) fn kill(&mut self, name: &str) -> Result<()> {
        let member = self.member(name);
        if let Some(mut child) = member.child.take() {
            child.kill()?;
            child.wait()?;
        }
        member.frozen = false;
        Ok(())
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(&mut self, name: &str) -> Result<()> {
        if self.member(name).child.is_some() {
            self.signal(name, "-TERM")?;
            let ended = wait_until(END, || Ok(self.has_ended(name)?.is_some()));
            self.kill(name)?;
            ended.with_context(|| format!("{name} did not stop on SIGTERM:\n{}", self.log_end(name)))?;
        }
        Ok(())
    }

    /// Sends SIGSTOP.
    pub(crate) fn freeze(&mut self, name: &str) -> Result<()> {
        self.signal(name, "-STOP")?;
        self.member(name).frozen = true;
        Ok(())
    }

    /// Sends SIGCONT.
    pub(crate) fn thaw(&mut self, name: &str) -> Result<()> {
        self.member(name).frozen = false;
        self.signal(name, "-CONT")
    }

    fn signal(&mut self, name: &str, signal: &str) -> Result<()> {
        let pid = self.member(name).child.as_ref().with_context(|| format!("{name} does not run"))?.id().to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "kill {signal} {name}");
        Ok(())
    }

    /// Removes all files of a process that is not running.
    pub(crate) fn wipe(&self, name: &str) -> Result<()> {
        Ok(fs::remove_dir_all(self.data_dir(name))?)
    }

    /// Exit status of a process that has exited by itself.
    fn has_ended(&mut self, name: &str) -> Result<Option<String>> {
        let child = self.member(name).child.as_mut();
        Ok(child.and_then(|child| child.try_wait().transpose()).transpose()?.map(|status| status.to_string()))
    }

    /// Restarts processes that have exited by themselves. Returns an error if one of them failed permanently.
    pub(crate) fn tend(&mut self) -> Result<()> {
        for (name, _, _) in MEMBERS {
            let Some(status) = self.has_ended(name)? else { continue };
            self.kill(name)?;
            // Wait for the rest of its log.
            if let Some(log) = self.member(name).log.take() {
                log.join().ok();
            }
            let log = self.log_end(name);
            if log.contains("task failed") || log.contains("panicked") {
                bail!("{name} gave up with {status}:\n{log}");
            }
            self.ended.push(Ended { name, status, log });
            self.start(name)?;
        }
        Ok(())
    }

    /// Waits until all running processes are ready. Processes that exit by themselves are restarted.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let mut not_ready = String::new();
        wait_until(PATIENCE, || {
            self.tend()?;
            for (name, member) in self.members.iter().filter(|(_, member)| member.child.is_some() && !member.frozen) {
                let answer = get(&format!("http://127.0.0.1:{}/readyz", member.telemetry));
                if answer.as_deref() != Some("ready\n") {
                    not_ready = format!("{name}: {}", answer.as_deref().unwrap_or("no answer"));
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .with_context(|| {
            format!("not ready: {not_ready}\n{}", self.log_end(not_ready.split(':').next().unwrap_or_default()))
        })
    }

    /// Waits until a process runs every partition of its role.
    pub(crate) fn owns_all(&mut self, name: &'static str, partitions: usize) -> Result<()> {
        let (role, _) = role_and_peer(name);
        wait_until(PATIENCE, || {
            self.tend()?;
            let running = self.running(name);
            Ok(stages(role).iter().all(|stage| running.iter().filter(|(of, _)| of == stage).count() == partitions))
        })
        .with_context(|| format!("{name} does not take over: {:?}\n{}", self.running(name), self.log_end(name)))
    }

    /// Stage and partition of the running tasks of a process, according to its metrics.
    fn running(&self, name: &str) -> BTreeSet<(String, String)> {
        let metrics = get(&format!("http://127.0.0.1:{}/metrics", self.members[name].telemetry)).unwrap_or_default();
        let label = |line: &str, name: &str| {
            let from = line.find(&format!("{name}=\""))? + name.len() + 2;
            Some(line[from..].split('"').next()?.to_owned())
        };
        let running = |line: &&str| line.starts_with("serin_stream_task_state{") && line.ends_with(" 3");
        metrics
            .lines()
            .filter(running)
            .filter_map(|line| Some((label(line, "stage")?, label(line, "partition")?)))
            .collect()
    }

    /// The tasks of every process and their lag, according to its metrics, to diagnose a stuck pipeline.
    pub(crate) fn tasks(&self) -> String {
        let relevant =
            |line: &&str| line.starts_with("serin_stream_task_state{") || line.starts_with("serin_stream_lag_records{");
        let mut all = String::new();
        for (name, member) in &self.members {
            let metrics = get(&format!("http://127.0.0.1:{}/metrics", member.telemetry)).unwrap_or_default();
            for line in metrics.lines().filter(relevant) {
                all = format!("{all}{name}: {line}\n");
            }
        }
        all
    }

    /// Sets the clock offset of a process in milliseconds from its next start on; `None` for its usual offset.
    pub(crate) fn set_clock(&mut self, name: &str, off: Option<i64>) {
        self.member(name).clock_off = off.unwrap_or_else(|| usual_clock(name));
    }

    /// Sets whether a process has its own small, empty disk from its next start on.
    pub(crate) fn set_small_disk(&mut self, name: &str, small: bool) {
        self.member(name).small_disk = small;
    }

    /// Path of a running process's small disk for the test.
    fn disk(&mut self, name: &str) -> Result<PathBuf> {
        let data = self.data_dir(name);
        let pid = self.member(name).child.as_ref().with_context(|| format!("{name} does not run"))?.id();
        Ok(PathBuf::from(format!("/proc/{pid}/root{}", data.display())))
    }

    /// Fills the small disk of a process, and returns the number of bytes written.
    pub(crate) fn fill_disk(&mut self, name: &str) -> Result<usize> {
        let mut ballast = File::create(self.disk(name)?.join("ballast"))?;
        let block = [0; 4096];
        let mut written = 0;
        loop {
            match ballast.write(&block) {
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(written),
                Err(error) => return Err(error).with_context(|| format!("filling the disk of {name}")),
            }
            ensure!(written as u64 <= SMALL_DISK, "the disk of {name} is not a small one");
        }
    }

    /// Frees the space on the small disk of a process.
    pub(crate) fn free_disk(&mut self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.disk(name)?.join("ballast"))?)
    }

    /// Base URLs of the routers.
    pub(crate) fn routers(&self) -> Vec<String> {
        self.routers.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// Base URLs of the controllers.
    pub(crate) fn apis(&self) -> Vec<String> {
        self.apis.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// The log of a process.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    fn log_end(&self, name: &str) -> String {
        let log = self.log(name);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Keeps the directory of a failed run with its logs, and returns its path.
    pub(crate) fn keep(mut self) -> Result<PathBuf> {
        Ok(std::mem::replace(&mut self.dir, TempDir::new()?).keep())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            if let Some(child) = &mut member.child {
                child.kill().ok();
                child.wait().ok();
            }
        }
    }
}

fn usual_clock(name: &str) -> i64 {
    CLOCKS.iter().find(|(of, _)| *of == name).map_or(0, |(_, off)| *off)
}

/// Whether a process can have its own disk on this machine.
pub(crate) fn has_small_disks() -> bool {
    let command = on_small_disk(Path::new("/tmp"), Path::new("true")).output();
    command.is_ok_and(|output| output.status.success())
}

/// Runs a program with its own disk at `folder`: an in-memory file system in a mount namespace that ends with the program.
fn on_small_disk(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(SMALL_DISK.to_string()).arg(folder).arg(program);
    command
}

fn get(url: &str) -> Option<String> {
    http(Method::GET, url, None).ok().map(|answer| answer.text)
}
