//! The pipeline of the demo: in this process, as child processes on Kafka, or one that is already running.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use tempfile::TempDir;

use super::replay::Endpoints;
use crate::{
    cli::{Demo, Serve},
    serve::{self, Role, Running},
    settings,
};

/// A running pipeline and its endpoints.
pub(super) struct Pipeline {
    kind: Kind,
    endpoints: Endpoints,
    /// Directory of log and state; a temporary one is removed at the end.
    _data: Option<DataFolder>,
}

enum Kind {
    InProcess(Box<Running>),
    /// Child processes, in the order of [`Role::ALL`].
    Children(Vec<Served>),
    Attached,
}

/// A role in its own process.
struct Served {
    child: Child,
    /// File with its log output.
    log: PathBuf,
    /// Port of its metrics and health.
    telemetry: u16,
}

impl Pipeline {
    /// Starts the pipeline that `args` ask for.
    pub(crate) async fn start(args: &Demo) -> anyhow::Result<Self> {
        if let Some(endpoints) = &args.attach {
            let endpoints = parse_endpoints(endpoints)?;
            return Ok(Self { kind: Kind::Attached, endpoints, _data: None });
        }
        let data = DataFolder::open(args.data.as_deref())?;
        let ports = Ports::free()?;
        let serve = Serve { config: None, settings: ports.settings(args, data.path()), dump_config: false };
        let kind = if args.kafka.is_some() {
            Kind::Children(start_children(&serve, data.path(), &ports)?)
        } else {
            let running =
                serve::start(Role::ALL, &settings::load(&serve)?, &mut serin_listener::Sockets::default(), None)
                    .await?;
            Kind::InProcess(Box::new(running))
        };
        Ok(Self { kind, endpoints: ports.endpoints(), _data: Some(data) })
    }

    /// The endpoints of the pipeline.
    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Problems of the parts of the pipeline, one line each. Problems of an attached pipeline are not known.
    pub(crate) async fn trouble(&mut self) -> Option<String> {
        let found: Vec<String> = match &mut self.kind {
            Kind::InProcess(running) => {
                let parts = running.readiness();
                parts.into_iter().filter_map(|(part, ready)| Some(format!("{part}: {}", ready().err()?))).collect()
            }
            Kind::Children(children) => {
                let mut found = Vec::new();
                for (child, role) in children.iter_mut().zip(Role::ALL) {
                    found.extend(of_child(child, *role).await);
                }
                found
            }
            Kind::Attached => Vec::new(),
        };
        (!found.is_empty()).then(|| found.join("\n"))
    }

    /// Stops what this process started.
    pub(crate) async fn stop(self) {
        match self.kind {
            Kind::InProcess(running) => running.stop().await,
            Kind::Children(children) => stop_children(children),
            Kind::Attached => {}
        }
    }
}

/// `router,router-admin,api`, as base URLs.
fn parse_endpoints(text: &str) -> anyhow::Result<Endpoints> {
    let endpoints: Vec<&str> = text.split(',').map(str::trim).collect();
    let [router, router_admin, api] = endpoints[..] else {
        anyhow::bail!("--attach: write the base URLs of router, router admin port and controller API, comma-separated");
    };
    Ok(Endpoints { router: router.into(), router_admin: router_admin.into(), api: api.into() })
}

