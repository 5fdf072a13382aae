//! The fold over one partition of `windows`: records in, rows kept, verdicts out.

use serin_schemas::Code;
use std::collections::BTreeMap;

use bytes::Bytes;
use serin_schemas::{
    codec::EncodeError,
    envelope::Envelope,
    event::WindowRecord,
    ids::RolloutId,
    records::{ClosedThrough, Control, Decision, Verdict, WindowClosed},
};
use serin_stream::{
    fold::{Context, Fold, FoldError, FoldFactory, Poison, Rows},
    partition_of,
    record::{Outgoing, Record, Target},
    trace::Tracer,
};

use crate::{
    config::Config,
    metrics::{self, Metrics},
    progress::Progress,
    refused,
    rollout::Rollout,
    rows::{self, Kind},
    verdict,
    window::WindowKey,
};

/// Longest allowed id of a rollout. A `UUIDv7` has 36 characters.
const MAX_ID: usize = 200;

/// Creates the analyzer's fold of each partition of `windows`.
#[derive(Clone, Debug)]
pub struct AnalyzerFactory {
    config: Config,
    partitions: i32,
}

impl AnalyzerFactory {
    /// Creates a factory. `partitions` is the number of partitions of `windows`: Control records go to all of them, and a task
    /// analyzes only the rollouts of its own models.
    pub fn new(config: Config, partitions: i32) -> Self {
        Self { config, partitions }
    }
}

impl FoldFactory for AnalyzerFactory {
    fn stage(&self) -> &'static str {
        "analyzer"
    }

    fn inputs(&self) -> &'static [&'static str] {
        &[serin_topology::WINDOWS]
    }

    fn fold(&self, partition: i32) -> Box<dyn Fold> {
        Box::new(AnalyzerFold {
            config: self.config.clone(),
            partition,
            partitions: self.partitions,
            source: format!("/analyzer/{partition}"),
            progress: Progress::default(),
            rollouts: BTreeMap::new(),
            metrics: Metrics::new(partition),
        })
    }

    fn tracer(&self, _partition: i32) -> Option<Box<dyn Tracer>> {
        Some(Box::new(crate::trace::Tracer))
    }
}

struct AnalyzerFold {
    config: Config,
    partition: i32,
    partitions: i32,
    source: String,
    progress: Progress,
    rollouts: BTreeMap<RolloutId, Rollout>,
    metrics: Metrics,
}

impl Fold for AnalyzerFold {
    fn open(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        let unknown = |(_, row): &(Bytes, Bytes)| !rows::is_known(row);
        for prefix in [rows::PROGRESS, rows::UNHEARD, rows::ROLLOUTS] {
            if rows.scan(prefix)?.iter().any(unknown) {
                // Rows are a cache: the rollouts start over with their next Control records, which the controller repeats.
                tracing::warn!(
                    "the rows were written by a build whose format this build cannot read: they are deleted, and the rollouts start over"
                );
                return delete_all(&[], rows);
            }
        }
        let partition = |key: &[u8]| {
            let partition = key.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
            partition.ok_or_else(|| FoldError::State(format!("a row of progress has the key {key:02x?}")))
        };
        for (key, value) in rows.scan(rows::PROGRESS)? {
            self.progress.restore(partition(&key)?, rows::decode("progress", &value)?);
        }
        for (key, value) in rows.scan(rows::UNHEARD)? {
            self.progress.restore_unheard(partition(&key)?, rows::decode("unheard writers", &value)?);
        }
        // The head has the first key of a rollout, so a rollout exists before its other rows are read.
        for (key, value) in rows.scan(rows::ROLLOUTS)? {
            let (id, kind) = rows::parse(&key)?;
            self.restore(id, kind, &value)?;
        }
        self.start_over(rows)?;
        for (id, rollout) in &self.rollouts {
            let (found, planned) = (rollout.evidence().len(), rollout.plan().hypotheses.len());
            if found != planned {
                return Err(FoldError::State(format!(
                    "the analyzer has {found} of {planned} hypotheses of rollout {id}"
                )));
            }
        }
        self.metrics.rollouts(&self.rollouts);
        Ok(())
    }

    fn apply(&mut self, record: &Record, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        let body = record.value.as_deref().unwrap_or_default();
        match WindowRecord::decode(&record.headers, body) {
            Ok(WindowRecord::Control(control)) => {
                let taken = self.control(&control, context.rows)?;
                if let Err(poison) = &taken {
                    self.refuse(&control, poison, context)?;
                }
                Ok(taken)
            }
            Ok(WindowRecord::WindowClosed(window)) => self.window(window, record, context.rows),
            Ok(WindowRecord::ClosedThrough(closed)) => self.closed(&closed, context),
            Err(error) => Ok(Err(Poison { code: error.code(), message: error.to_string() })),
        }
    }

