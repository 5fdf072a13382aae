//! The environment of a pipeline under test: good and bad model servers, callers, rollout files, and a user of the command line.

#![allow(dead_code, reason = "each test file uses only a part of this module")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{PATIENCE, SERIN, free_port, wait_until};

/// The model of these tests.
pub(crate) const MODEL: &str = "flights";

/// How a model server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Answers with a probability of 0.1.
    Good,
    /// Answers with NaN as probability.
    Nan,
    /// Answers with status 500.
    Fails,
    /// Reads the request and never answers.
    Hangs,
    /// Closes the connection in the middle of the answer.
    HalfBody,
    /// Like `Good`, in two chunks with a pause between them, so that the caller has the head before the rest.
    Streams,
}

/// Starts a model server for the Open Inference Protocol V2, and returns its base URL. It ends with the process.
pub(crate) fn model_server(behavior: Behavior) -> String {
    model_server_by(move || behavior)
}

/// Starts a model server whose behavior is determined for each call.
pub(crate) fn model_server_by(behavior: impl Fn() -> Behavior + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A closed connection ends its thread, not the server.
            let behavior = behavior.clone();
            thread::spawn(move || drop(serve(&stream, behavior)));
        }
    });
    url
}

/// A base URL without a listener.
pub(crate) fn unreachable_url() -> String {
    format!("http://127.0.0.1:{}", free_port().unwrap())
}

fn serve(stream: &TcpStream, behavior: impl Fn() -> Behavior) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while read_request(&mut reader)? {
        let behavior = behavior();
        let number = if behavior == Behavior::Nan { "NaN" } else { "0.1" };
        let body = format!(
            r#"{{"model_name":"{MODEL}","outputs":[{{"name":"probability","shape":[1],"datatype":"FP64","data":[{number}]}}]}}"#
        );
        let head = |status: &str, length: usize| {
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
        };
        let answer = match behavior {
            Behavior::Good | Behavior::Nan => head("200 OK", body.len()) + &body,
            Behavior::Fails => head("500 Internal Server Error", 2) + "{}",
            Behavior::HalfBody => head("200 OK", body.len()) + &body[..body.len() / 2],
            Behavior::Streams => {
                let (first, second) = body.split_at(body.len() / 2);
                let piece = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                writer.write_all((head.to_owned() + &piece(first)).as_bytes())?;
                thread::sleep(Duration::from_millis(30));
                piece(second) + "0\r\n\r\n"
            }
            Behavior::Hangs => {
                reader.read_to_end(&mut Vec::new())?;
                break;
            }
        };
        writer.write_all(answer.as_bytes())?;
        if behavior == Behavior::HalfBody {
            break;
        }
    }
    stream.shutdown(std::net::Shutdown::Both)
}

/// Reads one request to its end. Returns false if there is none.
fn read_request(reader: &mut impl std::io::BufRead) -> std::io::Result<bool> {
    let mut length = 0;
    let mut line = String::new();
    let mut any = false;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() && any {
            break;
        }
        any = true;
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    Ok(true)
}

