//! Computes the expected windows from the log in the simplest way, and compares them with the windows that the pipeline wrote.
//!
//! The oracle only supports the newest rules, and shares no code with the aggregator. It reads decoded records, keeps every prediction,
//! and counts the predictions of a window when the window closes. It compares the counts of each (rollout, generation, window, maturity,
//! arm), and the summary of each metric and segment, bit for bit.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use serin_schemas::{
    ids::{EventTime, Generation, RequestId, RolloutId, Span},
    records::{
        Arm, ArmCounts, Control, Feedback, Heartbeat, Outcome, Phase, Prediction, RULES, Segment, WindowClosed, Writer,
    },
};
use serin_sketches::{LinHist, LogHist, Rate, Summary, hash::hash64};
use serin_spec::{Frozen, MetricKind, MetricSource, MetricSpec, RolloutSpec};

/// Revision, value and observation time of each label, by name.
type Labels = BTreeMap<String, (i64, f64, EventTime)>;
/// Identifies a window of a partition.
type Key = (RolloutId, Generation, EventTime, Span);
/// Contents of a window: counts by arm, summaries by arm, metric and segment, and compared answers by arm and segment value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    arms: BTreeMap<Arm, ArmCounts>,
    cells: BTreeMap<(Arm, String, Segment), Summary>,
    population: BTreeMap<(Arm, Segment), i64>,
}
/// The windows of every partition.
type Windows = BTreeMap<(i32, Key), Contents>;

/// Counts of what was compared, for display.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Number of predictions on the log, without repeated sequence numbers.
    pub(crate) predictions: usize,
    /// Number of distinct request ids of these predictions.
    pub(crate) requests: usize,
    /// Number of records with a repeated sequence number.
    repeated: usize,
    /// Number of records of processes that a newer process had replaced. They are not counted.
    pub(crate) stale: usize,
    /// Number of router processes that wrote records.
    pub(crate) incarnations: usize,
    /// Number of compared windows.
    pub(crate) windows: usize,
    /// Number of compared cells.
    pub(crate) cells: usize,
    /// Sum of `n` over the cells for all traffic.
    pub(crate) observations: u64,
}

