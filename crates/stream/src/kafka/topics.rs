//! Topics of the cluster: partitions, configuration, creation.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use serin_schemas::ids::NextOffset;
use serin_topology::{APPEND_TIME, Cleanup, TopicSpec};

use super::{
    client::{ErrorLog, REQUEST, config_error, wait_for},
    consumer::LogConsumerContext,
    options::KafkaOptions,
};
use crate::{
    local::{failed, lock},
    log::LogError,
    record::TopicPartition,
};

/// How long a new topic may take until the whole cluster knows it.
const SETTLE: Duration = Duration::from_secs(30);

/// If nothing arrives on a client's queue for this long, the queue is empty. Without any wait, each message would
/// look like the last one.
const QUIET: Duration = Duration::from_millis(10);

/// Pause between two checks of something that settles quickly.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Whether a partition is being created or is changing its leader. A retry will then return another result.
fn is_moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error,
        KafkaError::MetadataFetch(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
        )
    )
}

/// The metadata client and its cache.
pub(super) struct Topics {
    prefix: String,
    client: BaseConsumer<LogConsumerContext>,
    admin: AdminClient<ErrorLog>,
    /// Partitions by full name. A count is read only once: a stage whose topic gets another number of partitions
    /// stops.
    counts: Mutex<HashMap<Arc<str>, i32>>,
    /// Whether a thread is looking up new topics.
    looking: AtomicBool,
}

impl Topics {
    /// Connects to the cluster. Fails if no broker answers.
    pub(super) fn connect(options: &KafkaOptions) -> Result<Arc<Self>, LogError> {
        let doing = "connecting to Kafka";
        let mut config = options.client();
        config.set("isolation.level", "read_committed");
        let client = BaseConsumer::from_config_and_context(&config, LogConsumerContext::default());
        let client = client.map_err(|error| config_error(doing, &error))?;
        let admin = AdminClient::from_config_and_context(&options.client(), ErrorLog::default());
        let admin = admin.map_err(|error| config_error(doing, &error))?;
        let topics = Self {
            prefix: options.prefix.clone(),
            client,
            admin,
            counts: Mutex::default(),
            looking: AtomicBool::new(false),
        };
        topics.refresh().map_err(|error| failed(&format!("connecting to Kafka at {}", options.brokers), &error))?;
        Ok(Arc::new(topics))
    }

    pub(super) fn full_name(&self, topic: &str) -> Arc<str> {
        if self.prefix.is_empty() { topic.into() } else { format!("{}{topic}", self.prefix).into() }
    }

