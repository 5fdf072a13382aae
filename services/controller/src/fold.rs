//! The stage: the planner over one partition of `verdicts`, `commands` and `router-status`.
//!
//! Rows, all in JSON: `model/<name>` is a [`ModelState`], `routers` is what the routers reported, `configured/<router>` is one router's
//! own configuration, `freezes` is what is frozen. The routing table, the controls and the audit events of one input are committed
//! together with the rows that led to them.

use serin_schemas::Code;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serin_rollout::{
    Effects, Input, ModelState, Planner,
    planner::{RouterSeen, Settings, WallMs},
};
use serin_schemas::{
    codec::{self, Record as _},
    envelope::{self, Envelope},
    ids::{EventTime, ModelName},
    records::{Command, Configured, RouterStatus, RoutingTable, Verdict},
};
use serin_stream::{
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    log::{Log, LogError, Polled, Start},
    record::{Outgoing, Record, Target, TopicPartition},
    trace::{self, Tracer},
};
use serin_topology::{AUDIT, COMMANDS, EVENTS, ROUTER_STATUS, ROUTING, VERDICTS, WINDOWS};

use crate::{
    metrics::Shown,
    progress::{Progress, ProgressBoard},
};

/// Row prefix of the models.
const MODEL_ROW: &str = "model/";
/// Longest id of a command or a rollout.
const MAX_ID_BYTES: usize = 128;
/// Longest name of a model or an actor.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Row of the routers.
const ROUTERS_ROW: &[u8] = b"routers";
/// Row prefix of the routers' own configurations.
const CONFIGURED_ROW: &str = "configured/";
/// Row of the freezes.
const FREEZES_ROW: &[u8] = b"freezes";
/// `ce_source` of the controller's records.
const SOURCE: &str = "/controller";
/// How long a read of the routing topic may take.
const LOOK: Duration = Duration::from_secs(30);

/// Finds the newest routing tables of a partition when a task opens.
pub trait NewestTables: Send + Sync + 'static {
    /// The newest table of each model of `partition`.
    fn newest(&self, partition: i32) -> Result<Vec<RoutingTable>, LogError>;
}

/// Finds no tables. For simulations, where the state cannot be lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTables;

impl NewestTables for NoTables {
    fn newest(&self, _: i32) -> Result<Vec<RoutingTable>, LogError> {
        Ok(Vec::new())
    }
}

/// Reads the tables from the compacted topic `routing`.
pub struct RoutingTopic(pub Arc<dyn Log>);

impl NewestTables for RoutingTopic {
    fn newest(&self, partition: i32) -> Result<Vec<RoutingTable>, LogError> {
        let at = TopicPartition { topic: self.0.full_name(ROUTING), partition };
        let mut reader = self.0.reader(&[(at, Start::Beginning)])?;
        let mut newest: BTreeMap<Bytes, RoutingTable> = BTreeMap::new();
        let mut records = Vec::new();
        let deadline = std::time::Instant::now() + LOOK;
        loop {
            let polled = reader.poll(1000, Duration::from_millis(500), &mut records)?;
            for record in records.drain(..) {
                let table = record.value.as_ref().map(|body| codec::read::<RoutingTable>(&record.headers, body));
                match table {
                    Some(Ok(table)) => drop(newest.insert(record.key, table)),
                    Some(Err(error)) => {
                        tracing::warn!(offset = record.offset, %error, "a routing table cannot be read");
                    }
                    None => drop(newest.remove(&record.key)),
                }
            }
            if polled == Polled::AtEnd {
                return Ok(newest.into_values().collect());
            }
            if std::time::Instant::now() >= deadline {
                let cause = format!("the end was not reached in {} s", LOOK.as_secs());
                return Err(LogError::Failed {
                    doing: format!("reading the newest tables of {ROUTING}[{partition}]"),
                    cause,
                });
            }
        }
    }
}

/// Makes the fold of each partition.
pub struct ControllerFactory {
    settings: Settings,
    tables: Arc<dyn NewestTables>,
    progress: ProgressBoard,
}

impl ControllerFactory {
    /// Folds with `settings` that find routing tables with `tables`.
    pub fn new(settings: Settings, tables: Arc<dyn NewestTables>) -> Self {
        Self { settings, tables, progress: ProgressBoard::default() }
    }

    /// The same factory, with folds that post on `board` how far they have planned.
    #[must_use]
    pub fn posting_to(self, board: ProgressBoard) -> Self {
        Self { progress: board, ..self }
    }

