//! The connector with the real binary: what local receivers get has the form that the providers document, nothing is lost while they are
//! away, and nothing depends on the connector.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::Value;
use serin_tests::kafka::{Broker, unique_prefix};
use sha2::Sha256;

use support::{PATIENCE, Pipeline, ROLES, http, wait_until};
use world::{Behavior, MODEL, Traffic, User, borrowed, model_server, rollout, wall};

/// A signing secret of Standard Webhooks.
const SIGNING: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// An integration key of `PagerDuty`.
const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// The part of the address of a Slack webhook that is secret.
const SLACK: &str = "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX";
/// The status of a receiver that reads calls and never answers.
const HANGS: u16 = 0;

/// A call that a receiver got.
#[derive(Clone, Debug)]
struct Call {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    /// Status of the answer.
    status: u16,
}

impl Call {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the signature as Standard Webhooks documents it, and returns the body.
    fn verified(&self) -> Value {
        let header = |name: &str| self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).as_str();
        let key = STANDARD.decode(SIGNING.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert!(header("webhook-signature").split(' ').any(|signature| signature == expected), "{self:?}");
        assert!(header("webhook-timestamp").parse::<u64>().unwrap() > 1_700_000_000);
        self.json()
    }
}

/// A local receiver of every kind of destination.
struct Receiver {
    url: String,
    status: Arc<AtomicU16>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (status, calls) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<Call>>>::default());
        let (answers, got) = (Arc::clone(&status), Arc::clone(&calls));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, got) = (Arc::clone(&answers), Arc::clone(&got));
                thread::spawn(move || drop(receive(&stream, &answers, &got)));
            }
        });
        Self { url, status, calls }
    }

    fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The calls of a path.
    fn calls(&self, path: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|call| call.path.starts_with(path)).cloned().collect()
    }

    /// Waits for a call of a path that is accepted and that `wanted` chooses.
    fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Call {
        let mut found = None;
        wait_until(PATIENCE, || {
            found = self.calls(path).into_iter().find(|call| call.status == 200 && wanted(&call.json()));
            Ok(found.is_some())
        })
        .unwrap_or_else(|error| panic!("{error}: {path}: {:#?}", self.calls(path)));
        found.unwrap()
    }
}

fn receive(stream: &TcpStream, status: &AtomicU16, calls: &Mutex<Vec<Call>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let status = status.load(Ordering::Relaxed);
        let body = String::from_utf8(body).unwrap_or_default();
        calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { method, path, headers, body, status });
        if status == HANGS {
            return reader.read_to_end(&mut Vec::new()).map(drop);
        }
        write!(writer, "HTTP/1.1 {status} Answer\r\ncontent-length: 2\r\n\r\nok")?;
    }
}

/// Settings of one destination.
fn destination(index: usize, settings: &[(&str, &str)]) -> Vec<String> {
    settings.iter().map(|(name, value)| format!("connector.destinations[{index}].{name}={value}")).collect()
}

/// Settings of a webhook that gets every event in the life of a rollout.
fn webhook(receiver: &Receiver, folder: &Path) -> Vec<String> {
    let secret = folder.join("signing");
    std::fs::write(&secret, format!("{SIGNING}\n")).unwrap();
    let (url, secret) = (format!("{}/own", receiver.url), secret.display().to_string());
    let mut settings = vec![("name", "own"), ("kind", "webhook"), ("url", url.as_str()), ("secret_file", &secret)];
    let on = [
        ("on[0]", "started"),
        ("on[1]", "paused"),
        ("on[2]", "resumed"),
        ("on[3]", "aborted"),
        ("on[4]", "rolled_back"),
        ("on[5]", "undone"),
    ];
    settings.extend(on);
    destination(0, &settings)
}

