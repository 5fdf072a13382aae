//! Membership in a consumer group: a consumer that is paused everywhere and never delivers.
//!
//! It lives on a thread of its own that does nothing but poll, so no work can make the group think it is dead. When
//! partitions are revoked, that thread waits in librdkafka's callback until they are released.
//!
//! Only the first topic is subscribed to: a cooperative assignment deals out partitions one by one and would tear
//! same-numbered partitions of several topics apart.

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
    client::{Complaints, config_error, drop_aside},
    options::KafkaOptions,
};
use crate::{
    local::failed,
    log::{Assignment, LogError, Membership},
};

/// One poll of the membership thread: the longest delay of a drop.
const POLL: Duration = Duration::from_millis(100);
/// How long a revoke waits for the tasks to end. Longer than a stage gives them.
const REVOKE: Duration = Duration::from_secs(15);
/// How long a drop waits for the group to be left. A process that ends without it is missed after the session timeout.
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

/// Passes rebalances on.
struct Rebalances {
    complaints: Complaints,
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
            complaints: Complaints::default(),
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

    /// What a transaction needs to move the group's positions.
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
    // It never reads; without a position this keeps the paused partitions quiet.
    config.set("auto.offset.reset", "latest");
    for (name, value) in [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "1000")] {
        if !options.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    config
}

/// Serves the group until asked to leave.
fn poll(consumer: &MemberConsumer, leaving: &AtomicBool, events: &Sender<Event>) {
    while !leaving.load(Ordering::Acquire) {
        match consumer.poll(POLL) {
            // Paused partitions deliver nothing; what slipped through before the pause is nobody's.
            None | Some(Ok(_)) => {}
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                // Whoever polls hears of it; nobody does after a drop.
                let _ = events.send(Err(error.to_string()));
                return;
            }
            Some(Err(error)) => tracing::debug!(%error, "membership goes on"),
        }
    }
    consumer.unsubscribe();
    // The revocation that follows is served here, so that the group hears of the leave before the client is closed.
    let deadline = Instant::now() + LEAVE / 2;
    while Instant::now() < deadline && consumer.assignment().is_ok_and(|assigned| assigned.count() > 0) {
        consumer.poll(Duration::from_millis(10));
    }
}

impl Membership for KafkaMembership {
    fn poll(&self, wait: Duration) -> Result<Option<Assignment>, LogError> {
        match self.events.recv_timeout(wait) {
            Ok(Ok(assignment)) => Ok(Some(assignment)),
            Ok(Err(cause)) => Err(failed("being a member of a group", &cause)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(failed("being a member of a group", &"the thread has ended")),
        }
    }

    fn release(&self, partitions: &[i32]) {
        // The other end lives as long as the consumer.
        let _ = self.released.send(partitions.to_vec());
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Release);
        // Ends by disconnecting.
        let _ = self.ended.recv_timeout(LEAVE);
        drop_aside(self.consumer.take());
    }
}

impl Rebalances {
    fn tell(&self, assignment: Assignment) {
        // Nobody listens after a drop.
        let _ = self.events.send(Ok(assignment));
    }

    /// Waits until all of `partitions` are released, or for too long.
    fn await_release(&self, partitions: &[i32]) {
        let deadline = Instant::now() + REVOKE;
        let mut held: BTreeSet<i32> = partitions.iter().copied().collect();
        while !held.is_empty() && !self.leaving.load(Ordering::Acquire) {
            match self.released.recv_timeout(POLL) {
                Ok(released) => held.retain(|partition| !released.contains(partition)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    tracing::warn!(?held, "partitions were not released in time; the next owner fences their tasks");
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
        self.complaints.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let result = assigned(consumer, list);
            if !partitions.is_empty() && result.is_ok() {
                self.tell(Assignment::Assigned(partitions));
            }
            result
        } else {
            if !partitions.is_empty() {
                if consumer.assignment_lost() {
                    self.tell(Assignment::Lost(partitions));
                } else {
                    self.tell(Assignment::Revoked(partitions.clone()));
                    self.await_release(&partitions);
                }
            }
            revoked(consumer, list)
        };
        if let Err(error) = result {
            // Whoever polls joins anew.
            let _ = self.events.send(Err(error.to_string()));
        }
    }
}
