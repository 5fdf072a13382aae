//! Reports that are computed on request from the log: profiles and contrasts. They decide nothing.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serin_insight::{
    contrast::{self, Calls, Captures, Search, Windows},
    examples,
    profile::{Asked, Profiler, Profiles},
};
use serin_schemas::{
    codec,
    ids::{ModelName, RolloutId},
    records::{Capture, Prediction, Verdict, WindowClosed},
};
use serin_spec::RolloutSpec;
use serin_stream::{
    log::{Log, LogError},
    record::Record,
};
use serin_topology::{CAPTURES, EVENTS, VERDICTS, WINDOWS};

use crate::{
    recorded::{Bound, Read, newest, partition_with},
    series::{Point, Series},
};

/// How much of each topic is read for one report.
const OF_WINDOWS: Bound = Bound { records: 100_000, time: Duration::from_secs(15) };
const OF_VERDICTS: Bound = Bound { records: 50_000, time: Duration::from_secs(10) };
const OF_EVENTS: Bound = Bound { records: 50_000, time: Duration::from_secs(10) };
const OF_CAPTURES: Bound = Bound { records: 5000, time: Duration::from_secs(5) };

/// The profiles of a rollout, and what was read for them.
#[derive(Debug, Serialize)]
pub(crate) struct Profiled {
    #[serde(flatten)]
    profiles: Profiles,
    read: Read,
}

impl Profiled {
    /// Leaves out all metrics except one.
    pub(crate) fn keep(&mut self, metric: &str) {
        self.profiles.profiles.iter_mut().for_each(|profile| profile.metrics.retain(|known| known.metric == metric));
    }
}

/// Profiles of a rollout. This blocks.
pub(crate) fn profile(
    log: &Arc<dyn Log>,
    spec: &RolloutSpec,
    rollout: &RolloutId,
    asked: Asked,
) -> Result<Profiled, LogError> {
    let mut profiler = Profiler::new(spec, rollout, asked);
    let read = windows(log, spec, |window| profiler.add(window))?;
    Ok(Profiled { profiles: profiler.finish(), read })
}

/// The verdicts on a rollout over time, as far as the topic has them, and what was read. This blocks.
pub(crate) fn series(log: &Arc<dyn Log>, model: &ModelName, rollout: &RolloutId) -> Result<(Series, Read), LogError> {
    let partition = partition_with(log.as_ref(), VERDICTS, model.as_str())?;
    let mut series = Series::default();
    let read = newest(log, VERDICTS, [partition], OF_VERDICTS, |record| {
        if record.key == model.as_str().as_bytes()
            && let Some(verdict) = decoded::<Verdict>(record)
            && verdict.rollout == *rollout
        {
            series.push(Point::of(&verdict, record.timestamp_ms));
        }
    })?;
    Ok((series, read))
}

/// The contrasts of a rollout, and what was read for them.
#[derive(Debug, Serialize)]
pub(crate) struct Contrasts {
    rollout: RolloutId,
    /// Chance that any of the contrasts is a lead although the arms differ in the same way everywhere.
    level: f64,
    #[serde(flatten)]
    found: Search,
    read: Vec<Read>,
    /// What was not searched, and what to set so that it is.
    notes: Vec<String>,
}

/// Searches the contrasts of a rollout. This blocks.
pub(crate) fn contrasts(
    log: &Arc<dyn Log>,
    spec: &RolloutSpec,
    rollout: &RolloutId,
    verdict: Option<&Verdict>,
) -> Result<Contrasts, LogError> {
    // Units that send many answers make a difference less certain, in each part of the calls as in all of them.
    let design_effect = |metric: &str| {
        let metrics = verdict.iter().flat_map(|verdict| &verdict.metrics);
        let of_metric = metrics.filter(|known| known.metric == metric);
        of_metric.filter_map(|known| known.design_effect).fold(1.0, f64::max)
    };
    let (mut read, mut notes) = (Vec::new(), Vec::new());
    let mut declared = Windows::new(spec, rollout);
    read.push(windows(log, spec, |window| declared.add(window))?);
    let mut candidates = declared.candidates(design_effect);

    let mut calls = Calls::new(spec, rollout, &declared.thresholds());
    let partitions = log.partitions(EVENTS)?;
    let reading = newest(log, EVENTS, 0..partitions, OF_EVENTS, |record| {
        if let Some(prediction) = decoded::<Prediction>(record) {
            calls.add(&prediction);
        }
    });
    read.push(reading.unwrap_or_else(|error| Read::failed(EVENTS, &error)));
    candidates.extend(calls.candidates(&declared.dimensions(), design_effect));
    if !calls.not_searched().is_empty() {
        notes.push(format!(
            "pairs of dimensions were not searched for {}: single events do not contain its value, or it has a `where`",
            calls.not_searched().join(", ")
        ));
    }

    let mut captures = Captures::default();
    if let Some(why) = examples::why_none(spec) {
        notes.push(format!("fields of requests that the file does not declare were not searched: {why}"));
    } else {
        let partition = partition_with(log.as_ref(), CAPTURES, spec.model.as_str())?;
        let reading = newest(log, CAPTURES, [partition], OF_CAPTURES, |record| {
            let capture = decoded::<Capture>(record);
            if let Some(capture) = capture.filter(|capture| capture.rollout.as_ref() == Some(rollout)) {
                captures.add(&capture);
            }
        });
        read.push(reading.unwrap_or_else(|error| Read::failed(CAPTURES, &error)));
        notes.extend(about_captures(&captures));
        candidates.extend(captures.candidates());
    }
    if calls.left_out() || captures.left_out() {
        notes.push(
            "dimensions with many values were searched in part: the first 20 values of the first 24 dimensions"
                .to_owned(),
        );
    }
    let found = contrast::search(candidates);
    Ok(Contrasts { rollout: rollout.clone(), level: contrast::LEVEL, found, read, notes })
}

/// Why captured pairs show less than they could, and what to set.
fn about_captures(captures: &Captures) -> Vec<String> {
    let mut notes = Vec::new();
    if captures.not_read() > 0 {
        notes.push(format!(
            "{} captured requests were not searched: they are not JSON, or `capture.maxBytes` cut them off",
            captures.not_read()
        ));
    }
    if captures.read() == 0 {
        notes.push(
            "fields of requests that the file does not declare were not searched: no pair is captured yet".to_owned(),
        );
    } else if !captures.can_compare() {
        notes.push(
            "fields of requests that the file does not declare were not searched: captured pairs all differ or all agree; set \
             `capture.share` above 0 and keep `capture.disagreements`, so that there are both"
                .to_owned(),
        );
    }
    notes
}

/// Calls `each` with the windows of the spec's model.
fn windows(log: &Arc<dyn Log>, spec: &RolloutSpec, mut each: impl FnMut(&WindowClosed)) -> Result<Read, LogError> {
    let partition = partition_with(log.as_ref(), WINDOWS, spec.model.as_str())?;
    newest(log, WINDOWS, [partition], OF_WINDOWS, |record| {
        // The key of a window is its model. Records of other types are skipped too.
        if record.key == spec.model.as_str().as_bytes()
            && let Some(window) = decoded::<WindowClosed>(record)
        {
            each(&window);
        }
    })
}

fn decoded<R: codec::Record>(record: &Record) -> Option<R> {
    codec::read::<R>(&record.headers, record.value.as_deref()?).ok()
}