    fn before_commit(&mut self, context: &mut Context<'_>) -> Result<(), FoldError> {
        self.rollouts.iter_mut().try_for_each(|(id, rollout)| rollout.write(id, context.rows))
    }
}

impl AnalyzerFold {
    fn restore(&mut self, id: RolloutId, kind: Kind, value: &[u8]) -> Result<(), FoldError> {
        let bad = |poison: Poison| FoldError::State(format!("the analyzer's rows of a rollout: {}", poison.message));
        if kind == Kind::Head {
            let head = rows::decode_head(value)?;
            self.rollouts.insert(id, Rollout::restore(head).map_err(bad)?);
            return Ok(());
        }
        let orphan = || FoldError::State(format!("the analyzer has rows of rollout {id} without its head"));
        let rollout = self.rollouts.get_mut(&id).ok_or_else(orphan)?;
        rollout.restore_row(kind, value)
    }

    /// Restarts the evidence of each rollout that was judged under other rules than this build uses for it.
    fn start_over(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        for (id, rollout) in self.rollouts.extract_if(.., |_, rollout| rollout.is_of_other_rules()).collect::<Vec<_>>()
        {
            tracing::warn!(rollout = %id, before = %rollout.head().judged, "the rollout's evidence starts over under other rules");
            delete_all(&rows::rollout(&id), rows)?;
            let again = rollout.start_over().map_err(|poison| FoldError::State(poison.message))?;
            self.rollouts.insert(id, again);
        }
        Ok(())
    }

    fn control(&mut self, control: &Control, rows: &mut dyn Rows) -> Result<Result<(), Poison>, FoldError> {
        let id = &control.rollout;
        if partition_of(control.model.as_str().as_bytes(), self.partitions) != self.partition {
            return Ok(Ok(()));
        }
        if !is_id(id) {
            let message =
                format!("the rollout id of a Control record must have 1 to {MAX_ID} bytes, none of them zero");
            return Ok(Err(Poison { code: Code::BadControl, message }));
        }
        if let Some(rollout) = self.rollouts.get_mut(id) {
            // Under other rules, the evidence starts over.
            if rollout.continues_with(control) {
                return Ok(rollout.control(control));
            }
            self.rollouts.remove(id);
            delete_all(&rows::rollout(id), rows)?;
        }
        if !control.phase.is_final() {
            match Rollout::begin(control, &self.progress) {
                Ok(rollout) => drop(self.rollouts.insert(id.clone(), rollout)),
                Err(poison) => return Ok(Err(poison)),
            }
        }
        self.metrics.rollouts(&self.rollouts);
        Ok(Ok(()))
    }

    /// Writes a verdict that a rollout cannot be judged, because its Control record is refused.
    fn refuse(&mut self, control: &Control, poison: &Poison, context: &mut Context<'_>) -> Result<(), FoldError> {
        if control.phase.is_final() || !is_id(&control.rollout) {
            return Ok(());
        }
        let verdict = refused::verdict(control, self.progress.mark(false), &poison.message);
        tracing::warn!(model = %control.model, rollout = %control.rollout, "{}", verdict.sentence);
        context.out.push(outgoing(verdict, &self.source)?);
        context.commit_now = true;
        Ok(())
    }

    fn window(
        &mut self,
        window: WindowClosed,
        record: &Record,
        rows: &mut dyn Rows,
    ) -> Result<Result<(), Poison>, FoldError> {
        let (id, partition) = (window.rollout.clone(), window.partition);
        let Some(rollout) = self.rollouts.get_mut(&id) else {
            // The rollout has ended, and its last windows still arrive.
            self.metrics.refused(metrics::UNKNOWN_ROLLOUT);
            return Ok(Ok(()));
        };
        match rollout.take(window) {
            Ok(Ok(key)) => {
                rows.put(&rows::partial(&id, &key, partition), rows::partial_row(record)?);
                self.check_pending()?;
            }
            Ok(Err(refusal)) => {
                self.metrics.refused(refusal.name());
                tracing::debug!(rollout = %id, partition, reason = refusal.name(), "a partial window was not taken");
            }
            Err(poison) => return Ok(Err(poison)),
        }
        Ok(Ok(()))
    }

    fn check_pending(&self) -> Result<(), FoldError> {
        let pending: usize = self.rollouts.values().map(Rollout::pending).sum();
        if pending <= self.config.max_pending_windows {
            return Ok(());
        }
        Err(FoldError::State(format!(
            "{pending} windows are waiting for partitions {:?} of `events`; check that their aggregators are running, or raise \
             `analyzer.max_pending_windows`",
            self.progress.blocking()
        )))
    }

