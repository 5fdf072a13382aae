//! Closes windows: finds those that are due, turns them into records of `windows`, and removes their rows.

use bytes::Bytes;
use serin_schemas::{
    codec::{self, EncodeError, Record},
    envelope::{self, Envelope},
    ids::{EventTime, Generation},
    records::{ClosedThrough, UnitCounts, WindowClosed},
};
use serin_stream::{
    fold::{FoldError, Rows},
    record::{Outgoing, Target},
};
use serin_topology::WINDOWS;

use crate::{
    counts::Counts,
    keys::{ARMS, Group, WindowKey},
    rollout::{ActiveRollout, Work},
    rows::{self, Table},
    window::Window,
};

impl ActiveRollout {
    /// Removes and returns the windows that are due, each stream in order of time.
    pub(crate) fn close_due(&mut self, partition: i32, work: &mut Work<'_>) -> Vec<WindowClosed> {
        let Some(to) = work.frontier.closed_to(&self.compiled) else { return Vec::new() };
        let mut due: Vec<WindowKey> = Vec::new();
        for (stream, maturity) in self.compiled.streams.iter().enumerate() {
            let first = WindowKey { stream, end: EventTime(i64::MIN), generation: Generation(i64::MIN) };
            let keys = self.windows.range(first..).map(|(key, _)| *key);
            due.extend(keys.take_while(|key| key.stream == stream && key.end.plus(*maturity) <= to));
        }
        work.tally.windows_closed += due.len() as u64;
        due.into_iter().filter_map(|key| self.close(&key, partition, work)).collect()
    }

    /// Ends the rollout. Open windows are written as they are; windows that still wait for labels are dropped.
    /// Returns the last records of the rollout.
    pub(crate) fn end(&mut self, partition: i32, work: &mut Work<'_>) -> Vec<WindowClosed> {
        let (open, labels): (Vec<WindowKey>, Vec<WindowKey>) = self.windows.keys().partition(|key| key.stream == 0);
        work.tally.windows_ended += open.len() as u64;
        work.tally.windows_dropped += labels.len() as u64;
        let closed = open.into_iter().filter_map(|key| self.close(&key, partition, work)).collect();
        work.joins.end(self.number);
        closed
    }

    /// Removes and returns one window. `None`: the window was empty.
    fn close(&mut self, key: &WindowKey, partition: i32, work: &mut Work<'_>) -> Option<WindowClosed> {
        let mut window = self.windows.remove(key)?;
        if key.stream > 0 {
            self.mature(key, &mut window, work);
        }
        if key.stream + 1 == self.compiled.streams.len() {
            work.joins.close(Group { rollout: self.number, end: key.end, generation: key.generation });
        }
        let view = self.views.of(key.generation);
        let (mut cells, mut arms, mut population, mut units) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (arm, counted) in ARMS.into_iter().zip(&window.arms) {
            if counted.counts != Counts::default() {
                arms.push(counted.counts.of(arm));
            }
            counted.cells(arm, view, &self.compiled, key.stream, &mut cells);
            counted.populations(arm, view, &self.compiled, &mut population);
            let of_arm =
                |(&bucket, counts): (&u8, &Counts)| UnitCounts { bucket: bucket.into(), counts: counts.of(arm) };
            units.extend(counted.units.iter().map(of_arm));
        }
        self.forget(key, &window);
        (!arms.is_empty()).then(|| WindowClosed {
            model: self.model.clone(),
            rollout: self.id.clone(),
            generation: key.generation,
            partition,
            end: key.end,
            length: self.compiled.window,
            maturity: self.compiled.streams[key.stream],
            cells,
            arms,
            population,
            rules: self.compiled.rules.number(),
            units,
            #[cfg(feature = "next-schema")]
            closed_by: Some("aggregator".to_owned()),
        })
    }

    /// Marks the rows of a closed window for removal.
    fn forget(&mut self, key: &WindowKey, window: &Window) {
        for (place, arm) in window.arms.iter().enumerate().filter(|(_, arm)| arm.stored) {
            self.removed.push(rows::counts(self.number, key, place));
            if !arm.units.is_empty() {
                self.removed.push(rows::units(self.number, key, place));
            }
            let layout = &self.views.of(key.generation).layout;
            let metrics = 0..self.compiled.metrics.len();
            let stored = metrics.filter(|&metric| arm.has_cells(layout, metric));
            let keys: Vec<_> = stored.map(|metric| rows::cells(self.number, key, place, metric)).collect();
            self.removed.extend(keys);
            for (&metric, &parts) in &arm.more_rows {
                self.removed.extend((1..=parts).map(|part| rows::more_cells(self.number, key, place, metric, part)));
            }
        }
    }

