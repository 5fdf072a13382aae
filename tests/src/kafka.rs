//! A real Apache Kafka for the tests: one node, started from the jars that `tests/kafka/pom.xml` names.
//!
//! `tests/kafka/run.sh` starts a node, and this module only runs the script. Invariants:
//! - Only a node that was started here is ever stopped, by its process id.
//! - A node never outlives its test process: it is tied to a pipe that the kernel closes, even after `kill -9`. This is
//!   what stops the broker of [`Broker::shared`], since statics are not dropped.
//! - No test is skipped silently: without Java or Maven a test fails, and its error names the command to run.
//!
//! With `SERIN_TEST_BROKERS` set, the shared broker is that cluster. Tests that stop a node, or need other properties, still
//! start their own.

mod cluster;

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

pub use self::cluster::{Cluster, NODES};

/// The environment variable that names another cluster to test against, as `host:port,host:port`.
pub const BROKERS_ENV: &str = "SERIN_TEST_BROKERS";

/// How long a node may take to start. It takes 3 s on an idle machine; the first run also downloads the jars.
const START_DEADLINE: Duration = Duration::from_mins(3);

/// Ports below the range from which systems take the ports of outgoing connections, so that a port stays free while its
/// node is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How a node is started. Nearly every test uses the default.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// Broker properties (`message.max.bytes`, ...), added to `tests/kafka/server.properties`. `@PORT@`,
    /// `@CONTROLLER_PORT@` and `@DATA@` are filled in. With any properties, the node must still serve plaintext on
    /// `@PORT@`.
    pub properties: Vec<(String, String)>,
    /// Users with their passwords for SCRAM-SHA-512, if a listener accepts it.
    pub scram_users: Vec<(String, String)>,
    /// Id of the cluster, if this is one of several nodes. `properties` then contain the node's id and the voters.
    pub cluster: Option<String>,
}

/// A Kafka cluster to test against: a node that was started here, or the cluster that `SERIN_TEST_BROKERS` names.
#[derive(Debug)]
pub struct Broker {
    bootstrap: String,
    node: Option<Node>,
}

/// A node that was started here. `running` is `None` between `stop` and `start_again`.
#[derive(Debug)]
struct Node {
    ports: (u16, u16),
    data: TempDir,
    options: BrokerOptions,
    running: Option<Running>,
}

/// A running process, and the pipe whose end stops it.
#[derive(Debug)]
struct Running {
    child: Child,
    leash: ChildStdin,
}

impl Broker {
    /// The broker of this test process: started by the first test that needs it, ended with the process.
    ///
    /// Tests share it, so each test uses names under its own [`unique_prefix`].
    pub fn shared() -> Result<&'static Broker> {
        static SHARED: OnceLock<Result<Broker, String>> = OnceLock::new();
        let open = || match std::env::var(BROKERS_ENV) {
            Err(_) => Broker::start(BrokerOptions::default()),
            Ok(bootstrap) => wait_until_serving(&bootstrap, None)
                .with_context(|| format!("{BROKERS_ENV} is set to {bootstrap}"))
                .map(|()| Broker { bootstrap, node: None }),
        };
        SHARED.get_or_init(|| open().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// Starts a separate broker and waits until it is ready: for tests that stop it, or that need other properties.
    pub fn start(options: BrokerOptions) -> Result<Broker> {
        let mut broker = Broker::new(free_ports()?, options)?;
        broker.start_again()?;
        Ok(broker)
    }

    /// A node that is not running yet.
    fn new(ports: (u16, u16), options: BrokerOptions) -> Result<Broker> {
        let data =
            tempfile::Builder::new().prefix("serin-kafka.").tempdir().context("a directory for the broker's data")?;
        let bootstrap = format!("127.0.0.1:{}", ports.0);
        Ok(Broker { bootstrap, node: Some(Node { ports, data, options, running: None }) })
    }

    /// The address for clients (`bootstrap.servers`).
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The node's process id; `None` while it is stopped, and for a cluster that was not started here. For tests that
    /// freeze it.
    pub fn pid(&self) -> Option<u32> {
        Some(self.node.as_ref()?.running.as_ref()?.child.id())
    }

    /// Kills the node (SIGKILL) and waits until it has exited. Data and ports are kept for [`Broker::start_again`].
    pub fn stop(&mut self) -> Result<()> {
        let node = self.own_node()?;
        match node.running.take() {
            Some(running) => running.kill().context("stopping the broker"),
            None => Ok(()),
        }
    }

    /// Asks the node to end (SIGTERM) and waits for it. Data and ports are kept for [`Broker::start_again`].
    pub fn shut_down(&mut self, limit: Duration) -> Result<()> {
        self.signal("-TERM")?;
        let node = self.own_node()?;
        let Some(mut running) = node.running.take() else { return Ok(()) };
        let deadline = Instant::now() + limit;
        while running.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                running.kill().context("stopping the broker")?;
                bail!("the broker did not end within {limit:?} when asked");
            }
            thread::sleep(Duration::from_millis(50));
        }
        running.kill().context("cleaning up after the broker")
    }

    /// Sends a signal to the node, such as `-STOP`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("no node that was started here is running")?.to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "kill {signal} {pid}");
        Ok(())
    }

    /// Starts a stopped node again, with its data and ports, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        let bootstrap = self.bootstrap.clone();
        let node = self.own_node()?;
        if node.running.is_none() {
            node.spawn()?;
        }
        wait_until_serving(&bootstrap, Some(node))
    }

    fn own_node(&mut self) -> Result<&mut Node> {
        self.node.as_mut().with_context(|| {
            format!("the cluster of {BROKERS_ENV} was not started here, so it cannot be started or stopped")
        })
    }
}