    fn closed(&mut self, closed: &ClosedThrough, context: &mut Context<'_>) -> Result<Result<(), Poison>, FoldError> {
        if closed.partitions <= 0 || !(0..closed.partitions).contains(&closed.partition) {
            let message = format!("partition {} of {} does not exist", closed.partition, closed.partitions);
            return Ok(Err(Poison { code: Code::BadClosedThrough, message }));
        }
        let was_unheard = self.progress.unheard(closed.partition).is_some();
        let Some(promise) = self.progress.note(closed) else { return Ok(Ok(())) };
        context.rows.put(&rows::progress(closed.partition), rows::encode(&promise)?);
        let key = rows::unheard(closed.partition);
        match self.progress.unheard(closed.partition) {
            Some(unheard) => context.rows.put(&key, rows::encode(unheard)?),
            None if was_unheard => context.rows.delete(&key),
            None => {}
        }
        let marks = [false, true].map(|external| self.progress.mark(external));
        let [Some(through), Some(relayed)] = marks else { return Ok(Ok(())) };
        let heard = self.progress.heard();
        for (id, rollout) in &mut self.rollouts {
            let (done, is_due) = rollout.advance(if rollout.plan().is_external() { relayed } else { through })?;
            self.metrics.windows(done.len());
            for (window, parts) in done {
                delete_partials(id, &window, parts.into_iter(), context.rows);
            }
            if is_due {
                let verdict = verdict::due(rollout, &heard);
                self.metrics.verdict(&verdict, &rollout.plan().spec);
                log(&verdict);
                context.out.push(outgoing(verdict, &self.source)?);
                context.commit_now = true;
            }
        }
        Ok(Ok(()))
    }
}

/// Whether rows can be kept under a rollout's id.
fn is_id(id: &RolloutId) -> bool {
    !id.as_str().is_empty() && id.as_str().len() <= MAX_ID && !id.as_str().contains('\0')
}

fn delete_all(prefix: &[u8], rows: &mut dyn Rows) -> Result<(), FoldError> {
    rows.scan(prefix)?.iter().for_each(|(key, _)| rows.delete(key));
    Ok(())
}

fn delete_partials(id: &RolloutId, window: &WindowKey, parts: impl Iterator<Item = i32>, rows: &mut dyn Rows) {
    for partition in parts {
        rows.delete(&rows::partial(id, window, partition));
    }
}

/// Number of reasons that are kept of a verdict that is too large. The worst are kept.
const REASONS_KEPT: usize = 20;

/// A verdict as a record. A verdict that is too large for the log keeps what decides: all traffic, and the segments that failed.
fn outgoing(mut verdict: Verdict, source: &str) -> Result<Outgoing, FoldError> {
    let record = |verdict: &Verdict| {
        let envelope = Envelope { id: &verdict.id, source, subject: verdict.model.as_str(), time: verdict.as_of };
        let key = Bytes::copy_from_slice(verdict.model.as_str().as_bytes());
        Outgoing::record(serin_topology::VERDICTS, Target::ByKey, key, verdict, &envelope)
    };
    let mut written = record(&verdict);
    if let Err(EncodeError::TooLarge { bytes, .. }) = written {
        tracing::error!(rollout = %verdict.rollout, bytes, "a verdict is too large for the log: segments are left out");
        verdict.metrics.retain(|metric| metric.segment.is_all() || metric.failed_at.is_some());
        written = record(&verdict);
    }
    if let Err(EncodeError::TooLarge { bytes, .. }) = written {
        tracing::error!(rollout = %verdict.rollout, bytes, "a verdict is too large for the log: only its reasons are kept");
        verdict.metrics.clear();
        verdict.reasons.truncate(REASONS_KEPT);
        written = record(&verdict);
    }
    written.map_err(|error| FoldError::Unwritable(format!("a verdict cannot be written: {error}")))
}

fn log(verdict: &Verdict) {
    let Verdict { model, rollout, as_of, step, decision, sentence, .. } = verdict;
    let trace_id = crate::trace::id_for_logs(rollout, *as_of);
    match decision {
        Decision::Rollback | Decision::Hold => {
            tracing::info!(%model, %rollout, as_of = as_of.0, step, ?decision, trace_id, "{sentence}");
        }
        Decision::Promote | Decision::Continue => {
            tracing::debug!(%model, %rollout, as_of = as_of.0, step, ?decision, trace_id, "{sentence}");
        }
    }
}