    /// Updates the rows: deletes those of closed windows, and writes new segment values and the windows that changed since the last call.
    pub(crate) fn store(&mut self, to: &mut dyn Rows) -> Result<(), FoldError> {
        for key in self.removed.drain(..) {
            to.delete(&key);
        }
        if std::mem::take(&mut self.views.warming.dictionary.dirty) {
            let key = rows::of_rollout(Table::Values, self.number).done();
            to.put(&key, rows::encode(&self.views.warming.dictionary.names())?);
        }
        let (number, metrics) = (self.number, self.compiled.metrics.len());
        for (key, window) in &mut self.windows {
            let layout = &self.views.of(key.generation).layout;
            for (place, arm) in window.arms.iter_mut().enumerate().filter(|(_, arm)| arm.dirty) {
                arm.dirty = false;
                arm.stored = true;
                to.put(&rows::counts(number, key, place), rows::encode(&(arm.counts, &arm.population))?);
                if !arm.units.is_empty() {
                    to.put(&rows::units(number, key, place), rows::encode(&arm.units)?);
                }
                for metric in 0..metrics {
                    if !arm.has_cells(layout, metric) {
                        continue;
                    }
                    let cells = arm.encoded(layout, metric);
                    let mut parts = in_rows(&cells).into_iter();
                    let first = parts.next().unwrap_or_default();
                    to.put(&rows::cells(number, key, place, metric), rows::encode(&first)?);
                    for (part, cells) in (1..=u8::MAX).zip(parts) {
                        to.put(&rows::more_cells(number, key, place, metric, part), rows::encode(&cells)?);
                        arm.more_rows.insert(metric, part);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Maximum bytes of cells in a row. A changelog record may have 8 MiB.
const ROW_BYTES: usize = 256 << 10;

/// Splits cells so that each part fits into a row. Cells only grow, so a metric never needs fewer rows than before.
fn in_rows(cells: &[(u32, Vec<u8>)]) -> Vec<&[(u32, Vec<u8>)]> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (place, (_, cell)) in cells.iter().enumerate() {
        bytes += cell.len();
        if bytes > ROW_BYTES && place > first {
            parts.push(&cells[first..place]);
            (first, bytes) = (place, cell.len());
        }
    }
    parts.push(&cells[first..]);
    parts
}

/// Encodes a window as a record of `windows`. A window that is too large for the log keeps only its cells for all
/// traffic: a spec with that many segment values is judged without them rather than not at all. If the window is
/// still too large, it keeps only its counts.
pub(crate) fn window_closed(mut window: WindowClosed) -> Result<Outgoing, FoldError> {
    let body = match codec::encode(&window) {
        Err(EncodeError::TooLarge { bytes, .. }) => {
            tracing::error!(rollout = %window.rollout, bytes, "a window is too large for the log; dropping its segments");
            window.cells.retain(|cell| cell.segment.is_all());
            window.population.retain(|own| own.segment.dimension.is_empty());
            codec::encode(&window)
        }
        other => other,
    };
    let body = match body {
        Err(EncodeError::TooLarge { bytes, .. }) => {
            tracing::error!(rollout = %window.rollout, bytes, "a window is too large for the log; keeping only its counts");
            window.cells.clear();
            codec::encode(&window)
        }
        other => other,
    };
    let WindowClosed { rollout, generation, partition, end, maturity, .. } = &window;
    let id = format!("{rollout}/{generation}/{maturity}/{end}/{partition}");
    outgoing::<WindowClosed>(body, &id, window.partition, window.model.as_str(), window.end, Target::ByKey)
}

/// Encodes a partition's promise as a record of `windows`.
pub(crate) fn closed_through(promise: &ClosedThrough) -> Result<Outgoing, FoldError> {
    let id = format!("{}/{}", promise.partition, promise.through);
    let body = codec::encode(promise);
    outgoing::<ClosedThrough>(body, &id, promise.partition, "", promise.through, Target::EveryPartition)
}

fn outgoing<R: Record>(
    body: Result<Vec<u8>, EncodeError>,
    id: &str,
    partition: i32,
    model: &str,
    time: EventTime,
    target: Target,
) -> Result<Outgoing, FoldError> {
    let source = format!("/aggregator/{partition}");
    let headers = envelope::headers::<R>(&Envelope { id, source: &source, subject: model, time });
    let value =
        body.map_err(|error| FoldError::Unwritable(format!("a record for {WINDOWS} cannot be written: {error}")))?;
    Ok(Outgoing {
        topic: WINDOWS,
        target,
        key: Bytes::copy_from_slice(model.as_bytes()),
        value: Some(value.into()),
        headers,
        timestamp_ms: None,
    })
}