/// Compares `windows` with `events`, both in the format of `serin tail --output json`. Returns an error for any difference.
pub(crate) fn compare<E: Borrow<Value>>(events: &[E], windows: &[Value]) -> Result<Report> {
    let (expected, mut report) = expected(events)?;
    let found = found(windows)?;
    for (key, contents) in &expected {
        let actual = found.get(key).with_context(|| format!("window {key:?} is not on the log"))?;
        let (arms, wanted) = (&actual.arms, &contents.arms);
        ensure!(arms == wanted, "window {key:?}: counts\n{arms:?}, expected\n{wanted:?}");
        let (population, wanted) = (&actual.population, &contents.population);
        ensure!(population == wanted, "window {key:?}: population\n{population:?}, expected\n{wanted:?}");
        let names = |contents: &Contents| contents.cells.keys().cloned().collect::<Vec<_>>();
        ensure!(
            actual.cells.len() == contents.cells.len(),
            "{key:?}: {:?}, expected {:?}",
            names(actual),
            names(contents)
        );
        for (cell, summary) in &contents.cells {
            let found = actual.cells.get(cell).with_context(|| format!("window {key:?} has no cell {cell:?}"))?;
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

/// The windows on the log. Returns an error if a window is repeated.
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
        ensure!(found.insert(key.clone(), contents).is_none(), "window {key:?} is on the log twice");
    }
    Ok(found)
}

/// The windows that result from the events.
fn expected<E: Borrow<Value>>(events: &[E]) -> Result<(Windows, Report)> {
    let mut partitions: BTreeMap<i32, Vec<&Value>> = BTreeMap::new();
    for event in events.iter().map(Borrow::borrow) {
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

/// Maximum step of a log's time, in milliseconds.
const LONGEST_STEP_MS: i64 = 1000;
/// How long a writer without timely heartbeats holds back the watermark, in milliseconds of log time.
const SILENT_AFTER_MS: i64 = 2000;
/// How far a writer's clock may be off, in microseconds.
const TOLERANCE_US: i64 = 2_000_000;
/// How long a writer may be silent before it is given up, in milliseconds of log time.
const TTL_MS: i64 = 30_000;

/// State of a router from its heartbeats in a partition. Times are milliseconds of log time.
#[derive(Debug)]
struct HeardOf {
    incarnation: i64,
    low: EventTime,
    left: bool,
    heard: i64,
    in_time: Option<i64>,
}

/// A running rollout.
#[derive(Debug)]
struct Running {
    id: RolloutId,
    spec: RolloutSpec,
    /// The frozen segments by generation; `None` during warm-up.
    generations: BTreeMap<Generation, Option<Frozen>>,
    open: BTreeMap<(EventTime, Generation), Vec<Prediction>>,
    /// Number of late predictions, by the window that counts them.
    late: BTreeMap<(EventTime, Generation, Span), BTreeMap<Arm, i64>>,
    /// Closed streams of windows.
    done: BTreeSet<(EventTime, Generation, Span)>,
}

/// One partition of `events`, read from its start.
#[derive(Debug, Default)]
struct Partition {
    running: Option<Running>,
    generation: Generation,
    newest_control: Option<Control>,
    watermark: Option<EventTime>,
    /// Timestamp of the newest record, and the log time since the first record.
    stamp_ms: Option<i64>,
    log_ms: i64,
    /// Log time at which a router with timely heartbeats last determined event time.
    held_ms: i64,
    routers: BTreeMap<String, HeardOf>,
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
        let stamp_ms = record["timestamp_ms"].as_i64().context("a record without a timestamp")?;
        self.log_ms += self.stamp_ms.map_or(0, |before| (stamp_ms - before).clamp(0, LONGEST_STEP_MS));
        self.stamp_ms = Some(stamp_ms);
        match record["type"].as_str() {
            Some("prediction") => {
                self.prediction(read(record)?);
                Ok(())
            }
            Some("feedback") => {
                self.feedback(read(record)?);
                Ok(())
            }
            Some("heartbeat") => self.heartbeat(&read(record)?),
            Some("control") => self.control(read(record)?),
            // The record is dead-lettered.
            Some(other) if other.starts_with("unknown") => Ok(()),
            other => anyhow::bail!("a record of type {other:?} on events: {record}"),
        }
    }

    /// Whether a record is from the writer's newest process. In-flight records of a killed process may arrive after its successor's.
    fn is_current(&mut self, writer: &Writer) -> bool {
        let incarnations = self.newest.entry(writer.name.clone()).or_default();
        if incarnations.last().is_some_and(|newest| writer.incarnation < *newest) {
            self.stale += 1;
            return false;
        }
        incarnations.insert(writer.incarnation);
        true
    }

    /// Whether a record counts: it is the first with its sequence number, and from the writer's newest process.
    fn is_new(&mut self, writer: &Writer) -> bool {
        let current = self.is_current(writer);
        let new = current && self.seen.insert((writer.name.clone(), writer.incarnation, writer.seq));
        self.repeated += usize::from(current && !new);
        new
    }

    fn prediction(&mut self, prediction: Prediction) {
        if !self.is_new(&prediction.writer) {
            return;
        }
        self.predictions += 1;
        self.requests.insert(prediction.request_id.clone());
        let Some(running) = &mut self.running else { return };
        if prediction.rollout.as_ref() != Some(&running.id) || !running.generations.contains_key(&prediction.generation)
        {
            return;
        }
        let end = prediction.completed_at.window_end(running.spec.window.0);
        let closed_to = self.watermark.map(|mark| mark.minus(running.spec.grace.0));
        for stream in streams(&running.spec) {
            let Some(to) = closed_to.filter(|to| end.plus(stream) <= *to) else { continue };
            // It counts as late in the next window to close. The window that it missed is not written again.
            running.done.insert((end, prediction.generation, stream));
            let next = to.minus(stream).window_end(running.spec.window.0);
            let late = running.late.entry((next, prediction.generation, stream)).or_default();
            *late.entry(prediction.arm).or_default() += 1;
        }
        running.open.entry((end, prediction.generation)).or_default().push(prediction);
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
        self.watermark = self.watermark.max(self.held(heartbeat));
        self.close(None);
        Ok(())
    }

    /// Event time after a heartbeat: the lowest watermark of the routers with timely heartbeats or, if there is none, of those with any heartbeats.
    fn held(&mut self, heartbeat: &Heartbeat) -> Option<EventTime> {
        let (Some(sent_at), Some(stamp_ms)) = (heartbeat.sent_at, self.stamp_ms) else {
            // This is a replay, which has only one router here.
            return Some(heartbeat.low_watermark);
        };
        let Writer { name, incarnation, .. } = &heartbeat.writer;
        let (now, low) = (self.log_ms, heartbeat.low_watermark);
        let before = self.routers.get(name).filter(|before| before.incarnation == *incarnation);
        let low = before.map_or(low, |before| before.low.max(low));
        let astray = (sent_at.0 - stamp_ms * 1000).abs() > TOLERANCE_US;
        let in_time = if astray { before.and_then(|before| before.in_time) } else { Some(now) };
        let heard = HeardOf { incarnation: *incarnation, low, left: heartbeat.leaving, heard: now, in_time };
        self.routers.insert(name.clone(), heard);
        let recent = |at: i64| now - at <= SILENT_AFTER_MS;
        let ahead_of = |low: EventTime| self.watermark.is_none_or(|mark| low.0 >= mark.0 - 2 * TOLERANCE_US);
        let live = |router: &&HeardOf| !router.left && now - router.heard <= TTL_MS && ahead_of(router.low);
        let holders = self.routers.values().filter(live).filter(|router| router.in_time.is_some_and(recent));
        let mut lowest = holders.map(|router| router.low).min();
        if lowest.is_some() {
            self.held_ms = now;
        } else if !recent(self.held_ms) {
            lowest = self.routers.values().filter(live).filter(|router| recent(router.heard)).map(|r| r.low).min();
        }
        lowest.or_else(|| (heartbeat.leaving && !astray).then_some(heartbeat.low_watermark))
    }

    fn control(&mut self, control: Control) -> Result<()> {
        // While there are no verdicts, the controller repeats the newest record with a later time, which has no effect.
        let again = |old: &Control| Control { decided_at: control.decided_at, ..old.clone() } == control;
        if self.newest_control.as_ref().is_some_and(again) {
            return Ok(());
        }
        ensure!(control.generation > self.generation, "generation {} is repeated", control.generation);
        self.generation = control.generation;
        self.newest_control = Some(control.clone());
        let same = self.running.as_ref().is_some_and(|running| running.id == control.rollout);
        if !same || control.phase.is_final() {
            // Open windows of a rollout that ends are written as they are, except those that wait for labels.
            self.close(Some(Span(0)));
            self.running = None;
        }
        if control.phase.is_final() {
            return Ok(());
        }
        ensure!(control.phase != Phase::Pending, "the oracle does not support queued rollouts");
        ensure!(control.rules == RULES, "the oracle does not support rules {}", control.rules);
        let frozen = control.frozen.as_deref().map(serde_json::from_str).transpose()?;
        let spec = serde_json::from_str(&control.spec)?;
        let running = self.running.get_or_insert_with(|| Running {
            id: control.rollout,
            spec,
            generations: BTreeMap::new(),
            open: BTreeMap::new(),
            late: BTreeMap::new(),
            done: BTreeSet::new(),
        });
        running.generations.insert(control.generation, frozen);
        Ok(())
    }

    /// Closes the windows that the watermark has passed, or all windows of one stream.
    fn close(&mut self, all_of: Option<Span>) {
        let Some(running) = &mut self.running else { return };
        let none = Vec::new();
        let windows: BTreeSet<(EventTime, Generation)> = running.open.keys().copied().collect();
        let late = running.late.keys().map(|(end, generation, _)| (*end, *generation));
        for (end, generation) in windows.into_iter().chain(late).collect::<BTreeSet<_>>() {
            let predictions = running.open.get(&(end, generation)).unwrap_or(&none);
            for stream in streams(&running.spec) {
                let passed = self.watermark.is_some_and(|mark| end.plus(stream).plus(running.spec.grace.0) <= mark);
                let due = all_of.map_or(passed, |all| all == stream);
                if due && running.done.insert((end, generation, stream)) {
                    let frozen = running.generations.get(&generation).and_then(Option::as_ref);
                    let mut contents = contents(&running.spec, frozen, stream, predictions, &self.labels);
                    for (&arm, late) in running.late.get(&(end, generation, stream)).into_iter().flatten() {
                        contents.arms.entry(arm).or_insert_with(|| ArmCounts::none(arm)).late += late;
                    }
                    if !contents.arms.is_empty() {
                        self.closed.insert((running.id.clone(), generation, end, stream), contents);
                    }
                }
            }
        }
    }
}

/// The streams of windows of a rollout, by maturity.
fn streams(spec: &RolloutSpec) -> BTreeSet<Span> {
    spec.metrics.iter().map(maturity).chain([Span(0)]).collect()
}

/// How long a metric waits for labels.
fn maturity(metric: &MetricSpec) -> Span {
    if metric.needs_label() { metric.maturity.0 } else { Span(0) }
}

/// Contents of a window for one stream.
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
        // Warm-up summarizes stable, the comparison the other arms.
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
        // A call that was retried after a router was killed has two answers, but only one of them waits for a label.
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
            counts.left += i64::from(cancelled && !matches!(prediction.status, None | Some(499)));
        }
        counts.labelled += i64::from(is_label_stream && truths.is_some());
        if !sketched {
            continue;
        }
        if !is_label_stream && (frozen.is_some() || !learns_from_metrics(spec)) {
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

/// Whether each dimension has a metric of all answers, from whose cells warm-up learns the values. Otherwise answers are counted.
fn learns_from_metrics(spec: &RolloutSpec) -> bool {
    let is_of_all = |metric: &&MetricSpec| {
        maturity(metric) == Span(0) && metric.kind != MetricKind::Disagreement && metric.filters.is_empty()
    };
    let learned: BTreeSet<_> = spec.metrics.iter().filter(is_of_all).flat_map(|metric| &metric.segments).collect();
    spec.metrics.iter().flat_map(|metric| &metric.segments).all(|dimension| learned.contains(dimension))
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
        (other, _) => panic!("the oracle does not support {other:?}"),
    }
}

/// The segment of all traffic, and one segment per dimension of the metric.
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
        ref other => panic!("the oracle does not support {other:?}"),
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
