//! A thread that stores the current tables on disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
};

use serin_schemas::{ids::Generation, records::RoutingTable};

use crate::{state::Shared, tables::disk};

/// A thread that stores the tables on disk, so that a slow disk does not delay the tables. Changes during a write are combined into one
/// write of the newest state.
pub(super) struct Keeper {
    ask: Option<mpsc::SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(shared: Arc<Shared>) -> Self {
        let (ask, asked) = mpsc::sync_channel(1);
        let work = move || {
            while asked.recv().is_ok() {
                keep(&shared);
            }
        };
        let thread = thread::Builder::new().name("router-disk".to_owned()).spawn(work);
        let thread = thread
            .inspect_err(|error| tracing::error!(%error, "no thread could be started to store the tables on disk"))
            .ok();
        Self { ask: Some(ask), thread }
    }

    /// Requests that the current tables, or newer ones, be written soon.
    pub(crate) fn keep(&self) {
        if let Some(ask) = &self.ask {
            // If the channel is full, a pending write will store the newest tables.
            let _ = ask.try_send(());
        }
    }

    /// Waits until pending writes are done.
    pub(super) fn stop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // The panic hook has logged a panic of this thread.
            let _ = thread.join();
        }
    }
}

/// Writes the tables that were read from the log.
fn keep(shared: &Shared) {
    let tables = shared.tables.load();
    let known = tables.0.values().filter(|table| table.record.generation > Generation(0));
    let by_name: BTreeMap<_, _> = known.map(|table| (&table.record.model, &table.record)).collect();
    let records: Vec<&RoutingTable> = by_name.into_values().collect();
    if let Err(error) = disk::store(&shared.config().data_dir, &records) {
        tracing::warn!(%error, "the routing tables could not be stored on disk; they would be lost at a restart without the log");
    }
}
