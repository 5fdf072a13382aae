//! A thread that keeps the tables in use on disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
};

use serin_schemas::{ids::Generation, records::RoutingTable};

use crate::{state::Shared, tables::disk};

/// A thread that keeps the tables on disk, so that a slow disk delays no table. Changes that come while it writes become one
/// write of the newest state.
pub(crate) struct Keeper {
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
        let thread =
            thread.inspect_err(|error| tracing::error!(%error, "no thread for the table file: it is not kept")).ok();
        Self { ask: Some(ask), thread }
    }

    /// Asks for the tables of now, or newer ones, to be written soon.
    pub(crate) fn keep(&self) {
        if let Some(ask) = &self.ask {
            // Full: a write that has not begun yet will see the newest tables.
            let _ = ask.try_send(());
        }
    }

    /// Waits until what was asked for is on disk.
    pub(crate) fn stop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Writes the tables that came from the log.
fn keep(shared: &Shared) {
    let tables = shared.tables.load();
    let known = tables.0.values().filter(|table| table.record.generation > Generation(0));
    let by_name: BTreeMap<_, _> = known.map(|table| (&table.record.model, &table.record)).collect();
    let records: Vec<&RoutingTable> = by_name.into_values().collect();
    if let Err(error) = disk::store(&shared.config().data_dir, &records) {
        tracing::warn!(%error, "the routing tables could not be kept on disk; a restart without the log would not know them");
    }
}
