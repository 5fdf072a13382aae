//! The folds of one model's pipeline, connected directly: no log, no threads, no wall clock. The output of one fold is passed
//! to the next until no fold has output.
//!
//! The folds are the ones that the services run. Nothing here survives a crash, so only the aggregator commits: it is the only
//! fold that reads its own rows.

use anyhow::Context as _;
use bytes::Bytes;
use serin_rollout::RolloutState;
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    ids::{EventTime, ModelName, RolloutId},
    records::{Action, Command, RolloutEvent, RoutingTable, Verdict},
};
use serin_spec::RolloutSpec;
use serin_stream::{
    driver::FoldDriver,
    fold::{Context, Fold, FoldError, FoldFactory as _, Rows},
    record::{Headers, Outgoing, Record, TopicPartition},
};

/// Id of the only rollout.
pub(crate) const ROLLOUT: &str = "virtual";

/// The pipeline of one model.
pub(crate) struct InProcess {
    model: ModelName,
    aggregator: FoldDriver,
    analyzer: LocalFold,
    controller: LocalFold,
    table: Option<RoutingTable>,
    state: Option<RolloutState>,
    /// The analyzer's verdicts that were not taken yet.
    verdicts: Vec<Verdict>,
    /// All records that were written, in the order of a log.
    #[cfg(test)]
    pub(crate) tape: Vec<Outgoing>,
}

impl InProcess {
    /// An empty pipeline.
    pub(crate) fn new(model: ModelName, aggregator: serin_aggregator::Config) -> anyhow::Result<Self> {
        let aggregator = serin_aggregator::AggregatorFactory::new(aggregator, 1);
        let analyzer = serin_analyzer::AnalyzerFactory::new(serin_analyzer::Config::default(), 1);
        Ok(Self {
            model,
            aggregator: FoldDriver::new(move || aggregator.fold(0))?,
            analyzer: LocalFold::new(analyzer.fold(0))?,
            controller: LocalFold::new(serin_controller::ControllerFactory::without_log().fold(0))?,
            table: None,
            state: None,
            verdicts: Vec::new(),
            #[cfg(test)]
            tape: Vec::new(),
        })
    }

    /// Starts a rollout of a normalized spec.
    pub(crate) fn apply(&mut self, spec: &RolloutSpec) -> anyhow::Result<()> {
        let (id, actor) = ("virtual".to_owned(), "simulation".to_owned());
        let command = Command {
            rollout: Some(RolloutId::from(ROLLOUT)),
            spec: Some(serde_json::to_string(spec)?),
            ..Command::new(id, Action::Apply, self.model.clone(), actor, EventTime(0))
        };
        let (headers, body) = encoded(&self.model, &command)?;
        self.controller.take(serin_topology::COMMANDS, self.key(), headers, body)?;
        self.run_until_quiet()
    }

    /// The newest routing table.
    pub(crate) fn table(&self) -> anyhow::Result<&RoutingTable> {
        self.table.as_ref().context("there is no routing table")
    }

    /// The state of the rollout in its last event.
    pub(crate) fn state(&self) -> Option<&RolloutState> {
        self.state.as_ref()
    }

    /// The analyzer's verdicts that were not taken yet.
    pub(crate) fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// Hands an event to the aggregator.
    pub(crate) fn event<R: codec::Record>(&mut self, key: &str, event: &R) -> anyhow::Result<()> {
        let (headers, body) = encoded(&self.model, event)?;
        let key = Bytes::copy_from_slice(key.as_bytes());
        #[cfg(test)]
        self.tape.push(Outgoing {
            topic: serin_topology::EVENTS,
            target: serin_stream::record::Target::ByKey,
            key: key.clone(),
            value: Some(body.clone()),
            headers: headers.clone(),
            timestamp_ms: None,
        });
        self.aggregate(key, headers, body)
    }

    /// Hands a record of the topic `windows` to the analyzer, as if the aggregator had written it.
    pub(crate) fn window<R: codec::Record>(&mut self, record: &R) -> anyhow::Result<()> {
        let (headers, body) = encoded(&self.model, record)?;
        self.analyzer.take(serin_topology::WINDOWS, self.key(), headers, body)
    }

