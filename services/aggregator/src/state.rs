//! Stores the fold's state in rows: reads it once when a task opens, and writes the changes before each commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Span},
    records::Control,
};
use serin_spec::Rules;
use serin_stream::fold::{FoldError, Rows};

use crate::{
    fold::AggregatorFold,
    keys::{Group, WindowKey},
    rollout::ActiveRollout,
    rows::{self, Key, Parts, Table},
    writers::LogTime,
};

/// The state row.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    clock: Span,
    watermark: Option<EventTime>,
    promised: Option<EventTime>,
    keep: u64,
    next_rollout: u32,
    // Formats 2 and 3 end here.
    log: LogTime,
    held: Span,
    relayed: Option<EventTime>,
    promised_relayed: Option<EventTime>,
}

/// The bytes that state rows of formats 2 and 3 lack: no log time has passed yet.
const NO_LOG_TIME: &[u8] = &[0; 5];
/// The bytes that their writer rows lack: the writer has not reported its send time.
const NO_TIMING: &[u8] = &[0; 6];

fn unreadable(what: &str, error: impl std::fmt::Display) -> FoldError {
    FoldError::State(format!("the aggregator's {what} is unreadable: {error}"))
}

impl AggregatorFold {
    /// Reads all rows.
    pub(crate) fn load(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        if let Some(row) = rows.get(&Key::new(Table::State).done())? {
            if !rows::is_known(&row) {
                // Rows are a cache: the rollouts start over with their next Control records, which the controller
                // repeats.
                tracing::warn!(
                    format = row[0],
                    "the state was written in a format that this build does not read; starting from empty state"
                );
                return rows::delete_all(rows, Key::all());
            }
            let state: State = rows::decode_grown(&row, NO_LOG_TIME)?;
            self.writers.clock = state.clock;
            self.writers.watermark = state.watermark;
            self.writers.log = state.log;
            self.writers.held = state.held;
            self.promised_relayed = state.promised_relayed;
            // Older rows had one watermark for all.
            self.writers.relayed = state.relayed.or(state.watermark.max(state.promised));
            self.promised = state.promised;
            self.joins.keep = state.keep;
            self.next_rollout = state.next_rollout;
            self.stored_state = Some(row);
        }
        for (key, value) in rows::scan(rows, Key::new(Table::Writer))? {
            self.writers.restore(Parts::of(&key).text()?.to_owned(), rows::decode_grown(&value, NO_TIMING)?);
        }
        self.writers.note_ahead();
        for (key, value) in rows::scan(rows, Key::new(Table::Model))? {
            self.models.insert(Parts::of(&key).text()?.to_owned(), rows::decode(&value)?);
        }
        self.load_rollouts(rows)?;
        self.note_rollouts();
        self.load_windows(rows)?;
        self.load_joins(rows)
    }

    fn load_rollouts(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        start_over(rows)?;
        for (key, value) in rows::scan(rows, Key::new(Table::Control))? {
            let number = Parts::of(&key).u32()?;
            let (control, _) = rows::decode_control(&value)?;
            let (spec, frozen) = Self::parse(&control).map_err(|poison| unreadable("rollout row", poison.message))?;
            let values = self.config.max_warmup_values;
            let rollout =
                self.rollouts.entry(number).or_insert_with(|| ActiveRollout::new(number, &control, &spec, values));
            rollout.begin(&control, frozen.as_ref());
        }
        for (key, value) in rows::scan(rows, Key::new(Table::Values))? {
            let stored: Vec<Vec<String>> = rows::decode(&value)?;
            if let Some(rollout) = self.rollouts.get_mut(&Parts::of(&key).u32()?) {
                rollout.views.warming.dictionary.restore(&stored);
            }
        }
        Ok(())
    }