impl Node {
    fn log_file(&self) -> PathBuf {
        self.data.path().join("node.log")
    }

    fn spawn(&mut self) -> Result<()> {
        let script = folder().join("run.sh");
        let log = File::options().create(true).append(true).open(self.log_file()).context("the broker's log file")?;
        let mut command = Command::new(&script);
        command.args(["--port", &self.ports.0.to_string(), "--controller-port", &self.ports.1.to_string()]);
        command.arg("--data").arg(self.data.path()).arg("--stop-with-parent");
        for (key, value) in &self.options.properties {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        for (name, password) in &self.options.scram_users {
            command.arg("--scram").arg(format!("{name}={password}"));
        }
        if let Some(cluster) = &self.options.cluster {
            command.args(["--cluster", cluster]);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", script.display()))?;
        let leash = child.stdin.take().context("the broker's standard input is a pipe")?;
        self.running = Some(Running { child, leash });
        Ok(())
    }

    /// Returns an error with the end of the node's log if the node has ended.
    fn check_alive(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { bail!("the broker is stopped") };
        let Some(status) = running.child.try_wait()? else { return Ok(()) };
        self.running = None;
        bail!("the broker ended with {status}:\n{}", self.log_end())
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Running {
    fn kill(mut self) -> Result<()> {
        // A line makes the watcher (see run.sh) end without killing. The kill below is the only one, before the id is
        // free again.
        self.leash.write_all(b"stop\n").ok();
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Err(error) = running.kill()
        {
            eprintln!("the broker of a test could not be stopped: {error:#}");
        }
    }
}

/// A prefix for topics, groups and transactional ids that no other test, process or earlier run has, such as
/// `promote-9f3c21d04a77e1b5.`. The part before `-` is `test`, for people who look at the cluster.
pub fn unique_prefix(test: &str) -> String {
    format!("{test}-{:016x}.", random())
}

/// A client configuration with only the address set, for clients of a test.
pub fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka")
}

/// 64 random bits: the standard library seeds the keys of each hasher from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A free port for one more listener of a node.
pub fn free_port() -> Result<u16> {
    Ok(free_ports()?.0)
}

/// Two adjacent free ports, searched from a random start so that test processes rarely collide.
fn free_ports() -> Result<(u16, u16)> {
    let span = u64::from(PORTS.end - PORTS.start - 1);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..100)
        .map(|_| PORTS.start + (random() % span) as u16)
        .find(|&port| is_free(port) && is_free(port + 1))
        .map(|port| (port, port + 1))
        .with_context(|| format!("no two free ports in {PORTS:?} on 127.0.0.1"))
}

/// Waits until the cluster answers a metadata request with a live broker in it.
fn wait_until_serving(bootstrap: &str, mut node: Option<&mut Node>) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    let address = bootstrap.split(',').next().unwrap_or(bootstrap);
    loop {
        if let Some(node) = node.as_deref_mut() {
            node.check_alive()?;
        }
        // A client that is refused waits longer each time. Probing the port first lets its first attempt succeed.
        let answer = if std::net::TcpStream::connect(address).is_ok() { live_brokers(bootstrap) } else { Ok(0) };
        if matches!(answer, Ok(1..)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let log = node.map(|node| node.log_end()).unwrap_or_default();
            ensure!(answer.is_ok(), "no broker answers at {bootstrap}: {answer:?}\n{log}");
            bail!("no broker is ready at {bootstrap} after {START_DEADLINE:?}\n{log}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn live_brokers(bootstrap: &str) -> Result<usize> {
    let client: BaseConsumer = client_config(bootstrap).create()?;
    Ok(client.fetch_metadata(None, Duration::from_secs(2))?.brokers().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{Message, Offset, TopicPartitionList};

    const WAIT: Duration = Duration::from_secs(30);

    fn create_topic(bootstrap: &str, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = client_config(bootstrap).create().unwrap();
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let results = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        assert_eq!(results, vec![Ok(topic.to_owned())]);
    }

    fn transactional_producer(bootstrap: &str, id: &str) -> BaseProducer {
        let producer: BaseProducer = client_config(bootstrap).set("transactional.id", id).create().unwrap();
        producer.init_transactions(WAIT).unwrap();
        producer
    }

    fn send_in_transaction(producer: &BaseProducer, topic: &str, payloads: &[&str]) {
        producer.begin_transaction().unwrap();
        for payload in payloads {
            producer.send(BaseRecord::<(), str>::to(topic).payload(*payload)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(WAIT).unwrap();
    }

    /// Everything committed in the topic, from its start to its end.
    fn read_committed(bootstrap: &str, topic: &str) -> Vec<String> {
        let mut config = client_config(bootstrap);
        config.set("group.id", topic).set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut payloads = Vec::new();
        loop {
            match consumer.poll(WAIT).expect("a record or the end of the partition") {
                Ok(record) => payloads.push(record.payload_view::<str>().unwrap().unwrap().to_owned()),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return payloads,
                Err(error) => panic!("reading {topic}: {error}"),
            }
        }
    }

    #[test]
    fn commits_are_visible_aborts_are_not_and_both_survive_a_crash_of_the_broker() {
        let mut broker = Broker::start(BrokerOptions::default()).unwrap();
        let prefix = unique_prefix("broker");
        let topic = format!("{prefix}records");
        create_topic(broker.bootstrap(), &topic);
        let producer = transactional_producer(broker.bootstrap(), &prefix);
        send_in_transaction(&producer, &topic, &["a", "b"]);
        producer.commit_transaction(WAIT).unwrap();
        send_in_transaction(&producer, &topic, &["aborted"]);
        producer.abort_transaction(WAIT).unwrap();
        send_in_transaction(&producer, &topic, &["c"]);
        producer.commit_transaction(WAIT).unwrap();
        assert_eq!(read_committed(broker.bootstrap(), &topic), ["a", "b", "c"]);

        let before = broker.pid().unwrap();
        broker.stop().unwrap();
        assert_eq!(broker.pid(), None);
        broker.start_again().unwrap();
        assert_ne!(broker.pid().unwrap(), before);
        assert_eq!(read_committed(broker.bootstrap(), &topic), ["a", "b", "c"]);
        let successor = transactional_producer(broker.bootstrap(), &prefix);
        send_in_transaction(&successor, &topic, &["d"]);
        successor.commit_transaction(WAIT).unwrap();
        assert_eq!(read_committed(broker.bootstrap(), &topic), ["a", "b", "c", "d"]);
    }

    #[test]
    fn tests_of_a_process_share_one_broker_under_separate_prefixes() {
        let (one, two) = (Broker::shared().unwrap(), Broker::shared().unwrap());
        assert!(std::ptr::eq(one, two));
        let prefixes = [unique_prefix("same"), unique_prefix("same")];
        assert_ne!(prefixes[0], prefixes[1]);
        for prefix in prefixes {
            create_topic(one.bootstrap(), &format!("{prefix}topic"));
        }
    }

    #[test]
    fn a_node_that_cannot_start_reports_the_cause() {
        let properties = vec![("process.roles".to_owned(), "baker".to_owned())];
        let error = Broker::start(BrokerOptions { properties, ..BrokerOptions::default() }).unwrap_err().to_string();
        assert!(error.contains("baker"), "{error}");
    }
}