    /// Explains an error of the metadata client. Its messages stay in its queue until it is polled; the queue never
    /// contains records.
    fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        while self.client.poll(QUIET).is_some() {}
        self.client.context().errors.explain(doing, error)
    }

    /// Reads all topics with the prefix.
    fn refresh(&self) -> Result<(), LogError> {
        let metadata = self.client.fetch_metadata(None, REQUEST);
        let metadata = metadata.map_err(|error| self.explain("reading the list of topics", &error))?;
        let ours = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let ours = ours.filter(|topic| topic.name().starts_with(&self.prefix) && !topic.partitions().is_empty());
        lock(&self.counts).extend(ours.map(|topic| (Arc::from(topic.name()), topic.partitions().len() as i32)));
        Ok(())
    }

    /// The number of partitions of a topic, if it is already known. Never blocks; an unknown topic is looked up in
    /// the background.
    pub(super) fn known(self: &Arc<Self>, name: &str) -> Option<i32> {
        let known = lock(&self.counts).get(name).copied();
        if known.is_none() && !self.looking.swap(true, Ordering::AcqRel) {
            let topics = Arc::clone(self);
            // If the thread cannot be started, the next caller tries again.
            let started = thread::Builder::new().name("serin-topics".into()).spawn(move || {
                if let Err(error) = topics.refresh() {
                    tracing::debug!(%error, "topics could not be looked up");
                }
                topics.looking.store(false, Ordering::Release);
            });
            if started.is_err() {
                self.looking.store(false, Ordering::Release);
            }
        }
        known
    }

    /// The number of partitions of a topic, by its full name.
    pub(super) fn count(&self, name: &str) -> Result<i32, LogError> {
        if let Some(count) = lock(&self.counts).get(name).copied() {
            return Ok(count);
        }
        self.refresh()?;
        let count = lock(&self.counts).get(name).copied();
        count.ok_or_else(|| LogError::UnknownTopic { topic: name.to_owned() })
    }

    /// The current number of partitions of a topic in the cluster, by its full name. A cached number stays unchanged:
    /// records keep going to the same partitions.
    pub(super) fn ask(&self, name: &Arc<str>) -> Result<i32, LogError> {
        let metadata = self.client.fetch_metadata(Some(name), REQUEST);
        let metadata = metadata.map_err(|error| self.explain("reading the metadata of a topic", &error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &**name && topic.error().is_none());
        let count = topic.map(|topic| topic.partitions().len() as i32).filter(|count| *count > 0);
        let count = count.ok_or_else(|| LogError::UnknownTopic { topic: name.to_string() })?;
        lock(&self.counts).entry(Arc::clone(name)).or_insert(count);
        Ok(count)
    }

    /// The first offset and the last stable offset.
    pub(super) fn bounds(&self, at: &TopicPartition) -> Result<(NextOffset, NextOffset), LogError> {
        let count = self.count(&at.topic)?;
        if !(0..count).contains(&at.partition) {
            return Err(LogError::UnknownTopic { topic: format!("{}[{}]", at.topic, at.partition) });
        }
        let deadline = Instant::now() + REQUEST;
        let (start, end) = loop {
            match self.client.fetch_watermarks(&at.topic, at.partition, REQUEST) {
                Ok(bounds) => break bounds,
                Err(error) if is_moving(&error) && Instant::now() < deadline => {
                    // librdkafka's metadata of a topic can be wrong for a quarter of an hour if its request was lost
                    // with a connection. An explicit request makes it ask again. If no broker answers, the next
                    // attempt reports the error.
                    let _ = self.client.fetch_metadata(Some(&at.topic), REQUEST);
                    thread::sleep(LOOK_AGAIN);
                }
                Err(error) => return Err(self.explain("reading offsets", &error)),
            }
        };
        Ok((NextOffset(start), NextOffset(end)))
    }

    /// Creates missing topics and waits until the cluster knows them.
    pub(super) fn create(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        let doing = "creating topics";
        self.refresh()?;
        let names: Vec<Arc<str>> = specs.iter().map(|spec| self.full_name(&spec.name)).collect();
        let missing: Vec<_> =
            names.iter().zip(specs).filter(|(name, _)| !lock(&self.counts).contains_key(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let retention: Vec<String> = missing.iter().map(|(_, spec)| retention_ms(spec).to_string()).collect();
        let new: Vec<NewTopic<'_>> =
            missing.iter().zip(&retention).map(|((name, spec), ms)| new_topic(name, spec, ms)).collect();
        let options = AdminOptions::new().operation_timeout(Some(SETTLE)).request_timeout(Some(SETTLE));
        let results = wait_for(self.admin.create_topics(&new, &options));
        let mut problems = Vec::new();
        for result in results.map_err(|error| self.explain(doing, &error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => problems.push(format!("{topic}: {code}")),
            }
        }
        if !problems.is_empty() {
            return Err(failed(doing, &problems.join("; ")));
        }
        self.await_topics(&missing.iter().map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>())
    }

    /// Waits for new topics. The controller creates a topic first; clients see it, with its leaders, a moment later.
    fn await_topics(&self, names: &[Arc<str>]) -> Result<(), LogError> {
        let deadline = Instant::now() + SETTLE;
        for name in names {
            loop {
                let metadata = self.client.fetch_metadata(Some(name), REQUEST);
                let has_leaders = metadata.is_ok_and(|metadata| {
                    metadata.topics().iter().any(|topic| {
                        let partitions = topic.partitions();
                        !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
                    })
                });
                if has_leaders {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(failed("creating topics", &format!("{name} has no leader after {SETTLE:?}")));
                }
                thread::sleep(LOOK_AGAIN);
            }
        }
        self.refresh()
    }

    /// Describes those of the named topics (without prefix) that exist.
    pub(super) fn describe(&self, topics: &[&str]) -> Result<Vec<TopicSpec>, LogError> {
        let doing = "describing topics";
        let metadata = self.client.fetch_metadata(None, REQUEST);
        let metadata = metadata.map_err(|error| self.explain(doing, &error))?;
        let mut specs = Vec::new();
        for name in topics {
            let full = self.full_name(name);
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == &*full) else { continue };
            if topic.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
                continue;
            }
            let replicas = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
            specs.push(TopicSpec {
                name: (*name).to_owned(),
                partitions: topic.partitions().len() as i32,
                replication: replicas as i32,
                cleanup: Cleanup::Compact,
                settings: Vec::new(),
            });
        }
        let full: Vec<Arc<str>> = specs.iter().map(|spec| self.full_name(&spec.name)).collect();
        let resources: Vec<_> = full.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok(specs);
        }
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let configs = wait_for(self.admin.describe_configs(&resources, &options));
        let configs = configs.map_err(|error| self.explain(doing, &error))?;
        for (spec, config) in specs.iter_mut().zip(configs) {
            let config = config.map_err(|code| failed(doing, &format!("{}: {code}", spec.name)))?;
            configured(spec, &config);
        }
        Ok(specs)
    }
}

fn retention_ms(spec: &TopicSpec) -> i64 {
    match spec.cleanup {
        Cleanup::Delete { retention_ms } => retention_ms,
        Cleanup::Compact => -1,
    }
}

fn new_topic<'a>(name: &'a str, spec: &'a TopicSpec, retention_ms: &'a str) -> NewTopic<'a> {
    let mut topic = NewTopic::new(name, spec.partitions, TopicReplication::Fixed(spec.replication));
    topic = match spec.cleanup {
        Cleanup::Delete { .. } => topic.set("cleanup.policy", "delete").set("retention.ms", retention_ms),
        Cleanup::Compact => topic.set("cleanup.policy", "compact"),
    };
    spec.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
}

/// Adds a topic's configuration to its specification: its policy, and the settings of the topic that are not broker
/// defaults.
fn configured(spec: &mut TopicSpec, config: &ConfigResource) {
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
    let is_compacted = value("cleanup.policy").is_some_and(|policy| policy == "compact");
    if !is_compacted {
        let retention_ms = value("retention.ms").and_then(|ms| ms.parse().ok()).unwrap_or(-1);
        spec.cleanup = Cleanup::Delete { retention_ms };
    }
    // The meaning of a topic's timestamps must be known, even if it comes from the broker's default.
    let own = config.entries.iter();
    let own = own.filter(|entry| entry.source == ConfigSource::DynamicTopic || entry.name == APPEND_TIME.0);
    let own = own.filter(|entry| !["cleanup.policy", "retention.ms"].contains(&entry.name.as_str()));
    spec.settings = own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect();
    spec.settings.sort();
}
