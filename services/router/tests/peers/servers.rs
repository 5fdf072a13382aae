//! Third-party servers: started for a test on loopback, and stopped at its end.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Bench, eventually};

pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/python");

/// A Python environment with the packages of a requirements file, cached per version of that file.
pub(crate) fn python(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let requirements = Path::new(FOLDER).join(format!("{name}.txt"));
    let text = fs::read(&requirements).unwrap();
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("serin");
    let venv = cache.join(format!("{name}-{:016x}", serin_sketches::hash::hash64(b"requirements", &text)));
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if done.exists() {
        return python;
    }
    // Remains of an interrupted run are removed.
    drop(fs::remove_dir_all(&venv));
    fs::create_dir_all(&cache).unwrap();
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).output().unwrap();
    assert!(
        made.status.success(),
        "python3 with venv is needed (scripts/install-build-deps.sh --test): {}",
        text_of(&made)
    );
    let pip =
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements).output().unwrap();
    assert!(
        pip.status.success(),
        "the packages of {} could not be installed: {}",
        requirements.display(),
        text_of(&pip)
    );
    fs::write(done, "").unwrap();
    python
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a client and reads the JSON that it prints.
pub(crate) async fn client(script: &str, arguments: Vec<String>) -> Value {
    client_of("kserve", script, arguments).await
}

/// The same with the packages of another requirements file.
pub(crate) async fn client_of(packages: &str, script: &str, arguments: Vec<String>) -> Value {
    let script = Path::new(FOLDER).join(script);
    let python = python(packages);
    let run = move || Command::new(python).arg(script).args(arguments).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text_of(&output)))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A third-party server.
pub(crate) struct Peer {
    process: Child,
    /// Its working directory.
    folder: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Terminates the server and its children, which form one process group.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        if self.process.wait().is_err() {
            let _ = self.process.kill();
        }
    }
}

impl Peer {
    /// Starts a server and waits until it is ready. `command` gets the directory and free ports for HTTP and gRPC. Another process may take
    /// these ports before the server has finished importing Python modules; the server is then started again with other ports.
    async fn start(ready: &str, folder: TempDir, command: impl Fn(&Path, u16, u16) -> Command) -> Self {
        let mut folder = folder;
        loop {
            match Self::try_start(ready, folder, &command).await {
                Ok(peer) => return peer,
                Err(again) => folder = again,
            }
        }
    }

