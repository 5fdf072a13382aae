//! Observable gauges.

use std::sync::Arc;

use opentelemetry::KeyValue;

use crate::{
    metrics::{MEMORY, SHED, model_label},
    state::Shared,
    tables::route::version_label,
};

/// Observes which versions on trial are not called, from the tables in use.
pub(crate) fn observe_shed(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    SHED.observe(move |observer| {
        let Some(shared) = shared.upgrade() else { return };
        for (model, table) in &shared.tables.load().0 {
            for route in table.canary.iter().chain(table.shadows.iter().map(|shadow| &shadow.route)) {
                let labels = [model_label(model), version_label(&route.version)];
                observer.observe(u64::from(route.servers.shed().is_some()), &labels);
            }
        }
    });
}

/// Observes the memory that callers fill.
pub(crate) fn observe_memory(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    MEMORY.observe(move |observer| {
        let Some(shared) = shared.upgrade() else { return };
        let (events, held, responses) = (shared.events.waiting(), shared.held.used(), shared.responses.bytes());
        for (map, bytes) in [("events", events), ("held", held), ("responses", responses)] {
            observer.observe(bytes as u64, &[KeyValue::new("map", map)]);
        }
    });
}
