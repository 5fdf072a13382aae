//! A secured Kafka cluster: TLS and both password mechanisms, the errors for wrong settings, properties that are
//! passed through, and prefixes that isolate two installations on one cluster.
//!
//! The broker is always a separate one, with a certificate made here by Java's `keytool`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serin_access::Secret;
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions, Protocol, Security},
    log::{Log, Polled, Start},
    record::{Headers, Outgoing, Record, Target, TopicPartition},
};
use serin_tests::kafka::{Broker, BrokerOptions, free_port, unique_prefix};
use serin_topology::{EVENTS, TopicSpec, Topology};
use tempfile::TempDir;

const USER: &str = "serin";
const PLAIN_PASSWORD: &str = "correct-horse-plain";
const SCRAM_PASSWORD: &str = "correct-horse-scram";
const WRONG_PASSWORD: &str = "battery-staple-wrong";

/// How soon a wrong setting must be reported. A request may take 10 s.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);
/// How long records may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with a listener that requires TLS and a password.
struct Secured {
    _broker: Broker,
    /// Address of the secured listener.
    address: String,
    folder: TempDir,
}

impl Secured {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let keystore = certificate(folder.path(), "broker")?;
        certificate(folder.path(), "stranger")?;
        let port = free_port()?;
        let secure = |name: &str| format!("listener.name.secure.{name}");
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let properties = [
            (
                "listeners".to_owned(),
                format!("{LISTENERS},CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,SECURE://127.0.0.1:{port}"),
            ),
            ("advertised.listeners".to_owned(), format!("{LISTENERS},SECURE://127.0.0.1:{port}")),
            (
                "listener.security.protocol.map".to_owned(),
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL".to_owned(),
            ),
            (secure("sasl.enabled.mechanisms"), "PLAIN,SCRAM-SHA-512".to_owned()),
            (secure("plain.sasl.jaas.config"), format!("{plain} required user_{USER}=\"{PLAIN_PASSWORD}\";")),
            (secure("scram-sha-512.sasl.jaas.config"), format!("{scram} required;")),
            (secure("ssl.keystore.type"), "PKCS12".to_owned()),
            (secure("ssl.keystore.location"), keystore.display().to_string()),
            (secure("ssl.keystore.password"), STORE_PASSWORD.to_owned()),
        ];
        let scram_users = vec![(USER.to_owned(), SCRAM_PASSWORD.to_owned())];
        let broker =
            Broker::start(BrokerOptions { properties: properties.to_vec(), scram_users, ..BrokerOptions::default() })?;
        Ok(Self { _broker: broker, address: format!("127.0.0.1:{port}"), folder })
    }

    /// Valid settings with a unique prefix.
    fn options(&self, mechanism: &str, password: &str) -> KafkaOptions {
        let mut options = KafkaOptions::new(&self.address, &unique_prefix("secured"));
        options.security = Security {
            protocol: Protocol::SaslSsl,
            ca_file: Some(self.folder.path().join("broker.pem")),
            sasl_mechanism: Some(mechanism.to_owned()),
            username: Some(USER.to_owned()),
            password: Some(Secret::new(password.to_owned())),
            ..Security::default()
        };
        options
    }
}

const LISTENERS: &str = "PLAINTEXT://127.0.0.1:@PORT@";
const STORE_PASSWORD: &str = "not-a-secret";

/// The broker of these tests. As a static it is not dropped; its node ends with the process.
static SECURED: LazyLock<Secured> =
    LazyLock::new(|| Secured::start().unwrap_or_else(|error| panic!("a secured broker: {error:#}")));

/// Creates a key with a self-signed certificate for 127.0.0.1. Returns `name.p12`; the certificate is in `name.pem`.
fn certificate(folder: &Path, name: &str) -> Result<PathBuf> {
    let (store, pem) = (folder.join(format!("{name}.p12")), folder.join(format!("{name}.pem")));
    let keytool = |verb: &str, rest: &[&str]| -> Result<()> {
        let mut command = Command::new("keytool");
        command.args([verb, "-alias", name, "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-keystore"]);
        let output =
            command.arg(&store).args(rest).output().context("keytool, which comes with Java, cannot be run")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "keytool {verb}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let key = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2", "-dname", "CN=127.0.0.1"];
    keytool("-genkeypair", &[&key[..], &["-ext", "san=ip:127.0.0.1"]].concat())?;
    keytool("-exportcert", &["-rfc", "-file", &pem.display().to_string()])?;
    Ok(store)
}

