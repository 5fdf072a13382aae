//! What the windows must be, computed from the log in the plainest way, and compared with what the pipeline wrote.
//!
//! It knows the newest rules only. It shares no code with the aggregator: it reads decoded records, keeps every prediction, and counts each of a window anew
//! when the window closes. Per (rollout, generation, window, maturity, arm) it gives the counts, and per metric and segment
//! the summary itself, bit for bit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use serin_rollout::{Frozen, MetricKind, MetricSource, MetricSpec, RolloutSpec};
use serin_schemas::{
    ids::{EventTime, Generation, RequestId, RolloutId, Span},
    records::{Arm, ArmCounts, Control, Feedback, Heartbeat, Outcome, Phase, Prediction, RULES, Segment, WindowClosed, Writer},
};
use serin_sketches::{LinHist, LogHist, Rate, Summary, hash::hash64};

/// By name: revision, what the label says, when it was observed.
type Labels = BTreeMap<String, (i64, f64, EventTime)>;
/// Names one window of one partition.
pub(crate) type Key = (RolloutId, Generation, EventTime, Span);
/// What one window holds: counts by arm, summaries by arm, metric and segment, compared answers by arm and segment value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) arms: BTreeMap<Arm, ArmCounts>,
    pub(crate) cells: BTreeMap<(Arm, String, Segment), Summary>,
    pub(crate) population: BTreeMap<(Arm, Segment), i64>,
}
/// The windows of every partition.
pub(crate) type Windows = BTreeMap<(i32, Key), Contents>;

/// What was compared, for people.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Predictions on the log, each sequence number once.
    pub(crate) predictions: usize,
    /// Different request ids among them.
    pub(crate) requests: usize,
    /// Records that stand on the log more than once under the same sequence number.
    pub(crate) repeated: usize,
    /// Records of processes that a newer one had replaced: they count for nothing.
    pub(crate) stale: usize,
    /// Processes of routers that wrote.
    pub(crate) incarnations: usize,
    /// Windows compared.
    pub(crate) windows: usize,
    /// Cells compared.
    pub(crate) cells: usize,
    /// Sum of `n` over the cells for all traffic.
    pub(crate) observations: u64,
}

/// Compares `windows` with `events`, both as `serin tail --output json` printed them; any difference is an error.
pub(crate) fn compare(events: &[Value], windows: &[Value]) -> Result<Report> {
    let (expected, mut report) = expected(events)?;
    let found = found(windows)?;
    for (key, contents) in &expected {
        let there = found.get(key).with_context(|| format!("window {key:?} is not on the log"))?;
        ensure!(there.arms == contents.arms, "window {key:?}: counts\n{:?}, expected\n{:?}", there.arms, contents.arms);
        let (found_there, wanted) = (&there.population, &contents.population);
        ensure!(found_there == wanted, "window {key:?}: population\n{found_there:?}, expected\n{wanted:?}");
        let names = |contents: &Contents| contents.cells.keys().cloned().collect::<Vec<_>>();
        ensure!(
            there.cells.len() == contents.cells.len(),
            "{key:?}: {:?}, expected {:?}",
            names(there),
            names(contents)
        );
        for (cell, summary) in &contents.cells {
            let found = there.cells.get(cell).with_context(|| format!("window {key:?} has no cell {cell:?}"))?;
            ensure!(found == summary, "window {key:?}, cell {cell:?}: {found:?}, expected {summary:?}");
            report.cells += 1;
            report.observations += if cell.2.is_all() { summary.n() } else { 0 };
        }
    }
    let extra: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
    ensure!(extra.is_empty(), "windows that no event explains: {extra:?}");
    report.windows = expected.len();
    Ok(report)
}

/// The windows on the log; an error if one of them stands there twice.
fn found(records: &[Value]) -> Result<Windows> {
    let mut found = Windows::new();
    for record in records.iter().filter(|record| record["type"] == "window_closed") {
        let window: WindowClosed = read(record)?;
        let mut contents = Contents::default();
        for counts in window.arms {
            ensure!(contents.arms.insert(counts.arm, counts).is_none(), "an arm twice in one window: {record}");
        }
        for cell in window.cells {
            let summary = Summary::decode(&cell.summary)?;
            let before = contents.cells.insert((cell.arm, cell.metric, cell.segment), summary);
            ensure!(before.is_none(), "a cell twice in one window: {record}");
        }
        for share in window.population {
            let before = contents.population.insert((share.arm, share.segment), share.predictions);
            ensure!(before.is_none(), "a segment value twice in one window: {record}");
        }
        let key = (window.partition, (window.rollout, window.generation, window.end, window.maturity));
        ensure!(found.insert(key.clone(), contents).is_none(), "window {key:?} stands on the log twice");
    }
    Ok(found)
}