/// Callers of a model through the router, until dropped: requests at a constant rate, with feedback on each answer.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<(String, u16), u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Starts calling `router`.
    pub(crate) fn start(router: &str, per_second: u32) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let (asked, counts, router) = (Arc::clone(&stop), Arc::clone(&seen), router.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let client = reqwest::Client::new();
                let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
                while !asked.load(Ordering::Relaxed) {
                    pace.tick().await;
                    tokio::spawn(call(client.clone(), router.clone(), Arc::clone(&counts)));
                }
            });
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// Number of an arm's answers with a status.
    pub(crate) fn answers(&self, arm: &str, status: u16) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(arm.to_owned(), status)).copied().unwrap_or(0)
    }

    /// Waits for `more` further answers of an arm with a status.
    pub(crate) fn wait_for(&self, arm: &str, status: u16, more: u64) {
        let before = self.answers(arm, status);
        wait_until(PATIENCE, || Ok(self.answers(arm, status) >= before + more))
            .unwrap_or_else(|error| panic!("{arm} {status}: {error}"));
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

async fn call(client: reqwest::Client, router: String, seen: Arc<Mutex<BTreeMap<(String, u16), u64>>>) {
    let request = client.post(format!("{router}/v2/models/{MODEL}/infer")).body(infer().to_string());
    let Ok(answer) = request.send().await else { return };
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (arm, id, status) = (header("x-model-arm"), header("x-prediction-id"), answer.status().as_u16());
    if answer.bytes().await.is_ok() {
        *seen.lock().unwrap_or_else(PoisonError::into_inner).entry((arm, status)).or_default() += 1;
    }
    let feedback = json!({"prediction_id": id, "values": {"late": 0}});
    drop(client.post(format!("{router}/v1/feedback")).body(feedback.to_string()).send().await);
}

/// A request to the model.
pub(crate) fn infer() -> Value {
    json!({"inputs": [{"name": "origin", "shape": [1], "datatype": "BYTES", "data": ["LGA"]}]})
}

/// A rollout of seconds from v1 to `canary`, judged by labels over HTTP. `bake_min` is for example `1s`. A pass would take longer, so the
/// last step does not require one.
pub(crate) fn rollout(canary: &str, bake_min: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1
kind: Rollout
model: {MODEL}
stable: {{version: v1}}
canary: {{version: {canary}}}
window: 1s
warmup: {{minEvents: 50}}
steps:
  - {{weight: 30%, bake: {{min: {bake_min}, max: 2h}}}}
  - {{weight: 50%, bake: {{min: {bake_min}, max: 2h}}, require: no_fail}}
outputs:
  - {{name: probability, source: {{tensor: probability}}, min: 0, max: 1}}
metrics:
  - name: wrong_rate
    kind: rate
    source: {{wrong: {{output: probability, label: late}}}}
    margin: {{absolute: 0.2}}
    maturity: 1s
"
    )
}

/// Settings of a pipeline on the machine's clock whose router has these versions. v1 is stable.
pub(crate) fn wall(versions: &[(&str, &str)]) -> Vec<String> {
    let mut settings: Vec<String> = [
        "topology.partitions=2",
        "router.name=router-0",
        "router.heartbeat_every=100ms",
        "router.timeouts.first_byte=1s",
    ]
    .map(Into::into)
    .into();
    settings.push(format!("router.models.{MODEL}.stable=v1"));
    settings.extend(versions.iter().map(|(version, url)| format!("router.models.{MODEL}.versions.{version}={url}")));
    settings
}

/// Borrows settings, as `Pipeline` expects them.
pub(crate) fn borrowed(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

/// Output and exit status of a command.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output as JSON, one document per line.
    fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.out.lines().map(parse).collect()
    }

    /// Asserts the exit status, and returns the run.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// `serin ARGUMENTS`, without the variables of this environment that would affect it.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(SERIN);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("SERIN_") || name.starts_with("OTEL_") || ["RUST_LOG", "COLUMNS"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs `serin ARGUMENTS`.
pub(crate) fn serin(arguments: &[&str]) -> Run {
    run(&mut command(arguments))
}

/// Runs a command.
pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A user of the command line with one controller.
pub(crate) struct User(pub(crate) String);

impl User {
    /// Runs `serin ARGUMENTS` against that controller.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(command(arguments).env("SERIN_API", &self.0))
    }

    /// Starts `serin ARGUMENTS` against that controller.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        command(arguments).env("SERIN_API", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `serin ARGUMENTS` with a rollout file. `{}` in the arguments is replaced by its path.
    pub(crate) fn with_file(&self, text: &str, arguments: &[&str]) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rollout.yaml");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let arguments: Vec<&str> =
            arguments.iter().map(|argument| if *argument == "{}" { file.as_str() } else { argument }).collect();
        let mut run = self.run(&arguments);
        run.out = run.out.replace(&file, "rollout.yaml");
        run
    }

    /// Starts a rollout, and returns its id.
    pub(crate) fn apply(&self, spec: &str) -> String {
        let answer = self.with_file(spec, &["apply", "-f", "{}", "--output", "json"]).expect(0).json();
        answer["rollout"].as_str().unwrap().to_owned()
    }

    /// The state of a rollout.
    pub(crate) fn state(&self, rollout: &str) -> Value {
        self.run(&["get", rollout, "--output", "json"]).expect(0).json()["state"].take()
    }

    /// Waits until a rollout is in a phase.
    pub(crate) fn wait_for_phase(&self, rollout: &str, phase: &str) -> Value {
        let mut state = Value::Null;
        wait_until(PATIENCE, || {
            state = self.state(rollout);
            Ok(state["phase"] == phase)
        })
        .unwrap_or_else(|error| panic!("{error} for {phase}: {state:#}"));
        state
    }
}

/// Iterates over the output lines of a child.
pub(crate) fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}