fn events_topic() -> TopicSpec {
    let topology = Topology { partitions: 1, ..Topology::default() };
    topology.topics().into_iter().find(|topic| topic.name == EVENTS).expect("it is in the catalog")
}

fn record(value: &str) -> Outgoing {
    Outgoing {
        topic: EVENTS,
        target: Target::Partition(0),
        key: "k".into(),
        value: Some(value.to_owned().into()),
        headers: Headers::default(),
        timestamp_ms: None,
    }
}

/// Creates the topic, commits a transaction and writes a plain record.
fn write(log: &KafkaLog, values: [&str; 2]) -> TopicPartition {
    log.create(&[events_topic()]).expect("the topic can be created");
    let mut transactional = log.transactional("secured-0").expect("the id is ours");
    transactional.commit(&[record(values[0])], &[], None).expect("the commit");
    let writer = log.writer(10).expect("a writer");
    writer.send(record(values[1])).expect("it is queued");
    writer.flush(PATIENCE).expect("it is written");
    TopicPartition::new(&log.full_name(EVENTS), 0)
}

/// All committed values, as text.
fn read(log: &KafkaLog, at: &TopicPartition) -> Vec<String> {
    let mut reader = log.reader(&[(at.clone(), Start::Beginning)]).expect("a reader");
    let (deadline, mut records) = (Instant::now() + PATIENCE, Vec::<Record>::new());
    while reader.poll(100, Duration::from_secs(1), &mut records).expect("it can be read") != Polled::AtEnd {
        assert!(Instant::now() < deadline, "no end after {PATIENCE:?}: {records:?}");
    }
    let text = |record: Record| String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned();
    records.into_iter().map(text).collect()
}

/// The error of a connection with these options, which must fail in time and without showing a password.
fn refusal(options: &KafkaOptions) -> String {
    let since = Instant::now();
    let error = KafkaLog::connect(options).err().expect("this must not connect");
    assert!(since.elapsed() < REPORTED_WITHIN, "reported only after {:?}: {error}", since.elapsed());
    for text in [format!("{error}"), format!("{error:?}"), format!("{options:?}")] {
        for password in [PLAIN_PASSWORD, SCRAM_PASSWORD, WRONG_PASSWORD] {
            assert!(!text.contains(password), "a password is shown: {text}");
        }
    }
    error.to_string()
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn transactions_work_over_tls_with_plain_and_with_scram() {
    let secured = &*SECURED;
    for (mechanism, password) in [("PLAIN", PLAIN_PASSWORD), ("SCRAM-SHA-512", SCRAM_PASSWORD)] {
        let log = KafkaLog::connect(&secured.options(mechanism, password)).expect(mechanism);
        let at = write(&log, ["in a transaction", "plainly"]);
        assert_eq!(read(&log, &at), ["in a transaction", "plainly"], "{mechanism}");
        let described = log.describe(&[EVENTS]).expect("it can be described");
        assert_eq!(described.len(), 1);
    }
}

#[test]
fn a_member_of_a_group_gets_its_partition_over_tls() {
    let secured = &*SECURED;
    let log = KafkaLog::connect(&secured.options("SCRAM-SHA-512", SCRAM_PASSWORD)).expect("it connects");
    log.create(&[events_topic()]).expect("the topic can be created");
    let member = log.join("secured", &[EVENTS]).expect("it joins");
    let assignment = member.poll(PATIENCE).expect("the membership lives");
    assert_eq!(assignment, Some(serin_stream::log::Assignment::Assigned(vec![0])));
}

#[test]
fn a_wrong_password_is_reported_with_the_setting_and_without_the_password() {
    let secured = &*SECURED;
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let text = refusal(&secured.options(mechanism, WRONG_PASSWORD));
        assert_contains(&text, &[&secured.address, "uthentication failed", "check", "`security.password`"]);
    }
}