/// The windows that the events make.
fn expected(events: &[Value]) -> Result<(Windows, Report)> {
    let mut partitions: BTreeMap<i32, Vec<&Value>> = BTreeMap::new();
    for event in events {
        let partition = event["partition"].as_i64().context("a record without partition")? as i32;
        partitions.entry(partition).or_default().push(event);
    }
    let mut windows = Windows::new();
    let mut report = Report::default();
    let (mut requests, mut writers) = (HashSet::new(), BTreeSet::new());
    for (partition, events) in partitions {
        let mut one = Partition::default();
        for event in events {
            one.record(event)?;
        }
        windows.extend(one.closed.into_iter().map(|(key, contents)| ((partition, key), contents)));
        report.predictions += one.predictions;
        report.repeated += one.repeated;
        report.stale += one.stale;
        requests.extend(one.requests);
        writers.extend(one.newest.into_values().flatten());
    }
    report.requests = requests.len();
    report.incarnations = writers.len();
    Ok((windows, report))
}

/// A rollout while it runs.
#[derive(Debug)]
struct Running {
    id: RolloutId,
    spec: RolloutSpec,
    /// Per generation, the frozen segments; `None` while it warms up.
    generations: BTreeMap<Generation, Option<Frozen>>,
    open: BTreeMap<(EventTime, Generation), Vec<Prediction>>,
    /// Streams of a window that are closed already.
    done: BTreeSet<(EventTime, Generation, Span)>,
}

/// One partition of `events`, read from its start.
#[derive(Debug, Default)]
struct Partition {
    running: Option<Running>,
    generation: Generation,
    watermark: Option<EventTime>,
    seen: HashSet<(String, i64, i64)>,
    /// Incarnations by writer, in order.
    newest: BTreeMap<String, BTreeSet<i64>>,
    labels: HashMap<RequestId, Labels>,
    closed: BTreeMap<Key, Contents>,
    predictions: usize,
    repeated: usize,
    stale: usize,
    requests: HashSet<RequestId>,
}

impl Partition {
    fn record(&mut self, record: &Value) -> Result<()> {
        match record["type"].as_str() {
            Some("prediction") => self.prediction(read(record)?),
            Some("feedback") => {
                self.feedback(read(record)?);
                Ok(())
            }
            Some("heartbeat") => self.heartbeat(&read(record)?),
            Some("control") => self.control(read(record)?),
            other => anyhow::bail!("a record of type {other:?} on events: {record}"),
        }
    }

    /// Whether a record is of the writer's newest process; what a killed one had under way may come after its successor's.
    fn is_current(&mut self, writer: &Writer) -> bool {
        let incarnations = self.newest.entry(writer.name.clone()).or_default();
        if incarnations.last().is_some_and(|newest| writer.incarnation < *newest) {
            self.stale += 1;
            return false;
        }
        incarnations.insert(writer.incarnation);
        true
    }

    /// Whether a record counts: the first with its number, and of the writer's newest process.
    fn is_new(&mut self, writer: &Writer) -> bool {
        let current = self.is_current(writer);
        let new = current && self.seen.insert((writer.name.clone(), writer.incarnation, writer.seq));
        self.repeated += usize::from(current && !new);
        new
    }

    fn prediction(&mut self, prediction: Prediction) -> Result<()> {
        if !self.is_new(&prediction.writer) {
            return Ok(());
        }
        self.predictions += 1;
        self.requests.insert(prediction.request_id.clone());
        let Some(running) = &mut self.running else { return Ok(()) };
        if prediction.rollout.as_ref() != Some(&running.id) || !running.generations.contains_key(&prediction.generation)
        {
            return Ok(());
        }
        let end = prediction.completed_at.window_end(running.spec.window.0);
        let closed = self.watermark.is_some_and(|mark| end.plus(running.spec.grace.0) <= mark);
        ensure!(!closed, "a late prediction, which this replay never sends: {prediction:?}");
        running.open.entry((end, prediction.generation)).or_default().push(prediction);
        Ok(())
    }