/// Starts every role in its own process, with its log in the data directory.
fn start_children(serve: &Serve, data: &Path, ports: &Ports) -> anyhow::Result<Vec<Served>> {
    let program = std::env::current_exe().context("the path of this program")?;
    let ensured = Command::new(&program)
        .args(["topology", "ensure"])
        .args(serve.settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]))
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(ensured.success(), "`serin topology ensure` failed on the Kafka cluster");
    let mut children = Vec::new();
    for (role, telemetry) in Role::ALL.iter().zip(&ports.telemetry) {
        let path = data.join(format!("{}.log", role.name()));
        let log = std::fs::File::create(&path)?;
        let child = Command::new(&program)
            .arg(role.name())
            .args(serve.settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]))
            .args(["--set".to_owned(), format!("telemetry.listen=127.0.0.1:{telemetry}")])
            .args(["--set".to_owned(), format!("data_dir={}", data.join(role.name()).display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the {}", role.name()))?;
        children.push(Served { child, log: path, telemetry: *telemetry });
    }
    Ok(children)
}

/// The problem of a child: it has exited (with the last line of its log), or it is not ready.
async fn of_child(served: &mut Served, role: Role) -> Option<String> {
    let name = role.name();
    if let Ok(Some(status)) = served.child.try_wait() {
        let log = std::fs::read_to_string(&served.log).unwrap_or_default();
        return Some(format!("the {name} exited with {status}: {}", log.lines().last().unwrap_or("it logged nothing")));
    }
    let asked = reqwest::get(format!("http://127.0.0.1:{}/readyz", served.telemetry)).await;
    let text = match asked {
        Ok(response) => response.text().await.unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    (text != "ready\n").then(|| format!("the {name} is not ready: {}", text.trim_end()))
}

/// Asks every child to stop, in reverse order of start, and waits for it.
fn stop_children(children: Vec<Served>) {
    for Served { mut child, .. } in children.into_iter().rev() {
        let pid = child.id().to_string();
        // SIGTERM with the `kill` command: the standard library only has SIGKILL.
        let asked = Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|status| status.success());
        if !asked {
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

/// Free loopback ports. If another program binds one first, starting fails with a clear error.
struct Ports {
    router: u16,
    router_admin: u16,
    api: u16,
    telemetry: [u16; 4],
}

impl Ports {
    fn free() -> anyhow::Result<Self> {
        let listeners = (0..7)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<Vec<_>, _>>()
            .context("no free loopback port")?;
        let ports = listeners
            .iter()
            .map(|listener| listener.local_addr().map(|address| address.port()))
            .collect::<Result<Vec<_>, _>>()?;
        let [router, router_admin, api, a, b, c, d] = ports[..] else { anyhow::bail!("seven ports were asked for") };
        Ok(Self { router, router_admin, api, telemetry: [a, b, c, d] })
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints {
            router: format!("http://127.0.0.1:{}", self.router),
            router_admin: format!("http://127.0.0.1:{}", self.router_admin),
            api: format!("http://127.0.0.1:{}", self.api),
        }
    }

    /// Settings that differ from the defaults: ports, directories and the replay clock.
    fn settings(&self, args: &Demo, data: &Path) -> Vec<String> {
        let mut settings = vec![
            format!("data_dir={}", data.display()),
            format!("router.listen=127.0.0.1:{}", self.router),
            format!("router.admin_listen=127.0.0.1:{}", self.router_admin),
            format!("router.data_dir={}", data.join("router").display()),
            format!("router.random_seed={}", args.seed),
            format!("controller.listen=127.0.0.1:{}", self.api),
            format!("telemetry.listen=127.0.0.1:{}", self.telemetry[0]),
            "telemetry.log_level=warn".to_owned(),
        ];
        settings.extend(replay_settings());
        if let Some(brokers) = &args.kafka {
            settings.push("log.kind=kafka".to_owned());
            settings.push(format!("log.kafka.brokers={brokers}"));
            // Each run has its own topics.
            settings.push(format!("topology.prefix=demo-{}-", uuid::Uuid::now_v7().simple()));
        }
        settings
    }
}

/// Settings of a pipeline on a replay clock. Six hours pass in a moment, so no timeout may use the wall clock.
fn replay_settings() -> Vec<String> {
    vec![
        "router.clock=replay".to_owned(),
        "aggregator.writer_ttl=1000d".to_owned(),
        "aggregator.max_skew=1000d".to_owned(),
        "aggregator.intake.clock=replay".to_owned(),
        "topology.partitions=2".to_owned(),
    ]
}

/// The directory for log and state: one chosen by the user, or a temporary one that is removed at the end.
enum DataFolder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl DataFolder {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Temporary(TempDir::with_prefix("serin-demo-").context("a temporary directory")?));
        };
        std::fs::create_dir_all(path).with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Self::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}