    /// Passes the output of each fold to the next one until there is none.
    pub(crate) fn run_until_quiet(&mut self) -> anyhow::Result<()> {
        loop {
            let mut outgoing = std::mem::take(&mut self.controller.out);
            outgoing.extend(self.aggregator.commit()?);
            outgoing.append(&mut self.analyzer.out);
            if outgoing.is_empty() {
                return Ok(());
            }
            for record in outgoing {
                self.pass_on(record)?;
            }
        }
    }

    fn pass_on(&mut self, record: Outgoing) -> anyhow::Result<()> {
        #[cfg(test)]
        self.tape.push(record.clone());
        let body = record.value.unwrap_or_default();
        match record.topic {
            serin_topology::EVENTS => self.aggregate(record.key, record.headers, body)?,
            serin_topology::WINDOWS => self.analyzer.take(record.topic, record.key, record.headers, body)?,
            serin_topology::VERDICTS => {
                self.verdicts.push(codec::read(&record.headers, &body)?);
                self.controller.take(record.topic, record.key, record.headers, body)?;
            }
            serin_topology::ROUTING => self.table = Some(codec::read(&record.headers, &body)?),
            serin_topology::AUDIT => {
                let event: RolloutEvent = codec::read(&record.headers, &body)?;
                if let Some(state) = &event.state {
                    self.state = Some(serde_json::from_str(state)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn aggregate(&mut self, key: Bytes, headers: Headers, body: Bytes) -> anyhow::Result<()> {
        let record = self.aggregator.record(serin_topology::EVENTS, 0, 0, key, headers, Some(body));
        if let Some(poison) = self.aggregator.apply(&record)?.poison {
            anyhow::bail!("the aggregator refused a record: {}", poison.message);
        }
        Ok(())
    }

    fn key(&self) -> Bytes {
        Bytes::copy_from_slice(self.model.as_str().as_bytes())
    }
}

/// A fold without stored rows, for folds that read rows only when they open.
pub(crate) struct LocalFold {
    fold: Box<dyn Fold>,
    offset: i64,
    /// The output of the fold that was not taken yet.
    pub(crate) out: Vec<Outgoing>,
}

impl LocalFold {
    /// Opens a fold.
    pub(crate) fn new(mut fold: Box<dyn Fold>) -> Result<Self, FoldError> {
        fold.open(&mut NoRows)?;
        Ok(Self { fold, offset: 0, out: Vec::new() })
    }

    /// Applies one record.
    pub(crate) fn take(&mut self, topic: &str, key: Bytes, headers: Headers, body: Bytes) -> anyhow::Result<()> {
        let at = TopicPartition::new(topic, 0);
        let record = Record { at, offset: self.offset, timestamp_ms: 0, key, value: Some(body), headers };
        self.offset += 1;
        if let Some(refused) = self.apply(&record)? {
            anyhow::bail!("a fold refused a record of {topic}: {refused}");
        }
        Ok(())
    }

    /// Applies a record of a log. Returns the reason if the fold could not use it.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<Option<String>, FoldError> {
        let mut context = Context { rows: &mut NoRows, out: &mut self.out, commit_now: false };
        Ok(self.fold.apply(record, &mut context)?.err().map(|poison| poison.message))
    }
}

/// Rows that store nothing.
struct NoRows;

impl Rows for NoRows {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, FoldError> {
        Ok(None)
    }

    fn visit(&self, _: &[u8], _: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), FoldError> {
        Ok(())
    }

    fn put(&mut self, _: &[u8], _: Bytes) {}

    fn delete(&mut self, _: &[u8]) {}
}

fn encoded<R: codec::Record>(model: &ModelName, record: &R) -> anyhow::Result<(Headers, Bytes)> {
    let envelope = Envelope { id: "virtual", source: "/simulation", subject: model.as_str(), time: EventTime(0) };
    Ok((envelope::headers::<R>(&envelope), Bytes::from(codec::encode(record)?)))
}