    fn feedback(&mut self, feedback: Feedback) {
        if self.is_new(&feedback.writer) {
            let labels = self.labels.entry(feedback.request_id).or_default();
            for (name, value) in feedback.values {
                let label = labels.entry(name).or_insert((i64::MIN, 0.0, EventTime(0)));
                if feedback.revision > label.0 {
                    *label = (feedback.revision, value, feedback.observed_at);
                }
            }
        }
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<()> {
        if !self.is_current(&heartbeat.writer) {
            return Ok(());
        }
        ensure!(heartbeat.drops.is_empty(), "a router dropped events: {heartbeat:?}");
        self.watermark = self.watermark.max(Some(heartbeat.low_watermark));
        self.close(None);
        Ok(())
    }

    fn control(&mut self, control: Control) -> Result<()> {
        ensure!(control.generation > self.generation, "generation {} came again", control.generation);
        self.generation = control.generation;
        let same = self.running.as_ref().is_some_and(|running| running.id == control.rollout);
        if !same || control.phase.is_final() {
            // What is open of a rollout that ends is written as it is; labels that still wait are not.
            self.close(Some(Span(0)));
            self.running = None;
        }
        if control.phase.is_final() {
            return Ok(());
        }
        ensure!(control.phase != Phase::Pending, "the oracle knows no queue of rollouts");
        ensure!(control.rules == RULES, "the oracle does not know rules {}", control.rules);
        let frozen = control.frozen.as_deref().map(serde_json::from_str).transpose()?;
        let spec = serde_json::from_str(&control.spec)?;
        let running = self.running.get_or_insert_with(|| Running {
            id: control.rollout,
            spec,
            generations: BTreeMap::new(),
            open: BTreeMap::new(),
            done: BTreeSet::new(),
        });
        running.generations.insert(control.generation, frozen);
        Ok(())
    }

    /// Closes what the watermark has passed, or all of one stream.
    fn close(&mut self, all_of: Option<Span>) {
        let Some(running) = &mut self.running else { return };
        let mut streams: BTreeSet<Span> = running.spec.metrics.iter().map(maturity).collect();
        streams.insert(Span(0));
        for ((end, generation), predictions) in &running.open {
            for &stream in &streams {
                let passed = self.watermark.is_some_and(|mark| end.plus(stream).plus(running.spec.grace.0) <= mark);
                let due = all_of.map_or(passed, |all| all == stream);
                if due && running.done.insert((*end, *generation, stream)) {
                    let frozen = running.generations.get(generation).and_then(Option::as_ref);
                    let contents = contents(&running.spec, frozen, stream, predictions, &self.labels);
                    if !contents.arms.is_empty() {
                        self.closed.insert((running.id.clone(), *generation, *end, stream), contents);
                    }
                }
            }
        }
    }
}

/// How long a metric waits for labels.
fn maturity(metric: &MetricSpec) -> Span {
    if metric.source.needs_label() { metric.maturity.0 } else { Span(0) }
}

/// What a window holds for one stream.
fn contents(
    spec: &RolloutSpec,
    frozen: Option<&Frozen>,
    stream: Span,
    predictions: &[Prediction],
    labels: &HashMap<RequestId, Labels>,
) -> Contents {
    let mut contents = Contents::default();
    let mut joined = HashSet::new();
    for prediction in predictions {
        let (arm, is_label_stream) = (prediction.arm, stream > Span(0));
        let compared = prediction.assignment.is_compared();
        // Warm-up looks at stable, the comparison at the others.
        let sketched = compared && (arm == Arm::Stable) == frozen.is_none();
        let outcome = prediction.outcome();
        let cancelled = compared && outcome == Outcome::Cancelled;
        if is_label_stream && (compared && !sketched || cancelled) {
            continue;
        }
        let counts = contents.arms.entry(arm).or_insert_with(|| ArmCounts::none(arm));
        if !compared {
            counts.excluded += 1;
            continue;
        }
        // A call that was asked again after a router was killed is two answers, but one that waits for a label.
        if is_label_stream && !joined.insert(&prediction.request_id) {
            continue;
        }
        let truths = labels.get(&prediction.request_id);
        counts.predictions += i64::from(!cancelled);
        counts.errors += i64::from(outcome == Outcome::Failed);
        counts.invalid += i64::from(outcome == Outcome::Unusable);
        if !is_label_stream {
            counts.refused += i64::from(outcome == Outcome::Refused);
            counts.redirected += i64::from(outcome == Outcome::Redirected);
            counts.unread += i64::from(outcome == Outcome::Unread);
            counts.cancelled += i64::from(cancelled);
        }
        counts.labelled += i64::from(is_label_stream && truths.is_some());
        if !sketched {
            continue;
        }
        if !is_label_stream && frozen.is_some() {
            for dimension in spec.metrics.iter().flat_map(|metric| &metric.segments).collect::<BTreeSet<_>>() {
                *contents.population.entry((arm, segment(dimension, frozen, prediction))).or_default() += 1;
            }
        }
        for metric in spec.metrics.iter().filter(|metric| maturity(metric) == stream) {
            let Some(value) = value(metric, prediction, truths) else { continue };
            for segment in segments(metric, frozen, prediction) {
                let cell = contents.cells.entry((arm, metric.name.clone(), segment));
                insert(cell.or_insert_with(|| empty_summary(metric)), metric, prediction, value);
            }
        }
    }
    contents
}

fn value(metric: &MetricSpec, prediction: &Prediction, truths: Option<&Labels>) -> Option<f64> {
    let flag = |yes: bool| Some(f64::from(u8::from(yes)));
    let truth = |label: &String| Some(truths?.get(label)?.1);
    let output = |name: &String| prediction.outputs.get(name).copied();
    match (&metric.source, prediction.outcome()) {
        (_, Outcome::Cancelled) | (MetricSource::Unusable, Outcome::Unread) => None,
        (MetricSource::Failed, outcome) => flag(outcome == Outcome::Failed),
        (MetricSource::Refused, outcome) => flag(matches!(outcome, Outcome::Refused | Outcome::Redirected)),
        (MetricSource::Unusable, outcome) => flag(outcome == Outcome::Unusable),
        (MetricSource::Latency, _) => prediction.latency_us.map(|us| us as f64 / 1e3),
        (MetricSource::Wrong { output: name, label, threshold }, _) => {
            flag((output(name)? >= *threshold) != (truth(label)? >= 0.5))
        }
        (MetricSource::LabelDelay(label), _) => {
            let (_, _, observed_at) = truths?.get(label)?;
            Some(observed_at.since(prediction.completed_at).as_secs_f64().max(0.0))
        }
        (MetricSource::SquaredError { output: name, label }, _) => Some((output(name)? - truth(label)?).powi(2)),
        (other, _) => panic!("the oracle does not know {other:?}"),
    }
}

/// All traffic, and one segment per dimension of the metric.
fn segments(metric: &MetricSpec, frozen: Option<&Frozen>, prediction: &Prediction) -> Vec<Segment> {
    let own = metric.segments.iter().map(|dimension| segment(dimension, frozen, prediction));
    std::iter::once(Segment::all()).chain(own).collect()
}

/// The value of a dimension, or `other`.
fn segment(dimension: &str, frozen: Option<&Frozen>, prediction: &Prediction) -> Segment {
    let value = prediction.segments.get(dimension).map_or("other", String::as_str);
    let judged =
        frozen.is_none_or(|frozen| frozen.segments.get(dimension).is_some_and(|all| all.iter().any(|v| v == value)));
    Segment::of(dimension, if judged { value } else { "other" })
}

fn empty_summary(metric: &MetricSpec) -> Summary {
    match metric.kind {
        MetricKind::Rate => Summary::Rate(Rate::default()),
        MetricKind::Mean { .. } => Summary::Lin(LinHist::new()),
        MetricKind::Quantile { .. } | MetricKind::Distribution => Summary::Log(LogHist::new()),
        ref other => panic!("the oracle does not know {other:?}"),
    }
}

fn insert(summary: &mut Summary, metric: &MetricSpec, prediction: &Prediction, value: f64) {
    let inserted = match (summary, &metric.kind) {
        (Summary::Rate(rate), _) => rate.insert(value >= 0.5),
        (Summary::Log(hist), _) => hist.insert(value),
        (Summary::Lin(hist), MetricKind::Mean { min, max }) => {
            let key = [prediction.request_id.as_str(), &metric.name].concat();
            hist.insert((value - min) / (max - min), hash64(b"dither", key.as_bytes()))
        }
        other => panic!("{other:?}"),
    };
    inserted.expect("a value that its summary can hold");
}

fn read<T: serde::de::DeserializeOwned>(record: &Value) -> Result<T> {
    serde_json::from_value(record["value"].clone()).with_context(|| format!("an unreadable record: {record}"))
}