    /// Folds with default settings that find no tables.
    pub fn without_log() -> Self {
        Self::new(Settings::default(), Arc::new(NoTables))
    }
}

impl FoldFactory for ControllerFactory {
    fn stage(&self) -> &'static str {
        "controller"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &[VERDICTS, COMMANDS, ROUTER_STATUS]
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(ControllerFold {
            planner: Planner::new(self.settings),
            tables: Arc::clone(&self.tables),
            progress: self.progress.clone(),
            partition,
            ticked_ms: None,
            uncommitted: Vec::new(),
            shown: Shown::default(),
        })
    }

    fn tracer(&self, _partition: i32) -> Option<Box<dyn Tracer>> {
        Some(Box::new(crate::trace::Tracer::default()))
    }
}

/// The fold of one partition.
struct ControllerFold {
    planner: Planner,
    tables: Arc<dyn NewestTables>,
    progress: ProgressBoard,
    partition: i32,
    /// Wall clock of the last tick. Before the first tick, the log's timestamps are used.
    ticked_ms: Option<i64>,
    /// Effects that are counted once they are committed.
    uncommitted: Vec<Effects>,
    /// The gauges of the fold's models.
    shown: Shown,
}

impl ControllerFold {
    fn step(&mut self, input: Input, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        let trace_id = match &input {
            Input::Verdict(verdict) if trace::is_on() => {
                Some(trace::verdict(&verdict.rollout, verdict.as_of).trace_id().to_string())
            }
            _ => None,
        };
        let effects = self.planner.apply(input, WallMs(now_ms));
        for model in &effects.changed {
            if let Some(state) = self.planner.model(model) {
                context.rows.put(format!("{MODEL_ROW}{model}").as_bytes(), state.to_json().into());
                post(&self.progress, state);
            }
        }
        if effects.routers_changed {
            let row =
                serde_json::to_vec(self.planner.routers()).map_err(|error| FoldError::State(error.to_string()))?;
            context.rows.put(ROUTERS_ROW, row.into());
        }
        for router in &effects.configured_changed {
            let key = format!("{CONFIGURED_ROW}{router}");
            match self.planner.routers().get(router).and_then(|router| router.configured.as_ref()) {
                None => context.rows.delete(key.as_bytes()),
                Some(configured) => {
                    let row = serde_json::to_vec(configured).map_err(|error| FoldError::State(error.to_string()))?;
                    context.rows.put(key.as_bytes(), row.into());
                }
            }
        }
        if effects.freezes_changed {
            let row =
                serde_json::to_vec(self.planner.freezes()).map_err(|error| FoldError::State(error.to_string()))?;
            context.rows.put(FREEZES_ROW, row.into());
        }
        write(&effects, context.out)?;
        if !effects.is_silent() {
            context.commit_now = true;
            for event in &effects.events {
                tracing::info!(model = %event.model, generation = event.generation.0, trace_id, "{}", event.sentence);
            }
        }
        if !effects.is_silent() || !effects.changed.is_empty() {
            self.uncommitted.push(effects);
        }
        Ok(())
    }
}

impl Fold for ControllerFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        for (_, row) in rows.scan(MODEL_ROW.as_bytes())? {
            let state = ModelState::from_json(&row).map_err(|error| FoldError::State(error.to_string()))?;
            post(&self.progress, &state);
            self.shown.state(&state);
            self.planner.restore(state);
        }
        if let Some(row) = rows.get(ROUTERS_ROW)? {
            let routers: BTreeMap<String, RouterSeen> = serde_json::from_slice(&row)
                .map_err(|error| FoldError::State(format!("the row of the routers: {error}")))?;
            self.planner.restore_routers(routers);
        }
        if let Some(row) = rows.get(FREEZES_ROW)? {
            let freezes = serde_json::from_slice(&row)
                .map_err(|error| FoldError::State(format!("the row of the freezes: {error}")))?;
            self.planner.restore_freezes(freezes);
        }
        for (key, row) in rows.scan(CONFIGURED_ROW.as_bytes())? {
            let configured: Vec<Configured> = serde_json::from_slice(&row)
                .map_err(|error| FoldError::State(format!("the row of a router's configuration: {error}")))?;
            let router = String::from_utf8_lossy(&key[CONFIGURED_ROW.len()..]).into_owned();
            self.planner.restore_configured(&router, configured);
        }
        let tables = self.tables.newest(self.partition)?;
        for table in tables {
            self.shown.table(&table);
            self.planner.adopt(table);
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let input = match read(record) {
            Ok(input) => input,
            Err(poison) => return Ok(Err(poison)),
        };
        let now_ms = self.ticked_ms.unwrap_or(record.timestamp_ms);
        self.step(input, now_ms, context).map(Ok)
    }

    fn tick(&mut self, now_ms: i64, context: &mut Context<'_>) -> Result<(), FoldError> {
        self.ticked_ms = Some(now_ms);
        self.step(Input::Tick, now_ms, context)
    }

    fn committed(&mut self) {
        for effects in self.uncommitted.drain(..) {
            self.shown.record(&effects);
            for state in effects.changed.iter().filter_map(|model| self.planner.model(model)) {
                self.shown.state(state);
            }
        }
    }
}

