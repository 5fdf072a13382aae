//! Another policy on recorded traffic: the same Control records with another spec, and windows that fit it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serin_kinds::Metric as _;
use serin_schemas::{
    codec,
    envelope::{self, Envelope},
    event::WindowRecord,
    ids::{EventTime, RolloutId, Span},
    records::{Cell, ClosedThrough, Control, WindowClosed},
};
use serin_sketches::SummaryKind;
use serin_spec::{Frozen, MetricSpec, RolloutSpec};
use serin_stream::{
    driver::FoldDriver,
    fold::FoldFactory as _,
    log::Log,
    record::{Headers, Record},
};

use super::each;

/// Number of records of `events` between two commits of the aggregator's fold.
const COMMIT_EVERY: u64 = 2000;

/// A policy that replaces the recorded one.
pub(crate) struct Policy {
    spec: RolloutSpec,
    json: String,
    /// Names of the metrics in the spec.
    metrics: BTreeSet<String>,
    maturities: BTreeSet<Span>,
}

impl Policy {
    /// The policy of a rollout file.
    pub(crate) fn new(spec: &RolloutSpec) -> anyhow::Result<Self> {
        let spec = spec.normalized();
        let maturity = |metric: &MetricSpec| metric.settles_after(spec.window).0;
        let maturities = spec.metrics.iter().map(maturity).chain([Span::default()]).collect();
        let metrics = spec.metrics.iter().map(|metric| metric.name.clone()).collect();
        Ok(Self { json: serde_json::to_string(&spec)?, metrics, maturities, spec })
    }

    /// The spec of the policy.
    pub(crate) fn spec(&self) -> &RolloutSpec {
        &self.spec
    }

    /// A Control record under this policy. Values that were frozen at warm-up are kept if the policy uses them.
    fn control(&self, control: Control) -> anyhow::Result<Control> {
        let frozen = control.frozen.as_deref().map(serde_json::from_str::<Frozen>).transpose()?;
        let frozen = frozen.map(|mut frozen| {
            for dimension in &self.spec.segments {
                frozen.segments.entry(dimension.name.clone()).or_default().truncate(dimension.top);
            }
            frozen.segments.retain(|name, _| self.spec.segments.iter().any(|dimension| dimension.name == *name));
            frozen
        });
        let frozen = frozen.as_ref().map(serde_json::to_string).transpose()?;
        Ok(Control { spec: self.json.clone(), frozen, ..control })
    }

    /// A recorded window under this policy, without cells that the policy does not judge. `None`: nothing is left.
    fn window(&self, mut window: WindowClosed) -> Option<WindowClosed> {
        if !self.maturities.contains(&window.maturity) {
            return None;
        }
        // Summaries by unit are only used with sticky assignment. The type byte identifies them.
        let units = self.spec.assignment.sticky.is_some();
        let of_units = |cell: &Cell| {
            let kinds = [SummaryKind::Buckets, SummaryKind::ByUnit];
            cell.summary.get(1).is_some_and(|byte| kinds.iter().any(|kind| *kind as u8 == *byte))
        };
        window.cells.retain(|cell| self.metrics.contains(&cell.metric) && (units || !of_units(cell)));
        Some(window)
    }
}

/// Why recorded windows are not sufficient for a policy, so that it must be judged from `events`. Empty: they are sufficient.
pub(crate) fn needs_events(recorded: &RolloutSpec, policy: &RolloutSpec) -> Vec<String> {
    let mut reasons = Vec::new();
    if recorded.window != policy.window {
        reasons.push(format!("the window is {} instead of {}", policy.window, recorded.window));
    }
    if policy.grace < recorded.grace {
        reasons.push(format!("the grace of {} is shorter than the recorded {}", policy.grace, recorded.grace));
    }
    if policy.assignment.sticky.is_some() && recorded.assignment.sticky.is_none() {
        reasons.push("no units were recorded, and `assignment.sticky` needs them".to_owned());
    }
    for metric in &policy.metrics {
        let Some(known) = recorded.metrics.iter().find(|known| known.name == metric.name) else {
            reasons.push(format!("metric {:?} was not recorded", metric.name));
            continue;
        };
        let changed = [
            ("kind", known.kind != metric.kind && !same_summary(known, metric)),
            ("source", known.source != metric.source),
            ("maturity", known.maturity != metric.maturity),
            ("whenMissing", known.when_missing != metric.when_missing),
        ];
        for (what, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            reasons.push(format!("metric {:?} has another {what}", metric.name));
        }
        for name in metric.segments.iter().filter(|name| !known.segments.contains(name)) {
            reasons.push(format!("metric {:?} was not recorded per {name}", metric.name));
        }
    }
    for dimension in &policy.segments {
        let known = recorded.segments.iter().find(|known| known.name == dimension.name);
        if let Some(known) = known.filter(|known| known.top < dimension.top) {
            reasons.push(format!("only the top {} of {} were recorded apart", known.top, dimension.name));
        }
    }
    reasons
}

/// Whether different kinds are judged from the same summary: quantiles of any level use one histogram.
fn same_summary(one: &MetricSpec, two: &MetricSpec) -> bool {
    use serin_spec::MetricKind::Quantile;
    matches!((&one.kind, &two.kind), (Quantile { .. }, Quantile { .. }))
}

/// Windows recomputed from `events`, by partition, in the order in which they closed.
#[derive(Default)]
pub(crate) struct Recomputed {
    windows: BTreeMap<i32, VecDeque<WindowClosed>>,
    /// Rollouts with all their events still on the log.
    pub(crate) whole: BTreeSet<RolloutId>,
}

