//! Membership in a consumer group: a consumer with all partitions paused that never delivers records.
//!
//! It runs on its own thread that does nothing but poll, so slow processing cannot make the group consider the member
//! dead. When partitions are revoked, this thread waits in librdkafka's callback until they are released.
//!
//! It subscribes only to the first topic: a cooperative assignment distributes individual partitions and would
//! separate same-numbered partitions of several topics.

use std::{
    any::Any,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};

use super::{
    client::{ErrorLog, config_error, drop_aside},
    options::KafkaOptions,
};
use crate::{
    local::failed,
    log::{Assignment, LogError, Membership},
};

/// Duration of one poll of the membership thread, and so the longest delay of a drop.
const POLL: Duration = Duration::from_millis(100);
/// How long a revocation waits for the tasks to end. It is longer than the time that a stage gives them.
const REVOKE: Duration = Duration::from_secs(15);
/// How long a drop waits until the member has left the group. Otherwise the group notices after the session timeout.
const LEAVE: Duration = Duration::from_secs(3);

type Event = Result<Assignment, String>;
type MemberConsumer = BaseConsumer<Rebalances>;

/// A member of a group on Kafka.
pub struct KafkaMembership {
    /// `None` only while it is dropped.
    consumer: Option<Arc<MemberConsumer>>,
    events: Receiver<Event>,
    released: Sender<Vec<i32>>,
    leaving: Arc<AtomicBool>,
    ended: Receiver<()>,
}

/// Forwards rebalances.
struct Rebalances {
    errors: ErrorLog,
    events: Sender<Event>,
    released: Receiver<Vec<i32>>,
    leaving: Arc<AtomicBool>,
}

impl KafkaMembership {
    pub(super) fn join(options: &KafkaOptions, group: &str, topic: &str) -> Result<Self, LogError> {
        let doing = "joining a group";
        let (events, receiver) = unbounded();
        let (released, releases) = unbounded();
        let leaving = Arc::new(AtomicBool::new(false));
        let context = Rebalances {
            errors: ErrorLog::default(),
            events: events.clone(),
            released: releases,
            leaving: Arc::clone(&leaving),
        };
        let consumer = MemberConsumer::from_config_and_context(&config(options, group), context);
        let consumer = Arc::new(consumer.map_err(|error| config_error(doing, &error))?);
        consumer.subscribe(&[topic]).map_err(|error| failed(doing, &error))?;
        let (end, ended) = bounded::<()>(0);
        let (polled, stop) = (Arc::clone(&consumer), Arc::clone(&leaving));
        let name = format!("{group}-member");
        let started = thread::Builder::new().name(name).spawn(move || {
            // Disconnects when the thread ends.
            let _end = end;
            poll(&polled, &stop, &events);
        });
        started.map_err(|error| failed(doing, &error))?;
        Ok(Self { consumer: Some(consumer), events: receiver, released, leaving, ended })
    }

    /// The metadata that a transaction needs to commit the group's positions.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.as_ref()?.group_metadata()
    }
}

fn config(options: &KafkaOptions, group: &str) -> rdkafka::ClientConfig {
    let mut config = options.client();
    let full = format!("{}{group}", options.prefix);
    if let Some(instance) = &options.instance {
        config.set("group.instance.id", format!("{full}-{instance}"));
    }
    config.set("group.id", full);
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // The consumer never reads. Without a position this setting keeps the paused partitions quiet.
    config.set("auto.offset.reset", "latest");
    for (name, value) in [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "1000")] {
        if !options.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    config
}

/// Polls the group until asked to leave.
fn poll(consumer: &MemberConsumer, leaving: &AtomicBool, events: &Sender<Event>) {
    while !leaving.load(Ordering::Acquire) {
        match consumer.poll(POLL) {
            // Paused partitions deliver nothing. A record that was fetched before the pause is dropped.
            None | Some(Ok(_)) => {}
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                // The next poll of the membership returns the error. After a drop it is ignored.
                let _ = events.send(Err(error.to_string()));
                return;
            }
            Some(Err(error)) => tracing::debug!(%error, "ignoring an error of the group membership"),
        }
    }
    consumer.unsubscribe();
    // Handle the revocation that follows here, so that the group learns of the leave before the client is closed.
    let deadline = Instant::now() + LEAVE / 2;
    while Instant::now() < deadline && consumer.assignment().is_ok_and(|assigned| assigned.count() > 0) {
        consumer.poll(Duration::from_millis(10));
    }
}

impl Membership for KafkaMembership {
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError> {
        match self.events.recv_timeout(wait) {
            Ok(Ok(assignment)) => Ok(Some(assignment)),
            Ok(Err(cause)) => Err(failed("polling the group membership", &cause)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(failed("polling the group membership", &"the polling thread has exited"))
            }
        }
    }

    fn release(&self, partitions: &[i32]) {
        // The receiver lives as long as the consumer.
        let _ = self.released.send(partitions.to_vec());
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Release);
        // The wait ends when the channel is disconnected.
        let _ = self.ended.recv_timeout(LEAVE);
        drop_aside(self.consumer.take());
    }
}

impl Rebalances {
    fn send(&self, assignment: Assignment) {
        // After a drop there is no receiver.
        let _ = self.events.send(Ok(assignment));
    }

    /// Waits until all of `partitions` are released, or until the timeout.
    fn await_release(&self, partitions: &[i32]) {
        let deadline = Instant::now() + REVOKE;
        let mut held: BTreeSet<i32> = partitions.iter().copied().collect();
        while !held.is_empty() && !self.leaving.load(Ordering::Acquire) {
            match self.released.recv_timeout(POLL) {
                Ok(released) => held.retain(|partition| !released.contains(partition)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    tracing::warn!(
                        ?held,
                        "partitions were not released in time; the next owner will fence their tasks"
                    );
                    return;
                }
            }
        }
    }
}

fn assigned(consumer: &MemberConsumer, list: &TopicPartitionList) -> KafkaResult<()> {
    if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
        consumer.incremental_assign(list)?;
    } else {
        consumer.assign(list)?;
    }
    consumer.pause(list)
}

fn revoked(consumer: &MemberConsumer, list: &TopicPartitionList) -> KafkaResult<()> {
    if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
        consumer.incremental_unassign(list)
    } else {
        consumer.unassign()
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let result = assigned(consumer, list);
            if !partitions.is_empty() && result.is_ok() {
                self.send(Assignment::Assigned(partitions));
            }
            result
        } else {
            if !partitions.is_empty() {
                if consumer.assignment_lost() {
                    self.send(Assignment::Lost(partitions));
                } else {
                    self.send(Assignment::Revoked(partitions.clone()));
                    self.await_release(&partitions);
                }
            }
            revoked(consumer, list)
        };
        if let Err(error) = result {
            // The next poll returns the error, and the stage joins again.
            let _ = self.events.send(Err(error.to_string()));
        }
    }
}