fn post(board: &ProgressBoard, state: &ModelState) {
    board.post(&state.model, Progress { planned_through: state.as_of, generation: state.generation });
}

/// Decodes a record. Each topic has one type, so the headers show which one it is.
fn read(record: &Record) -> Result<Input, Poison> {
    let Some(body) = &record.value else {
        return Err(Poison { code: Code::Garbage, message: "a tombstone has no meaning here".to_owned() });
    };
    let (name, version) = envelope::record_type(&record.headers)
        .map_err(|error| Poison { code: Code::UnknownType, message: error.to_string() })?;
    let poison = |error: codec::DecodeError| Poison { code: error.code(), message: error.to_string() };
    if name == Verdict::NAME {
        codec::decode(version, body).map(|verdict| Input::Verdict(Box::new(verdict))).map_err(poison)
    } else if name == Command::NAME {
        let command: Command = codec::decode(version, body).map_err(poison)?;
        check(&command)?;
        Ok(Input::Command(Box::new(command)))
    } else if name == RouterStatus::NAME {
        codec::decode(version, body).map(|status| Input::RouterStatus(Box::new(status))).map_err(poison)
    } else {
        let message = format!("a {name:?} is not a verdict, a command or a router's status");
        Err(Poison { code: Code::UnknownType, message })
    }
}

/// Bounds the strings of a command: ids of a model's commands are kept in its row, and every event contains reason and actor. The API
/// checks its own commands, but other clients may write to the topic too.
fn check(command: &Command) -> Result<(), Poison> {
    let texts = [
        ("id", command.id.len(), MAX_ID_BYTES),
        ("rollout", command.rollout.as_ref().map_or(0, |rollout| rollout.as_str().len()), MAX_ID_BYTES),
        ("retries", command.retries.as_ref().map_or(0, |rollout| rollout.as_str().len()), MAX_ID_BYTES),
        ("model", command.model.as_str().len(), MAX_NAME_BYTES),
        ("actor", command.actor.len(), MAX_NAME_BYTES),
        ("reason", command.reason.len(), crate::REASON_MAX),
    ];
    texts.into_iter().find(|(_, bytes, most)| bytes > most).map_or(Ok(()), |(what, bytes, most)| {
        Err(Poison {
            code: Code::TooLong,
            message: format!("the command's {what} has {bytes} bytes; at most {most} are allowed"),
        })
    })
}

fn write(effects: &Effects, out: &mut Vec<Outgoing>) -> Result<(), FoldError> {
    for control in &effects.controls {
        let id = format!("{}-{}", control.rollout, control.generation);
        for topic in [EVENTS, WINDOWS] {
            let time = control.decided_at;
            out.push(outgoing(topic, Target::EveryPartition, &control.model, &id, time, control)?);
        }
    }
    for table in &effects.tables {
        let id = format!("{}-{}-{}", table.model, table.generation, table.lease_seq);
        out.push(outgoing(ROUTING, Target::ByKey, &table.model, &id, table.decided_at, table)?);
    }
    for event in &effects.events {
        out.push(outgoing(AUDIT, Target::ByKey, &event.model, &event.id, event.at, event)?);
    }
    Ok(())
}

fn outgoing<R: codec::Record>(
    topic: &'static str,
    target: Target,
    model: &ModelName,
    id: &str,
    time: EventTime,
    record: &R,
) -> Result<Outgoing, FoldError> {
    let envelope = Envelope { id, source: SOURCE, subject: model.as_str(), time };
    Outgoing::record(topic, target, Bytes::copy_from_slice(model.as_str().as_bytes()), record, &envelope)
        .map_err(|error| FoldError::Unwritable(error.to_string()))
}