    fn load_windows(&mut self, rows: &dyn Rows) -> Result<(), FoldError> {
        for (key, value) in rows::scan(rows, Key::new(Table::Counts))? {
            let mut parts = Parts::of(&key);
            let (number, (window, arm)) = (parts.u32()?, parts.window()?);
            let (counts, population) = rows::decode_counts(&value)?;
            let Some(rollout) = self.rollouts.get_mut(&number) else { continue };
            let ActiveRollout { views, windows, .. } = rollout;
            let view = views.of(window.generation);
            let restored = &mut windows.entry(window).or_default().arms[arm];
            restored.counts = counts;
            restored.restore_population(view, population).map_err(|error| unreadable("counts row", error))?;
            restored.stored = true;
        }
        for (key, value) in rows::scan(rows, Key::new(Table::Cells))? {
            let mut parts = Parts::of(&key);
            let (number, (window, arm), metric) = (parts.u32()?, parts.window()?, parts.u32()?);
            let stored: Vec<(u32, Vec<u8>)> = rows::decode(&value)?;
            let Some(rollout) = self.rollouts.get_mut(&number) else { continue };
            let ActiveRollout { views, windows, .. } = rollout;
            let layout = &views.of(window.generation).layout;
            let restored = &mut windows.entry(window).or_default().arms[arm];
            if let Some(part) = parts.last() {
                let most = restored.more_rows.entry(metric as usize).or_default();
                *most = part.max(*most);
            }
            restored.restore(layout, metric as usize, stored).map_err(|error| unreadable("window row", error))?;
        }
        Ok(())
    }

    fn load_joins(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        let frontier = self.frontier();
        for group in self.joins.restore(rows, &mut self.tally)? {
            let Group { rollout, end, generation } = group;
            let Some(rollout) = self.rollouts.get_mut(&rollout) else {
                self.joins.close(group);
                continue;
            };
            let closed_to = frontier.closed_to(&rollout.compiled);
            for (stream, maturity) in rollout.compiled.streams.iter().enumerate() {
                if closed_to.is_none_or(|to| end.plus(*maturity) > to) {
                    rollout.windows.entry(WindowKey { stream, end, generation }).or_default();
                }
            }
        }
        Ok(())
    }

    /// Writes all changes into rows.
    pub(crate) fn store(&mut self, rows: &mut dyn Rows) -> Result<(), FoldError> {
        let (changed, removed) = self.writers.take_changes();
        for name in removed {
            rows.delete(&Key::new(Table::Writer).text(&name));
        }
        for (name, writer) in changed {
            rows.put(&Key::new(Table::Writer).text(name), rows::encode(writer)?);
        }
        for (name, model) in self.models.iter_mut().filter(|(_, model)| model.dirty) {
            model.dirty = false;
            rows.put(&Key::new(Table::Model).text(name), rows::encode(model)?);
        }
        for rollout in self.rollouts.values_mut() {
            rollout.store(rows)?;
        }
        self.joins.store(rows)?;
        let state = rows::encode(&State {
            clock: self.writers.clock,
            watermark: self.writers.watermark,
            promised: self.promised,
            keep: self.joins.keep,
            next_rollout: self.next_rollout,
            log: self.writers.log,
            held: self.writers.held,
            relayed: self.writers.relayed,
            promised_relayed: self.promised_relayed,
        })?;
        if self.stored_state.as_ref() != Some(&state) {
            rows.put(&Key::new(Table::State).done(), state.clone());
            self.stored_state = Some(state);
        }
        Ok(())
    }
}

/// Restarts each rollout that was folded under different rules than this build uses for it. Only its newest Control
/// record is kept.
fn start_over(rows: &mut dyn Rows) -> Result<(), FoldError> {
    let mut newest: BTreeMap<u32, (Vec<u8>, Control, Rules)> = BTreeMap::new();
    for (key, value) in rows::scan(rows, Key::new(Table::Control))? {
        let (control, folded) = rows::decode_control(&value)?;
        // Keys end with the generation, so the last one is the newest.
        newest.insert(Parts::of(&key).u32()?, (key.to_vec(), control, folded));
    }
    for (number, (key, control, folded)) in newest {
        let now = Rules::numbered(control.rules).folded();
        if folded == now {
            continue;
        }
        tracing::warn!(
            rollout = %control.rollout,
            before = %folded,
            rules = %now,
            "the rules of the rollout changed; folding it again from the start"
        );
        for table in [Table::Control, Table::Values, Table::Counts, Table::Cells, Table::Waiting] {
            rows::delete_all(rows, rows::of_rollout(table, number))?;
        }
        rows.put(&key, rows::encode(&(control, now))?);
    }
    Ok(())
}
