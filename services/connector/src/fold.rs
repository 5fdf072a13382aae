//! The stage: turns one partition of `audit` into deliveries, and their results into records.
//!
//! Rows: `start` is the first position of `audit` whose events are delivered, `due/<position>/<destination>` is a delivery without a result
//! as JSON, and `open/<destination>/<rollout>` marks an incident that was opened and not yet resolved. A delivery is handed to its worker
//! once it is committed, and again when the fold is opened.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serin_schemas::{
    Code,
    codec::{self, Record as _},
    envelope::{self, Envelope},
    ids::{EventTime, ModelName, NextOffset},
    pattern,
    records::{Delivery, DeliveryOutcome, DeliveryResult, RolloutEvent},
};
use serin_stream::{
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    log::{Log, LogError},
    record::{Outgoing, Record, Target, TopicPartition},
};
use serin_topology::{AUDIT, DELIVERIES};

use crate::{
    card::{self, Incident, incident},
    config::{Kind, Loaded},
    courier::{Due, Finished},
    dispatch::Desks,
    message::Message,
    metrics,
};

/// Row of the first position whose events are delivered.
const START_ROW: &[u8] = b"start";
/// Row prefix of deliveries.
const DUE_ROW: &str = "due/";
/// Row prefix of open incidents.
const OPEN_ROW: &str = "open/";
/// Version of the rows of deliveries.
const VERSION: u32 = 1;
/// Most deliveries of one destination that wait in one partition. Further ones are dropped.
const WAITING_MAX: usize = 10_000;
/// `ce_source` of the connector's records.
const SOURCE: &str = "/connector";
/// How often results are taken from the workers.
const TICK: Duration = Duration::from_millis(500);

/// The position after the newest record of each partition of `audit`.
pub(crate) fn ends_of_audit(log: &dyn Log) -> Result<Vec<NextOffset>, LogError> {
    let topic = log.full_name(AUDIT);
    let end = |partition| log.bounds(&TopicPartition { topic: Arc::clone(&topic), partition }).map(|(_, end)| end);
    (0..log.partitions(AUDIT)?).map(end).collect()
}

/// Makes the fold of each partition.
pub(crate) struct ConnectorFactory {
    desks: Arc<Desks>,
    public_url: Arc<str>,
    ends: Vec<NextOffset>,
}

impl ConnectorFactory {
    /// `ends`: the positions from which a first start delivers events, by partition.
    pub(crate) fn new(desks: Arc<Desks>, public_url: &str, ends: Vec<NextOffset>) -> Self {
        Self { desks, public_url: public_url.into(), ends }
    }
}

impl FoldFactory for ConnectorFactory {
    fn stage(&self) -> &'static str {
        "connector"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &[AUDIT]
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(TICK)
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(ConnectorFold {
            desks: Arc::clone(&self.desks),
            owner: self.desks.owner(),
            public_url: Arc::clone(&self.public_url),
            end: usize::try_from(partition).ok().and_then(|partition| self.ends.get(partition)).copied(),
            partition,
            start: NextOffset(0),
            is_new: false,
            waiting: BTreeMap::new(),
            orphans: Vec::new(),
            uncommitted: Vec::new(),
            counted: Vec::new(),
        })
    }
}

/// The fold of one partition.
struct ConnectorFold {
    desks: Arc<Desks>,
    /// The fold's mark on its deliveries.
    owner: u64,
    public_url: Arc<str>,
    /// The end of the partition when the process started.
    end: Option<NextOffset>,
    partition: i32,
    /// Earlier events are from before the connector's first start.
    start: NextOffset,
    /// Whether `start` is not committed yet.
    is_new: bool,
    /// Number of deliveries without a result, by destination.
    waiting: BTreeMap<String, usize>,
    /// Deliveries whose destination is no longer configured.
    orphans: Vec<Due>,
    /// Deliveries that are handed over once they are committed.
    uncommitted: Vec<Due>,
    /// Results that are counted once they are committed.
    counted: Vec<(String, DeliveryOutcome)>,
}

/// The row of a delivery.
#[derive(Serialize, Deserialize)]
struct DueRow {
    version: u32,
    delivery: Delivery,
}