#[test]
fn every_kind_of_destination_gets_its_documented_form() {
    let receiver = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (slack, key) = (file("slack", &format!("{}/slack/{SLACK}\n", receiver.url)), file("key", KEY));
    let (teams, pagerduty) = (format!("{}/teams?sig=a%2Fb", receiver.url), format!("{}/pagerduty", receiver.url));
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Fails));
    let settings = [
        wall(&[("v1", &v1), ("v2", &v2), ("v3", &v1)]),
        webhook(&receiver, folder.path()),
        destination(1, &[("name", "chat"), ("kind", "slack"), ("url_file", &slack)]),
        destination(2, &[("name", "team"), ("kind", "teams"), ("url", &teams)]),
        destination(3, &[("name", "on-call"), ("kind", "pagerduty"), ("url", &pagerduty), ("secret_file", &key)]),
        destination(4, &[("name", "others"), ("kind", "teams"), ("url", &teams), ("models[0]", "other-*")]),
        vec!["connector.public_url=https://serin.example.com".to_owned()],
    ]
    .concat();
    let pipeline = Pipeline::embedded(&borrowed(&settings)).unwrap();
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "1h"));
    let link = format!("https://serin.example.com/rollouts/{id}");

    let own = receiver.wait_for("/own", |body| body["type"] == "rollout.rolled_back").verified();
    assert!(own["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{own:#}");
    let data = &own["data"];
    assert_eq!((&data["model"], &data["rollout"], &data["url"]), (&MODEL.into(), &(&*id).into(), &(&*link).into()));
    assert_eq!((&data["canary"], &data["stable"]), (&"v2".into(), &"v1".into()));
    assert!(data["canary_answers"].as_i64().is_some_and(|answers| answers > 0), "{own:#}");
    let sentence = data["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("roll back: ") && sentence.contains(" % against "), "{sentence}");
    assert!(data["findings"][0]["metric"].is_string() && data["findings"][0]["segment"].is_object(), "{own:#}");

    let slack = receiver.wait_for("/slack", |_| true);
    assert_eq!(slack.path, format!("/slack/{SLACK}"));
    let blocks = slack.json()["blocks"].clone();
    let types: Vec<&str> = blocks.as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["header", "section", "section", "actions"]);
    assert!(slack.json()["text"].as_str().is_some_and(|text| text.contains("was rolled back")), "{slack:?}");
    assert_eq!(blocks[3]["elements"][0]["url"], *link);

    let card = receiver.wait_for("/teams", |_| true).json()["attachments"][0].clone();
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(
        (&card["content"]["type"], &card["content"]["actions"][0]["url"]),
        (&"AdaptiveCard".into(), &(&*link).into())
    );

    let incident = receiver.wait_for("/pagerduty", |_| true).json();
    assert_eq!((&incident["routing_key"], &incident["event_action"]), (&KEY.into(), &"trigger".into()));
    assert_eq!(incident["dedup_key"], format!("serin/{id}"));
    assert_eq!(incident["payload"]["severity"], "error");
    assert_eq!(incident["links"][0]["href"], *link);

    // The end of a rollout that a person takes back has its own word.
    let second = user.apply(&rollout("v3", "1h"));
    user.run(&["undo", &second, "--reason", "not today"]).expect(0);
    let undone = receiver.wait_for("/own", |body| body["type"] == "rollout.undone").verified();
    assert!(undone["data"]["sentence"].as_str().is_some_and(|text| text.contains("not today")), "{undone:#}");
    receiver.wait_for("/slack", |body| body["text"].as_str().is_some_and(|text| text.contains("was undone")));

    // Each delivery is on the log with its result, and in the metrics.
    let mut records = Vec::new();
    wait_until(PATIENCE, || {
        records = pipeline.tail("deliveries")?;
        let count = |name: &str| records.iter().filter(|record| record["value"][name].is_string()).count();
        Ok(count("delivery") > 0 && count("delivery") == count("on"))
    })
    .unwrap_or_else(|error| panic!("{error}: {records:#?}"));
    let results = records.iter().filter(|record| record["value"]["delivery"].is_string());
    assert!(results.into_iter().all(|record| record["value"]["result"] == "delivered"), "{records:#?}");
    let metrics = http(Method::GET, &format!("{}/metrics", pipeline.telemetry("up")), None).unwrap().text;
    let delivered = |name: &str| {
        let label = format!("destination=\"{name}\"");
        let mut lines = metrics.lines().filter(|line| line.starts_with("serin_deliveries_total{"));
        let line = lines.find(|line| line.contains(&label) && line.contains("result=\"delivered\"")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!((delivered("on-call").as_str(), delivered("others").as_str()), ("1", "0"), "{metrics}");

    // Every call is a POST of JSON. No secret is on the log, in the metrics, in the output or in the dump of the settings.
    for call in receiver.calls("/") {
        assert_eq!((call.method.as_str(), call.headers["content-type"].as_str()), ("POST", "application/json"));
        assert!(call.headers["user-agent"].starts_with("serin/"));
    }
    let dump = pipeline.cli(&["up", "--dump-config"]).unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(dump.contains("\"on-call\""), "{dump}");
    for text in [serde_json::to_string(&records).unwrap(), metrics, pipeline.log("up"), dump] {
        for secret in [SIGNING, KEY, SLACK, "sig=a"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

#[test]
fn a_receiver_that_is_away_misses_nothing_and_gets_nothing_with_another_content() {
    let receiver = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let url = model_server(Behavior::Good);
    let mut pipeline = Pipeline::embedded(&borrowed(&wall(&[("v1", &url), ("v2", &url)]))).unwrap();
    let user = User(pipeline.api());
    let early = user.apply(&rollout("v2", "1h"));
    user.run(&["abort", &early, "--reason", "too early"]).expect(0);
    pipeline.stop("up").unwrap();

    let settings: Vec<String> =
        webhook(&receiver, folder.path()).into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect();
    receiver.answer_with(503);
    pipeline.start_with("up", &borrowed(&settings)).unwrap();
    pipeline.ready().unwrap();
    let id = user.apply(&rollout("v2", "1h"));
    for verb in ["pause", "resume", "abort"] {
        user.run(&[verb, &id, "--reason", "a test"]).expect(0);
    }
    wait_until(PATIENCE, || Ok(receiver.calls("/own").len() >= 2)).unwrap();
    pipeline.kill("up").unwrap();
    let refused = receiver.calls("/own").len();
    receiver.answer_with(200);
    pipeline.start_with("up", &borrowed(&settings)).unwrap();
    pipeline.ready().unwrap();

    receiver.wait_for("/own", |body| body["type"] == "rollout.aborted");
    let calls = receiver.calls("/own");
    let mut bodies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut order = Vec::new();
    for call in &calls {
        let body = call.verified();
        assert_eq!(body["data"]["rollout"], *id, "events from before the first start are not delivered");
        let (key, kind) = (call.headers["webhook-id"].as_str(), body["data"]["on"].as_str().unwrap().to_owned());
        if bodies.entry(key).or_default().insert(&call.body) {
            order.push(kind);
        }
    }
    assert_eq!(order, ["started", "paused", "resumed", "aborted"], "every event once, in order");
    assert!(bodies.values().all(|bodies| bodies.len() == 1), "{bodies:#?}");
    assert!(calls[..refused].iter().all(|call| call.status == 503), "nothing was accepted while it was away");

    // A clean stop right after a call leaves no call to make again.
    pipeline.stop("up").unwrap();
    pipeline.start_with("up", &borrowed(&settings)).unwrap();
    pipeline.ready().unwrap();
    let third = user.apply(&rollout("v2", "1h"));
    receiver.wait_for("/own", |body| body["data"]["rollout"] == *third);
    let accepted: Vec<Call> = receiver.calls("/own").into_iter().filter(|call| call.status == 200).collect();
    let ids: BTreeSet<&str> = accepted.iter().map(|call| call.headers["webhook-id"].as_str()).collect();
    assert_eq!((accepted.len(), ids.len()), (5, 5), "{accepted:#?}");
}

#[test]
fn a_connector_that_is_killed_in_a_call_changes_no_rollout_and_makes_the_call_again() {
    let broker = Broker::shared().unwrap();
    let receiver = Receiver::start();
    let folder = tempfile::tempdir().unwrap();
    let (v1, v2) = (model_server(Behavior::Good), model_server(Behavior::Fails));
    let settings = [wall(&[("v1", &v1), ("v2", &v2)]), webhook(&receiver, folder.path())].concat();
    let roles = [&ROLES[..], &["connector"]].concat();
    let prefix = unique_prefix("connector");
    let mut pipeline = Pipeline::kafka_roles(broker.bootstrap(), &prefix, &borrowed(&settings), &roles).unwrap();
    receiver.answer_with(HANGS);
    let user = User(pipeline.api());
    let _traffic = Traffic::start(&pipeline.router(), 50);
    let id = user.apply(&rollout("v2", "1h"));
    wait_until(PATIENCE, || Ok(!receiver.calls("/own").is_empty())).unwrap();
    pipeline.kill("connector").unwrap();

    // The rollout is judged and rolled back as ever.
    user.wait_for_phase(&id, "rolled_back");
    receiver.answer_with(200);
    pipeline.start("connector").unwrap();
    receiver.wait_for("/own", |body| body["type"] == "rollout.rolled_back").verified();
    let calls = receiver.calls("/own");
    let same = |call: &&Call| call.headers["webhook-id"] == calls[0].headers["webhook-id"];
    let again: Vec<&Call> = calls.iter().filter(same).collect();
    assert!(again.len() >= 2 && again.iter().all(|call| call.body == calls[0].body), "{calls:#?}");
    let ended = pipeline.tail("audit").unwrap();
    let ended = ended.iter().filter(|record| record["value"]["kind"] == "rolled_back").count();
    assert_eq!(ended, 1);
}