/// Folds `events` again under a policy.
pub(crate) fn recompute(
    log: &dyn Log,
    config: &serin_aggregator::Config,
    policy: &Policy,
) -> anyhow::Result<Recomputed> {
    let mut found = Recomputed::default();
    let partitions = log.partitions(serin_topology::EVENTS)?;
    for partition in 0..partitions {
        let factory = serin_aggregator::AggregatorFactory::new(config.clone(), partitions);
        let mut fold = FoldDriver::new(move || factory.fold(partition))?;
        let mut count = 0;
        let windows = found.windows.entry(partition).or_default();
        let whole = &mut found.whole;
        each(log, serin_topology::EVENTS, partition, |record| {
            let (record, control) = with_policy(record, policy)?;
            if let Some(control) = control.filter(|control| control.frozen.is_none()) {
                whole.insert(control.rollout);
            }
            fold.apply(&record)?;
            count += 1;
            if count % COMMIT_EVERY == 0 {
                take_windows(&mut fold, windows)?;
            }
            Ok(())
        })?;
        take_windows(&mut fold, windows)?;
    }
    Ok(found)
}

fn take_windows(fold: &mut FoldDriver, into: &mut VecDeque<WindowClosed>) -> anyhow::Result<()> {
    for outgoing in fold.commit()?.into_iter().filter(|outgoing| outgoing.topic == serin_topology::WINDOWS) {
        let body = outgoing.value.unwrap_or_default();
        if let Ok(WindowRecord::WindowClosed(window)) = WindowRecord::decode(&outgoing.headers, &body) {
            into.push_back(window);
        }
    }
    Ok(())
}

/// The record, with the policy in it if it is a Control of the policy's model, and that Control.
fn with_policy(record: &Record, policy: &Policy) -> anyhow::Result<(Record, Option<Control>)> {
    let body = record.value.as_deref().unwrap_or_default();
    let Ok((name, version)) = envelope::record_type(&record.headers) else { return Ok((record.clone(), None)) };
    if name != <Control as codec::Record>::NAME {
        return Ok((record.clone(), None));
    }
    let control: Control = codec::decode(version, body)?;
    if control.model != policy.spec.model {
        return Ok((record.clone(), None));
    }
    let control = policy.control(control)?;
    Ok((replaced(record, &control)?, Some(control)))
}

/// The record with other content.
fn replaced<R: codec::Record>(record: &Record, content: &R) -> anyhow::Result<Record> {
    let (headers, body) = encoded(content)?;
    Ok(Record { headers, value: Some(body), ..record.clone() })
}

fn encoded<R: codec::Record>(content: &R) -> anyhow::Result<(Headers, Bytes)> {
    let envelope = Envelope { id: "replay", source: "/replay", subject: "", time: EventTime(0) };
    Ok((envelope::headers::<R>(&envelope), Bytes::from(codec::encode(content)?)))
}

impl Policy {
    /// The records that the analyzer gets instead of a record of `windows`. With `recomputed`, its windows replace the recorded
    /// ones, each before the `ClosedThrough` record that covers it.
    pub(crate) fn translate(
        &self,
        record: &Record,
        recomputed: Option<&mut Recomputed>,
    ) -> anyhow::Result<Vec<Record>> {
        let body = record.value.as_deref().unwrap_or_default();
        match WindowRecord::decode(&record.headers, body) {
            Ok(WindowRecord::Control(control)) if control.model == self.spec.model => {
                Ok(vec![replaced(record, &self.control(control)?)?])
            }
            Ok(WindowRecord::WindowClosed(window)) if window.model == self.spec.model => match recomputed {
                Some(_) => Ok(Vec::new()),
                None => self.window(window).map(|window| replaced(record, &window)).into_iter().collect(),
            },
            Ok(WindowRecord::ClosedThrough(closed)) => {
                let due = recomputed.map(|recomputed| recomputed.due(&closed, self.spec.grace.0)).unwrap_or_default();
                let mut records: Vec<Record> =
                    due.iter().map(|window| replaced(record, window)).collect::<Result<_, _>>()?;
                records.push(record.clone());
                Ok(records)
            }
            _ => Ok(vec![record.clone()]),
        }
    }
}

impl Recomputed {
    /// Takes the windows that a `ClosedThrough` record covers.
    fn due(&mut self, closed: &ClosedThrough, grace: Span) -> Vec<WindowClosed> {
        let Some(windows) = self.windows.get_mut(&closed.partition) else { return Vec::new() };
        let is_due = |window: &WindowClosed| window.end.plus(window.maturity).plus(grace) <= closed.through;
        let (due, later) = std::mem::take(windows).into_iter().partition(is_due);
        *windows = later;
        due.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../simulate/testing.yaml");

    fn spec(text: &str) -> RolloutSpec {
        serin_rollout::parse_yaml(text).unwrap().normalized()
    }

    #[test]
    fn margins_and_thresholds_need_no_events_and_new_measures_do() {
        let with = |from: &str, to: &str| needs_events(&spec(RECORDED), &spec(&RECORDED.replace(from, to)));
        assert_eq!(with("absolute: 0.01", "absolute: 0.002"), Vec::<String>::new());
        assert_eq!(with("level: 0.99", "level: 0.95"), Vec::<String>::new());
        assert_eq!(with("min: 10m", "min: 1m"), Vec::<String>::new());
        assert_eq!(with("model: shop", "model: shop\nsettle: 3"), Vec::<String>::new());
        let mut reasons = with("maturity: 5m", "maturity: 9m");
        reasons.extend(with("{output: score}", "{output: other}"));
        reasons.extend(with("name: score", "name: mood"));
        reasons.extend(with("segments: [origin]", "segments: [device]"));
        reasons.extend(with("top: 2", "top: 4"));
        reasons.extend(with("model: shop", "model: shop\nwindow: 1m"));
        insta::assert_snapshot!(reasons.join("\n"));
    }
}