impl Fold for ConnectorFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        if let Some(row) = rows.get(START_ROW)? {
            let start = std::str::from_utf8(&row).ok().and_then(|text| text.parse().ok());
            let wrong =
                || FoldError::State(format!("the row `start` of {AUDIT}[{}] is not a position", self.partition));
            self.start = NextOffset(start.ok_or_else(wrong)?);
        } else {
            let unknown = || FoldError::State(format!("{AUDIT}[{}] did not exist at start", self.partition));
            self.start = self.end.ok_or_else(unknown)?;
            self.is_new = true;
            rows.put(START_ROW, self.start.0.to_string().into());
        }
        let mut due = Vec::new();
        for (key, row) in rows.scan(DUE_ROW.as_bytes())? {
            let key = String::from_utf8_lossy(&key).into_owned();
            let wrong = |cause: String| FoldError::State(format!("the row {key:?} of a delivery: {cause}"));
            let row: DueRow = serde_json::from_slice(&row).map_err(|error| wrong(error.to_string()))?;
            if row.version != VERSION {
                return Err(wrong(format!("version {} is unknown here; run the newer build again", row.version)));
            }
            let delivery = row.delivery;
            if self.desks.has(&delivery.destination) {
                *self.waiting.entry(delivery.destination.clone()).or_default() += 1;
                due.push(Due { row: key, delivery });
            } else {
                self.orphans.push(Due { row: key, delivery });
            }
        }
        self.desks.hand(self.owner, due);
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        if record.offset < self.start.0 {
            return Ok(Ok(()));
        }
        let event = match read(record) {
            Ok(event) => event,
            Err(poison) => return Ok(Err(poison)),
        };
        let message = Message::new(&event, &self.public_url);
        for destination in Arc::clone(&self.desks).destinations() {
            let Some(body) = body(destination, &message, context.rows)? else { continue };
            let delivery = Delivery {
                id: format!("{}-{}", event.id, destination.name),
                destination: destination.name.clone(),
                model: event.model.clone(),
                rollout: event.rollout.clone(),
                on: message.on.as_str().to_owned(),
                event: event.id.clone(),
                at: event.at,
                due_at: EventTime(record.timestamp_ms.saturating_mul(1_000)),
                body,
            };
            let row = format!("{DUE_ROW}{:020}/{}", record.offset, destination.name);
            self.due(Due { row, delivery }, context)?;
        }
        Ok(Ok(()))
    }

    fn tick(&mut self, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        context.commit_now |= std::mem::take(&mut self.is_new);
        let dropped = self.orphans.drain(..).map(|due| Finished {
            due,
            outcome: DeliveryOutcome::Dropped,
            attempts: 0,
            status: None,
            message: "its destination is no longer configured".to_owned(),
        });
        let finished: Vec<Finished> = dropped.chain(self.desks.finished(self.owner)).collect();
        for done in finished {
            context.rows.delete(done.due.row.as_bytes());
            if let Some(waiting) = self.waiting.get_mut(&done.due.delivery.destination) {
                *waiting = waiting.saturating_sub(1);
            }
            self.result(done, now_ms, context)?;
        }
        Ok(())
    }

    fn committed(&mut self) {
        self.desks.hand(self.owner, std::mem::take(&mut self.uncommitted));
        for (destination, outcome) in self.counted.drain(..).filter(|(destination, _)| self.desks.has(destination)) {
            metrics::count(&destination, outcome, 1);
        }
    }
}

impl Drop for ConnectorFold {
    fn drop(&mut self) {
        self.desks.forget(self.owner);
    }
}

impl ConnectorFold {
    /// Writes a delivery, unless too many wait already.
    fn due(&mut self, due: Due, context: &mut Context<'_>) -> Result<(), FoldError> {
        let delivery = &due.delivery;
        context.out.push(outgoing(&delivery.model, &delivery.id, delivery.at, delivery)?);
        context.commit_now = true;
        let waiting = self.waiting.entry(delivery.destination.clone()).or_default();
        if *waiting >= WAITING_MAX {
            let message = format!("{WAITING_MAX} deliveries wait already");
            let now_ms = delivery.due_at.0 / 1_000;
            let dropped = Finished { due, outcome: DeliveryOutcome::Dropped, attempts: 0, status: None, message };
            return self.result(dropped, now_ms, context);
        }
        *waiting += 1;
        let row = DueRow { version: VERSION, delivery: delivery.clone() };
        let row = serde_json::to_vec(&row).map_err(|error| FoldError::State(error.to_string()))?;
        context.rows.put(due.row.as_bytes(), row.into());
        self.uncommitted.push(due);
        Ok(())
    }

