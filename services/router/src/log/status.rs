//! Status reports on `router-status`: the tables in use, and the versions that are not called for a while.

use std::{ops::Range, sync::Arc};

use serin_schemas::{
    ids::Generation,
    records::{self, RouterStatus, TableApplied},
};
use serin_spec::address::without_credentials;
use serin_stream::{log_limit::LogLimit, partition_of};

use crate::{
    config::Config,
    state::Shared,
    tables::table::{Lease, Table, Tables},
    upstream::servers::Availability,
};

static LOST: LogLimit = LogLimit::new();

/// Reports to some of the `of` partitions of `router-status`.
pub(super) fn report(shared: &Shared, partitions: Range<i32>, of: i32, leaving: bool) {
    let tables = shared.tables.load();
    for partition in partitions {
        let status = RouterStatus {
            router: shared.events.name().to_owned(),
            incarnation: shared.events.incarnation(),
            at: shared.clock.now().unwrap_or_default(),
            applied: applied(&tables, partition, of),
            shed: shed(&tables, partition, of),
            undecided: undecided(&tables, partition, of),
            refused: refused(shared, partition, of),
            configured: Some(configured(&shared.config(), partition, of)),
            leaving,
            seen_outputs: seen_outputs(&tables, partition, of),
            seen_labels: shared.labels.all(),
        };
        if let Err(error) = shared.events.status(partition, &status)
            && let Some(count) = LOST.happened(1)
        {
            tracing::warn!(%error, partition, count, "status reports could not be written");
        }
    }
}

/// Reports immediately that a version is no longer called, or is called again: in the log of this process and on `router-status`.
pub(crate) fn availability_changed(shared: &Shared, model: &str, availability: Availability) {
    let Some(table) = shared.table(model) else { return };
    for route in table.canary.iter().chain(table.shadows.iter().map(|shadow| &shadow.route)) {
        if let Some(shed) = route.servers.shed() {
            tracing::warn!(%model, version = %route.version, cause = %shed.cause, "a version is not called for a while");
        }
    }
    if availability == Availability::Restored {
        tracing::info!(%model, "all versions of the model are called again");
    }
    let of = shared.status_partitions();
    if of > 0 {
        let partition = partition_of(model.as_bytes(), of);
        report(shared, partition..partition + 1, of, false);
    }
}

fn is_here(table: &Table, partition: i32, of: i32) -> bool {
    belongs(table.record.model.as_str(), partition, of)
}

fn belongs(model: &str, partition: i32, of: i32) -> bool {
    partition_of(model.as_bytes(), of) == partition
}

/// The unusable newest tables of the models of one of `of` partitions.
fn refused(shared: &Shared, partition: i32, of: i32) -> Vec<records::TableRefused> {
    let here = shared.refusals().into_iter().filter(|(model, _)| belongs(model, partition, of));
    here.map(|(model, refused)| records::TableRefused {
        model: model.as_str().into(),
        generation: refused.generation,
        reason: refused.reason,
    })
    .collect()
}

/// The configured versions of the models of one of `of` partitions, as a table without addresses gets them.
fn configured(config: &Config, partition: i32, of: i32) -> Vec<records::Configured> {
    let here = config.models.iter().filter(|(model, _)| belongs(model, partition, of));
    let versions = here.flat_map(|(model, known)| {
        known.versions.iter().map(move |(version, servers)| (model, known, version, servers))
    });
    versions
        .map(|(model, known, version, servers)| records::Configured {
            model: model.as_str().into(),
            version: version.as_str().into(),
            stable: known.stable.as_str() == version,
            url: without_credentials(servers.url()),
            grpc_url: servers.grpc_url().map(without_credentials),
            path_version: servers
                .path_version()
                .map(str::to_owned)
                .or_else(|| known.versioned_paths.then(|| version.clone())),
        })
        .collect()
}

/// The tables in use for the models of one of `of` partitions.
fn applied(tables: &Tables, partition: i32, of: i32) -> Vec<TableApplied> {
    let here = |table: &&Arc<Table>| {
        table.record.generation > Generation(0) && table.lease != Lease::Unconfirmed && is_here(table, partition, of)
    };
    let mut applied: Vec<TableApplied> = tables
        .0
        .values()
        .filter(here)
        .map(|table| TableApplied {
            model: table.record.model.clone(),
            generation: table.record.generation,
            lease_seq: table.record.lease_seq,
            apply_us: table.apply_us,
        })
        .collect();
    applied.sort_by(|a, b| a.model.cmp(&b.model));
    applied
}

/// Calls that could not be split as their rollouts require.
fn undecided(tables: &Tables, partition: i32, of: i32) -> Vec<records::Undecided> {
    let here = tables.0.values().filter(|table| is_here(table, partition, of));
    let undecided = here.flat_map(|table| {
        let all = table.undecided.calls() as i64;
        table.undecided.reasons().map(move |(needed, reason, calls)| records::Undecided {
            model: table.record.model.clone(),
            needed: needed.to_owned(),
            reason: reason.to_owned(),
            calls: calls as i64,
            of: all,
        })
    });
    let mut undecided: Vec<records::Undecided> = undecided.collect();
    undecided.sort_by(|a, b| (&a.model, &a.needed, &a.reason).cmp(&(&b.model, &b.needed, &b.reason)));
    undecided
}

/// Outputs found in answers in which an output rule found nothing.
fn seen_outputs(tables: &Tables, partition: i32, of: i32) -> Vec<records::SeenOutputs> {
    let here = tables.0.values().filter(|table| is_here(table, partition, of));
    let seen = here.map(|table| records::SeenOutputs { model: table.record.model.clone(), names: table.names.all() });
    let mut seen: Vec<_> = seen.filter(|seen| !seen.names.is_empty()).collect();
    seen.sort_by(|a, b| a.model.cmp(&b.model));
    seen
}

/// The canaries that are not called for a while.
fn shed(tables: &Tables, partition: i32, of: i32) -> Vec<records::Shed> {
    let here = tables.0.values().filter(|table| is_here(table, partition, of));
    let shed = here.flat_map(|table| {
        let on_trial = table.shadows.iter().filter(|shadow| shadow.on_trial).map(|shadow| &shadow.route);
        table.canary.iter().chain(on_trial).filter_map(move |route| {
            let shed = route.servers.shed()?;
            let (model, version) = (table.record.model.clone(), route.version.clone());
            Some(records::Shed { model, version, since: shed.since, cause: shed.cause })
        })
    });
    let mut shed: Vec<records::Shed> = shed.collect();
    shed.sort_by(|a, b| (&a.model, &a.version).cmp(&(&b.model, &b.version)));
    shed
}
