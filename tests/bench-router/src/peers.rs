//! The proxies: each is started for its round on the first processor, and stopped after it.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    load::{self, request},
    serin::{Cluster, Variant},
    upstream::Upstream,
};

/// Maximum wait until a proxy answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ticks per second in `/proc`, a constant of the Linux interface.
const TICKS: f64 = 100.0;

/// Paths of the programs.
pub(crate) struct Programs {
    pub(crate) serin: PathBuf,
    pub(crate) envoy: PathBuf,
    pub(crate) configs: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The model server itself: the cost of load and model server.
    Direct,
    HaProxy,
    Nginx,
    Envoy,
    Serin(Variant),
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Serin(variant) => variant.name,
        }
    }

    /// One call.
    pub(crate) fn request(self) -> Vec<u8> {
        request(match self {
            Self::Serin(variant) => variant.model,
            _ => "flights",
        })
    }
}

/// A running proxy.
pub(crate) struct Running {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
}

/// What a proxy is started with, in addition to its programs.
pub(crate) struct World<'a> {
    pub(crate) upstreams: &'a [Upstream; 3],
    pub(crate) brokers: &'a str,
    pub(crate) cluster: &'a Cluster,
    pub(crate) scratch: &'a Path,
}

impl Running {
    /// Starts the proxy and waits until it answers.
    pub(crate) fn start(peer: Peer, programs: &Programs, world: &World<'_>) -> anyhow::Result<Self> {
        let [stable, canary, _] = world.upstreams;
        let (file, program, before, after): (&str, &Path, &[&str], &[&str]) = match peer {
            Peer::Direct => return Ok(Self { child: None, address: stable.address }),
            Peer::HaProxy => ("haproxy.cfg", Path::new("haproxy"), &["-db", "-f"], &[]),
            Peer::Nginx => ("nginx.conf", Path::new("/usr/sbin/nginx"), &["-c"], &[]),
            Peer::Envoy => ("envoy.yaml", &programs.envoy, &["--concurrency", "1", "-l", "warn", "-c"], &[]),
            Peer::Serin(_) => ("serin.yaml", &programs.serin, &["router", "--config"], &[]),
        };
        let folder = tempfile::Builder::new().prefix(peer.name()).tempdir_in(world.scratch)?.keep();
        let (port, admin, metrics) = (free_port()?, free_port()?, free_port()?);
        let report = if matches!(peer, Peer::Serin(variant) if !variant.events) { "rollouts" } else { "all" };
        let mut text = fs::read_to_string(programs.configs.join(file)).with_context(|| file.to_owned())?;
        let folder_name = folder.display().to_string();
        for (name, value) in [
            ("PORT", port.to_string()),
            ("ADMIN", admin.to_string()),
            ("METRICS", metrics.to_string()),
            ("FOLDER", folder_name),
            ("STABLE", stable.address.to_string()),
            ("CANARY", canary.address.to_string()),
            ("STABLE_HOST", stable.address.ip().to_string()),
            ("CANARY_HOST", canary.address.ip().to_string()),
            ("STABLE_PORT", stable.address.port().to_string()),
            ("CANARY_PORT", canary.address.port().to_string()),
            ("BROKERS", world.brokers.to_owned()),
            ("PREFIX", world.cluster.prefix().to_owned()),
            ("REPORT", report.to_owned()),
        ] {
            text = text.replace(&format!("@{name}@"), &value);
        }
        let config = folder.join(file);
        fs::write(&config, text)?;
        let log = folder.join("log");
        let out = File::create(&log)?;
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .args(before)
            .arg(&config)
            .args(after)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {}", peer.name()))?;
        let mut running = Self { child: Some(child), address: ([127, 0, 0, 1], port).into() };
        let deadline = Instant::now() + PATIENCE;
        // Send a call each time, because Serin answers 404 until it has read the table.
        while let Err(error) = load::paced(running.address, &peer.request(), 100, Duration::from_millis(50)) {
            let ended =
                running.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended || Instant::now() > deadline {
                let output = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not answer: {error:#}\n{output}", peer.name());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// CPU seconds of the proxy and of the processes that it started.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        let Some(child) = &self.child else { return Ok(Cpu::default()) };
        let mut pids = vec![child.id()];
        let mut ticks = Cpu::default();
        while let Some(pid) = pids.pop() {
            let own = cpu_ticks(pid)?;
            ticks = Cpu { own: ticks.own + own.own, kernel: ticks.kernel + own.kernel };
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(Cpu { own: ticks.own / TICKS, kernel: ticks.kernel / TICKS })
    }
}

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// In the program itself.
    pub(crate) own: f64,
    /// In the kernel.
    pub(crate) kernel: f64,
}

/// User and system time of a process in ticks: the 12th and 13th field after the name.
fn cpu_ticks(pid: u32) -> anyhow::Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("an unreadable /proc/PID/stat")?.1;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next().and_then(|ticks| ticks.parse::<f64>().ok()).context("an unreadable /proc/PID/stat");
    Ok(Cpu { own: next()?, kernel: next()? })
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // Ask the process to end first: nginx's main process stops its worker, and Serin writes its last events.
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while asked.is_ok() && Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