    /// Writes the result of a delivery.
    fn result(&mut self, done: Finished, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        let Finished { due: Due { delivery, .. }, outcome, attempts, status, message } = done;
        let at = EventTime(now_ms.saturating_mul(1_000));
        self.counted.push((delivery.destination.clone(), outcome));
        let id = format!("{}-result", delivery.id);
        let result = DeliveryResult {
            delivery: delivery.id,
            destination: delivery.destination,
            model: delivery.model,
            rollout: delivery.rollout,
            result: outcome,
            attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
            status: status.map(i32::from),
            message,
            at,
        };
        context.out.push(outgoing(&result.model, &id, at, &result)?);
        context.commit_now = true;
        Ok(())
    }
}

/// The body of the delivery that a destination gets for an event, if it gets one. Incidents are tracked in rows.
fn body(destination: &Loaded, message: &Message<'_>, rows: &mut dyn Rows) -> Result<Option<String>, FoldError> {
    let covers = destination.models.iter().any(|pattern| pattern::matches(pattern, message.event.model.as_str()));
    let wanted = covers && destination.on.contains(&message.on);
    if destination.kind != Kind::Pagerduty {
        return Ok(wanted.then(|| card::body(destination.kind, message).to_string()));
    }
    let Some(rollout) = &message.event.rollout else {
        return Ok(wanted.then(|| card::body(destination.kind, message).to_string()));
    };
    let row = format!("{OPEN_ROW}{}/{rollout}", destination.name);
    Ok(match incident(message.on, wanted) {
        Some(Incident::Open) if message.event.phase.is_final() => {
            // Nothing follows that could resolve it: a person does.
            rows.delete(row.as_bytes());
            Some(card::pagerduty(message, Incident::Open).to_string())
        }
        Some(Incident::Open) => {
            rows.put(row.as_bytes(), Bytes::from_static(b"1"));
            Some(card::pagerduty(message, Incident::Open).to_string())
        }
        Some(Incident::Resolve) if rows.get(row.as_bytes())?.is_some() => {
            rows.delete(row.as_bytes());
            Some(card::pagerduty(message, Incident::Resolve).to_string())
        }
        Some(Incident::Resolve) | None => None,
    })
}

fn read(record: &Record) -> Result<RolloutEvent, Poison> {
    let Some(body) = &record.value else {
        return Err(Poison::new(Code::Garbage, "a tombstone has no meaning here"));
    };
    let (name, version) =
        envelope::record_type(&record.headers).map_err(|error| Poison::new(Code::UnknownType, error.to_string()))?;
    if name != RolloutEvent::NAME {
        return Err(Poison::new(Code::UnknownType, format!("a {name:?} is not an event of a rollout")));
    }
    codec::decode(version, body).map_err(|error| Poison::new(error.code(), error.to_string()))
}