    /// Returns the directory if the server exited because one of its ports was taken.
    async fn try_start(
        ready: &str,
        folder: TempDir,
        command: impl Fn(&Path, u16, u16) -> Command,
    ) -> Result<Self, TempDir> {
        let (http, grpc) = (free_port(), free_port());
        let log = folder.path().join("log");
        let file = File::create(&log).unwrap();
        let mut command = command(folder.path(), http, grpc);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut peer = Self { process, folder, http: at(http), grpc: at(grpc) };
        let url = format!("http://{}{ready}", peer.http);
        // Importing Python modules takes long on a busy machine.
        let end = std::time::Instant::now() + Duration::from_mins(3);
        loop {
            let is_ready = if ready.is_empty() {
                tokio::net::TcpStream::connect(peer.grpc).await.is_ok()
            } else {
                get(&url).await == Some(200)
            };
            let text = || fs::read_to_string(&log).unwrap_or_default();
            if peer.process.try_wait().unwrap().is_some() {
                let words = ["address already in use", "Address already in use", "Failed to bind", "Errno 98"];
                let text = text();
                assert!(words.iter().any(|words| text.contains(words)), "the server exited: {text}");
                return Err(std::mem::replace(&mut peer.folder, tempfile::tempdir().unwrap()));
            }
            if is_ready {
                return Ok(peer);
            }
            assert!(std::time::Instant::now() < end, "the server is not ready: {}", text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A directory with the trained model.
    fn model() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(FOLDER).join("model.py");
        let trained = Command::new(python("kserve")).arg(script).arg(folder.path()).output().unwrap();
        assert!(trained.status.success(), "{}", text_of(&trained));
        folder
    }

    /// `KServe`'s Python server with the model `iris`.
    pub(crate) async fn kserve() -> Self {
        Self::start("/v2/models/iris/ready", Self::model(), |folder, http, grpc| {
            let mut command = Command::new(python("kserve"));
            command.arg(Path::new(FOLDER).join("kserve_server.py")).arg(folder);
            command.args(["--http_port", &http.to_string(), "--grpc_port", &grpc.to_string()]);
            command
        })
        .await
    }

    /// `MLServer` with the same model, as its version 2.
    pub(crate) async fn mlserver() -> Self {
        Self::start("/v2/models/iris/ready", Self::model(), |folder, http, grpc| {
            let settings = json!({"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": free_port(),
                "parallel_workers": 0});
            let model = json!({"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel",
                "parameters": {"uri": "./model.joblib", "version": "2"}});
            fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
            fs::write(folder.join("model-settings.json"), model.to_string()).unwrap();
            let mut command = Command::new(python("mlserver").with_file_name("mlserver"));
            command.args(["start", "."]).current_dir(folder);
            command
        })
        .await
    }

    /// A gRPC server with its own metadata and trailers.
    pub(crate) async fn grpc() -> Self {
        Self::start("", tempfile::tempdir().unwrap(), |_, _, grpc| {
            let mut command = Command::new(python("kserve"));
            command.arg(Path::new(FOLDER).join("grpc_server.py")).arg(grpc.to_string());
            command
        })
        .await
    }

    /// An OpenAI-compatible server.
    pub(crate) async fn openai() -> Self {
        Self::start("/health", tempfile::tempdir().unwrap(), |_, http, _| {
            let mut command = Command::new(python("kserve"));
            command.arg(Path::new(FOLDER).join("openai_server.py")).arg(http.to_string());
            command
        })
        .await
    }

    /// `LitServe`.
    pub(crate) async fn litserve() -> Self {
        Self::start("/health", tempfile::tempdir().unwrap(), |_, http, _| {
            let mut command = Command::new(python("litserve"));
            command.arg(Path::new(FOLDER).join("litserve_server.py")).arg(http.to_string());
            command
        })
        .await
    }

    /// `BentoML`.
    pub(crate) async fn bentoml() -> Self {
        Self::start("/readyz", tempfile::tempdir().unwrap(), |folder, http, _| {
            let mut command = Command::new(python("bentoml").with_file_name("bentoml"));
            command.args(["serve", "bentoml_service:Doubler", "--host", "127.0.0.1", "--port", &http.to_string()]);
            command.args(["--working-dir", FOLDER]).env("BENTOML_HOME", folder).env("BENTOML_DO_NOT_TRACK", "1");
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        })
        .await
    }

    /// Envoy, which sends calls with the header `x-version: v2` to `v2` and the others to `v1`, and its access log to `serin`.
    pub(crate) async fn envoy(serin: SocketAddr, token: &str, v1: SocketAddr, v2: SocketAddr) -> Self {
        let text = fs::read_to_string(Path::new(FOLDER).join("envoy.yaml")).unwrap();
        Self::start("/ready", tempfile::tempdir().unwrap(), |folder, http, _| {
            let ports = [("@PORT@", http), ("@SERIN@", serin.port()), ("@V1@", v1.port()), ("@V2@", v2.port())];
            let text = ports
                .iter()
                .fold(text.replace("@TOKEN@", token), |text, (name, port)| text.replace(name, &port.to_string()));
            let file = folder.join("envoy.yaml");
            fs::write(&file, text).unwrap();
            let mut command = Command::new(python("envoy").with_file_name("envoy"));
            command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
            command
        })
        .await
    }

    /// nginx, as a plain server of a file and as a proxy that returns data of the request.
    pub(crate) async fn nginx() -> Self {
        Self::start("/health", tempfile::tempdir().unwrap(), |folder, http, _| {
            let at = folder.display();
            let configuration = format!(
                "daemon off; pid {at}/pid; error_log stderr; worker_processes 1;
                events {{ worker_connections 128; }}
                http {{
                    access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
                    fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                    server {{
                        listen 127.0.0.1:{http}; keepalive_timeout 4s; client_max_body_size 0;
                        location /health {{ return 200; }}
                        location /score {{
                            default_type application/json;
                            return 200 '{{\"score\": 0.5, \"uri\": \"$request_uri\", \"host\": \"$http_x_forwarded_host\"}}';
                        }}
                        location /missing {{ return 404; }}
                    }}
                }}"
            );
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration).unwrap();
            let debians = Path::new("/usr/sbin/nginx");
            let mut command = Command::new(if debians.exists() { debians } else { Path::new("nginx") });
            command.arg("-p").arg(folder).arg("-c").arg(file);
            command
        })
        .await
    }
}

/// The status of a GET request.
async fn get(url: &str) -> Option<u16> {
    let client: hyper_util::client::legacy::Client<_, http_body_util::Full<bytes::Bytes>> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    Some(client.get(url.parse().unwrap()).await.ok()?.status().as_u16())
}

/// Waits for the newest prediction with this request id.
pub(crate) async fn prediction(bench: &Bench, id: &str) -> serin_schemas::records::Prediction {
    eventually(&format!("the prediction {id}"), async || {
        crate::harness::Events::read(&bench.log).predictions().into_iter().find(|found| found.request_id.as_str() == id)
    })
    .await
}
