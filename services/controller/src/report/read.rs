//! Reads what a report contains from the log. This blocks.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serin_rollout::RolloutState;
use serin_schemas::{
    codec,
    ids::{ModelName, RolloutId},
    records::{Command, MetricVerdict, RolloutEvent, Verdict},
};
use serin_stream::log::{Log, LogError};
use serin_topology::{AUDIT, COMMANDS, VERDICTS};

use super::{
    Found,
    chain::{Chain, digest, hex},
    is_end,
};
use crate::{
    recorded::{Bound, Read, newest, partition_with},
    series::{Point, Series},
};

/// How much of each topic is read for one report.
const OF_AUDIT: Bound = Bound { records: 200_000, time: Duration::from_secs(20) };
const OF_COMMANDS: Bound = Bound { records: 50_000, time: Duration::from_secs(10) };
const OF_VERDICTS: Bound = Bound { records: 50_000, time: Duration::from_secs(15) };
/// Most events of a report.
const EVENTS_MAX: usize = 10_000;

/// An audit event with its link of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Linked {
    /// Number of the event, from 1.
    pub number: usize,
    /// SHA-256 of the record on the log, in hexadecimal digits.
    pub record: String,
    /// The link of the chain, in hexadecimal digits.
    pub link: String,
    /// The event, without the state of the rollout after it.
    #[serde(flatten)]
    pub event: RolloutEvent,
}

/// The audit events of a rollout, the state in the newest of them, and why some may be missing.
pub(super) struct Audit {
    pub(super) events: Vec<Linked>,
    pub(super) head: String,
    pub(super) state: Option<RolloutState>,
    pub(super) note: Option<String>,
}

/// The audit events of a rollout with their links, oldest first, as far as the topic has them. This blocks.
///
/// # Errors
/// The log is unavailable, or the events could not be read completely.
pub fn audit(log: &Arc<dyn Log>, model: &ModelName, rollout: &RolloutId) -> Result<Vec<Linked>, LogError> {
    let Audit { events, note, .. } = linked(log, model, rollout)?;
    match note {
        None => Ok(events),
        Some(cause) => Err(LogError::Failed { doing: format!("reading the events of {rollout}"), cause }),
    }
}

fn linked(log: &Arc<dyn Log>, model: &ModelName, rollout: &RolloutId) -> Result<Audit, LogError> {
    let partition = partition_with(log.as_ref(), AUDIT, model.as_str())?;
    let (mut events, mut chain, mut state) = (Vec::new(), Chain::of(rollout), None);
    let mut too_many = false;
    let read = newest(log, AUDIT, [partition], OF_AUDIT, |record| {
        if record.key != model.as_str().as_bytes() {
            return;
        }
        let Some(body) = record.value.as_deref() else { return };
        // A record that cannot be read is not an event of this rollout.
        let Ok(mut event) = codec::read::<RolloutEvent>(&record.headers, body) else { return };
        if event.rollout.as_ref() != Some(rollout) {
            return;
        }
        too_many |= events.len() >= EVENTS_MAX;
        if too_many {
            return;
        }
        let bytes = digest(body);
        chain.add(bytes);
        state = event.state.take().and_then(|text| serde_json::from_str(&text).ok()).or(state.take());
        events.push(Linked { number: chain.events(), record: hex(&bytes), link: chain.head(), event });
    })?;
    let note = if too_many { Some(format!("only the first {EVENTS_MAX} events are read")) } else { read.note };
    Ok(Audit { events, head: chain.head(), state, note })
}

/// Everything about a rollout that its report contains. `known` is its state if the log no longer has one.
pub(crate) fn read(log: &Arc<dyn Log>, known: RolloutState) -> Result<Found, LogError> {
    let (model, rollout) = (known.spec.model.clone(), known.id.clone());
    let Audit { events, head, state, note } = linked(log, &model, &rollout)?;
    let state = state.unwrap_or(known);
    let partly = |note: String| format!("{note}; the chain is over the events that were read only");
    let mut notes: Vec<String> = note.map(partly).into_iter().collect();
    if events.first().is_some_and(|first| first.event.kind != serin_schemas::records::EventKind::Started) {
        notes.push("the first events are no longer on the log, so the chain starts later".to_owned());
    }

    let mut commands = Vec::new();
    let of_model = |key: &[u8]| key == model.as_str().as_bytes();
    // A command about a pattern of models has the pattern as its key, and is in every partition.
    let partitions = 0..log.partitions(COMMANDS)?;
    let is_cause = |id: &str| events.iter().any(|linked| linked.event.cause.as_deref() == Some(id));
    let reading = newest(log, COMMANDS, partitions, OF_COMMANDS, |record| {
        if let Some(command) =
            record.value.as_deref().and_then(|body| codec::read::<Command>(&record.headers, body).ok())
            && is_cause(&command.id)
        {
            commands.push(Command { spec: None, ..command });
        }
    });
    notes.extend(reading.unwrap_or_else(|error| Read::failed(COMMANDS, &error)).note);

    let cause = events.iter().rev().find(|linked| is_end(&linked.event)).and_then(|linked| linked.event.cause.clone());
    let reasons = state.ending.as_ref().map(|ending| ending.reasons.as_slice()).unwrap_or_default();
    let wanted = |metric: &MetricVerdict| {
        let decides = |reason: &serin_schemas::records::Reason| {
            reason.metric == metric.metric && reason.segment == metric.segment
        };
        metric.segment.is_all() || reasons.iter().any(decides)
    };
    let (mut series, mut verdict, mut decided) = (Series::default(), None, false);
    let partition = partition_with(log.as_ref(), VERDICTS, model.as_str())?;
    let reading = newest(log, VERDICTS, [partition], OF_VERDICTS, |record| {
        if !of_model(&record.key) {
            return;
        }
        let found = record.value.as_deref().and_then(|body| codec::read::<Verdict>(&record.headers, body).ok());
        if let Some(found) = found.filter(|found| found.rollout == rollout) {
            series.push(Point::with(&found, record.timestamp_ms, wanted));
            if !decided {
                decided = cause.as_ref() == Some(&found.id);
                verdict = Some(found);
            }
        }
    });
    notes.extend(reading.unwrap_or_else(|error| Read::failed(VERDICTS, &error)).note);
    Ok(Found { state, events, head, commands, series, verdict, notes })
}