#[test]
fn a_mechanism_that_the_broker_does_not_have_is_reported() {
    let secured = &*SECURED;
    let text = refusal(&secured.options("SCRAM-SHA-256", SCRAM_PASSWORD));
    assert_contains(&text, &[&secured.address, "SCRAM-SHA-256", "`security.sasl_mechanism`"]);
}

#[test]
fn a_missing_or_wrong_authority_is_reported_with_the_setting() {
    let secured = &*SECURED;
    let mut options = secured.options("PLAIN", PLAIN_PASSWORD);
    for ca_file in [None, Some(secured.folder.path().join("stranger.pem"))] {
        options.security.ca_file = ca_file;
        assert_contains(&refusal(&options), &[&secured.address, "certificate", "check", "`security.ca_file`"]);
    }
    options.security.ca_file = Some(secured.folder.path().join("nowhere.pem"));
    assert_contains(&refusal(&options), &["`security.ca_file`", "nowhere.pem", "cannot be read"]);
}

#[test]
fn a_wrong_protocol_is_reported_with_the_setting() {
    let secured = &*SECURED;
    let text = refusal(&KafkaOptions::new(&secured.address, "p."));
    assert_contains(&text, &[&secured.address, "check `brokers`", "`security.protocol`"]);
}

#[test]
fn properties_reach_librdkafka_and_wrong_ones_are_reported() {
    let secured = &*SECURED;
    let mut options = secured.options("PLAIN", PLAIN_PASSWORD);
    // The same listener, with all settings as properties.
    options.security.password = None;
    options.properties.insert("sasl.password".into(), PLAIN_PASSWORD.into());
    KafkaLog::connect(&options).expect("the password came as a property");

    let with = |name: &str, value: &str| {
        let mut options = options.clone();
        options.properties.insert(name.into(), value.into());
        options
    };
    // librdkafka checks this property when the client is created, so the error proves that it was passed through.
    let refused = refusal(&with("ssl.cipher.suites", "ROT13"));
    assert_contains(&refused, &["ssl.cipher.suites"]);
    assert_contains(&refusal(&with("linger.mss", "5")), &["`linger.mss`", "remove it from `properties`"]);
    let text = refusal(&with("compression.type", "squeezed"));
    assert_contains(&text, &["`compression.type`", "no valid value"]);
    assert!(!text.contains("squeezed"), "a value is shown, which may be a secret elsewhere: {text}");
    assert_contains(&refusal(&with("isolation.level", "read_uncommitted")), &["`isolation.level`", "managed by Serin"]);
}

#[test]
fn two_prefixes_on_one_cluster_do_not_see_each_other() {
    let connect = || KafkaLog::connect(&SECURED.options("PLAIN", PLAIN_PASSWORD)).expect("it connects");
    let (one, other) = (connect(), connect());
    let at = write(&one, ["of one", "of one too"]);
    // One prefix does not see the topics of the other.
    assert!(other.describe(&[EVENTS]).expect("it answers").is_empty());
    assert!(other.partitions(EVENTS).unwrap_err().to_string().contains(&*other.full_name(EVENTS)));
    assert!(other.join("secured", &[EVENTS]).is_err());

    // With the same names of topic and transactional id, neither fences nor reads the other.
    let mut kept = one.transactional("kept").expect("the id is ours");
    let at_other = write(&other, ["of the other", "of the other too"]);
    let mut same_id = other.transactional("kept").expect("the id is ours");
    same_id.commit(&[record("last of the other")], &[], None).expect("not fenced");
    kept.commit(&[record("last of one")], &[], None).expect("not fenced");
    assert_eq!(read(&one, &at), ["of one", "of one too", "last of one"]);
    assert_eq!(read(&other, &at_other), ["of the other", "of the other too", "last of the other"]);
}