fn outgoing<R: codec::Record>(model: &ModelName, id: &str, time: EventTime, record: &R) -> Result<Outgoing, FoldError> {
    let envelope = Envelope { id, source: SOURCE, subject: model.as_str(), time };
    Outgoing::record(DELIVERIES, Target::ByKey, Bytes::copy_from_slice(model.as_str().as_bytes()), record, &envelope)
        .map_err(|error| FoldError::Unwritable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serin_schemas::records::EventKind;
    use serin_spec::units::Duration as Span;
    use serin_stream::driver::FoldDriver;

    use super::*;
    use crate::{
        config::{On, tests::loaded},
        courier::{Answer, Next},
        message::tests::event,
    };

    const OK: Answer = Answer::Status { status: 200, retry_after_ms: None };
    const ALL: [On; 4] = [On::RolledBack, On::Held, On::NeedsDecision, On::Promoted];

    struct World {
        desks: Arc<Desks>,
        driver: FoldDriver,
    }

    fn world(destinations: Vec<Loaded>, end: i64) -> World {
        let desks = Desks::new(destinations, Span::from_secs(86_400));
        let factory = ConnectorFactory::new(Arc::clone(&desks), "https://serin.example.com", vec![NextOffset(end)]);
        World { desks, driver: FoldDriver::new(move || factory.fold(0)).unwrap() }
    }

    impl World {
        /// Applies an event without a commit.
        fn apply(&mut self, event: &RolloutEvent) -> Option<Poison> {
            let envelope = Envelope { id: &event.id, source: "/test", subject: "", time: event.at };
            let body = codec::encode(event).unwrap().into();
            let headers = envelope::headers::<RolloutEvent>(&envelope);
            let record = self.driver.record("audit", 0, 1_000, "fraud", headers, Some(body));
            self.driver.apply(&record).unwrap().poison
        }

        fn commit<R: codec::Record>(&mut self) -> Vec<R> {
            let out = self.driver.commit().unwrap();
            assert!(out.iter().all(|record| record.topic == "deliveries"));
            out.iter().filter_map(|record| codec::read(&record.headers, record.value.as_ref()?).ok()).collect()
        }

        fn send(&self, destination: &str, now_ms: i64) -> Delivery {
            match self.desks.next(destination, now_ms) {
                Next::Send(delivery) => *delivery,
                other => panic!("{other:?}"),
            }
        }
    }

    fn with_id(id: &str, kind: EventKind) -> RolloutEvent {
        RolloutEvent { id: id.to_owned(), ..event(kind, "a sentence") }
    }

    #[test]
    fn an_event_is_delivered_once_and_its_result_is_on_the_log() {
        let mut world = world(vec![loaded("chat", Kind::Slack, &ALL), loaded("own", Kind::Webhook, &[On::Held])], 0);
        assert_eq!(world.apply(&with_id("e1", EventKind::RolledBack)), None);
        assert_eq!(world.desks.next("chat", 0), Next::Idle, "nothing is sent before the commit");
        let deliveries: Vec<Delivery> = world.commit();
        assert_eq!(deliveries.len(), 1, "the other destination did not ask for it");
        assert_eq!((deliveries[0].id.as_str(), deliveries[0].on.as_str()), ("e1-chat", "rolled_back"));
        assert_eq!(world.send("chat", 0), deliveries[0]);
        world.desks.answered("chat", 0, OK);
        assert!(world.driver.tick(2_000).unwrap());
        let results: Vec<DeliveryResult> = world.commit();
        assert_eq!((results[0].delivery.as_str(), results[0].result), ("e1-chat", DeliveryOutcome::Delivered));
        assert_eq!(results[0].attempts, 1);
        let rows: Vec<_> = world.driver.rows().into_keys().collect();
        assert_eq!(rows, ["start"]);
        assert_eq!(world.desks.next("chat", 1 << 40), Next::Idle);
    }

    #[test]
    fn a_crash_between_call_and_record_repeats_the_same_call() {
        let mut world = world(vec![loaded("own", Kind::Webhook, &ALL)], 0);
        world.apply(&with_id("e1", EventKind::Held));
        world.apply(&with_id("e2", EventKind::RolledBack));
        // A crash before the commit: nothing was handed over, and the events are read again.
        world.driver.crash().unwrap();
        assert_eq!(world.desks.next("own", 0), Next::Idle);
        world.apply(&with_id("e1", EventKind::Held));
        world.apply(&with_id("e2", EventKind::RolledBack));
        world.commit::<Delivery>();
        let first = world.send("own", 0);
        world.desks.answered("own", 0, OK);
        // The destination has it, but no record says so.
        world.driver.crash().unwrap();
        assert_eq!(world.send("own", 5_000), first, "the same id and the same body");
        world.desks.answered("own", 5_000, OK);
        assert_eq!(world.send("own", 5_000).id, "e2-own");
        world.desks.answered("own", 5_000, OK);
        world.driver.tick(6_000).unwrap();
        assert_eq!(world.commit::<DeliveryResult>().len(), 2);
        world.driver.crash().unwrap();
        assert_eq!(world.desks.next("own", 1 << 40), Next::Idle);
    }

    #[test]
    fn a_destination_that_hangs_delays_no_other() {
        let mut world = world(vec![loaded("a", Kind::Slack, &ALL), loaded("b", Kind::Teams, &ALL)], 0);
        world.apply(&with_id("e1", EventKind::Held));
        world.commit::<Delivery>();
        world.send("a", 0);
        for (n, at) in (2..20).zip(1_i64..) {
            world.send("b", at);
            world.desks.answered("b", at, OK);
            world.driver.tick(at).unwrap();
            world.apply(&with_id(&format!("e{n}"), EventKind::Held));
            world.commit::<Delivery>();
        }
        assert_eq!(world.desks.next("a", 1 << 40), Next::Idle, "its only call has no answer yet");
    }

    #[test]
    fn events_from_before_the_first_start_are_not_delivered_and_later_starts_miss_none() {
        let mut world = world(vec![loaded("chat", Kind::Slack, &ALL)], 2);
        for id in ["e0", "e1", "e2"] {
            world.apply(&with_id(id, EventKind::Held));
        }
        assert!(world.driver.tick(1).unwrap(), "the start is committed at once");
        let ids: Vec<String> = world.commit::<Delivery>().into_iter().map(|delivery| delivery.event).collect();
        assert_eq!(ids, ["e2"]);
        world.driver.crash().unwrap();
        world.apply(&with_id("e3", EventKind::Held));
        assert_eq!(world.commit::<Delivery>().len(), 1);
    }

    #[test]
    fn an_incident_is_resolved_once_by_what_ends_the_hold() {
        let mut world = world(vec![loaded("on-call", Kind::Pagerduty, &[On::Held, On::RolledBack])], 0);
        let hold = RolloutEvent { phase: serin_schemas::records::Phase::Held, ..with_id("e1", EventKind::Held) };
        world.apply(&with_id("e0", EventKind::Resumed));
        world.apply(&hold);
        world.apply(&with_id("e2", EventKind::Resumed));
        world.apply(&with_id("e3", EventKind::Advanced));
        world.apply(&with_id("e4", EventKind::RolledBack));
        world.apply(&with_id("e5", EventKind::Confirmed));
        let bodies: Vec<serde_json::Value> =
            world.commit::<Delivery>().iter().map(|delivery| serde_json::from_str(&delivery.body).unwrap()).collect();
        let actions: Vec<_> = bodies.iter().map(|body| body["event_action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["trigger", "resolve", "trigger"]);
        assert!(bodies.iter().all(|body| body["dedup_key"] == bodies[0]["dedup_key"]));
        assert!(bodies.iter().all(|body| body.get("routing_key").is_none()), "the key is not on the log");
    }

    #[test]
    fn a_destination_that_is_gone_gets_nothing_and_the_result_says_so() {
        let mut world = world(vec![loaded("chat", Kind::Slack, &ALL)], 0);
        world.apply(&with_id("e1", EventKind::Held));
        world.commit::<Delivery>();
        let rows = world.driver.rows();
        let mut without = self::world(vec![loaded("other", Kind::Slack, &ALL)], 0);
        without.driver.reset(rows).unwrap();
        without.driver.tick(1).unwrap();
        let results: Vec<DeliveryResult> = without.commit();
        assert_eq!((results.len(), results[0].result), (1, DeliveryOutcome::Dropped));
        assert!(without.driver.rows().keys().all(|key| key == "start"));
    }

    #[test]
    fn models_and_bad_records_are_kept_apart() {
        let only = Loaded { models: vec!["team-a-*".to_owned()], ..loaded("a", Kind::Slack, &ALL) };
        let mut world = world(vec![only], 0);
        world.apply(&with_id("e1", EventKind::Held));
        assert!(world.commit::<Delivery>().is_empty());
        let record = world.driver.record("audit", 0, 0, "fraud", serin_stream::record::Headers::default(), None);
        assert_eq!(world.driver.apply(&record).unwrap().poison.unwrap().code.as_str(), "garbage");
    }

    /// What waits in one partition is bounded.
    #[test]
    fn too_many_deliveries_are_dropped_with_a_result() {
        let mut world = world(vec![loaded("chat", Kind::Slack, &ALL)], 0);
        for n in 0..=WAITING_MAX {
            world.apply(&RolloutEvent { state: None, ..with_id(&format!("e{n}"), EventKind::Held) });
        }
        let results: Vec<DeliveryResult> = world.commit();
        assert_eq!((results.len(), results[0].result), (1, DeliveryOutcome::Dropped));
    }
}
