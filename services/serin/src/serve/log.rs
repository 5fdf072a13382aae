//! The log of a process: how it is opened, and whether its topics are as expected.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serin_stream::{
    embedded::{EmbeddedLog, EmbeddedOptions},
    kafka::KafkaLog,
    log::Log,
};
use serin_topology::Difference;

use super::{files, role::Role};
use crate::settings::{LogKind, Settings};

/// Opens the log that the settings name.
pub(crate) fn open_log(settings: &Settings) -> anyhow::Result<Arc<dyn Log>> {
    match settings.log.kind {
        LogKind::Kafka => {
            let mut options = settings.log.kafka.clone();
            options.prefix.clone_from(&settings.topology.prefix);
            let log = KafkaLog::connect(&options).context("the Kafka cluster (log.kafka)")?;
            Ok(Arc::new(log))
        }
        LogKind::Embedded => {
            let path = settings.data_dir.0.join("log");
            let options = EmbeddedOptions {
                prefix: settings.topology.prefix.clone(),
                max_bytes: settings.log.embedded.max_bytes,
                max_open_files: files::share()?.database,
                ..EmbeddedOptions::default()
            };
            let log =
                EmbeddedLog::open(&path, options).with_context(|| format!("the embedded log in {}", path.display()))?;
            Ok(Arc::new(log))
        }
    }
}

/// A log that is only read, possibly while `serin up` in another process writes it.
pub(crate) struct ReadOnlyLog {
    pub(crate) log: Arc<dyn Log>,
    /// Temporary files of a reader of the embedded log. Removed on drop, after the log is closed.
    _scratch: Option<tempfile::TempDir>,
}

/// Opens the log that the settings name, read-only.
pub(crate) fn open_log_read_only(settings: &Settings) -> anyhow::Result<ReadOnlyLog> {
    if settings.log.kind == LogKind::Kafka {
        return Ok(ReadOnlyLog { log: open_log(settings)?, _scratch: None });
    }
    let path = settings.data_dir.0.join("log");
    let options = EmbeddedOptions { prefix: settings.topology.prefix.clone(), ..EmbeddedOptions::default() };
    let scratch = tempfile::tempdir().context("a temporary directory")?;
    let log = EmbeddedLog::follow(&path, scratch.path(), &options)
        .with_context(|| format!("the embedded log in {} (data_dir)", path.display()))?;
    Ok(ReadOnlyLog { log: Arc::new(log), _scratch: Some(scratch) })
}

/// Refuses topics on which a stage would lose records or send them to the wrong task, and lists all differences. Other differences
/// are logged as warnings. A router alone never refuses, because it serves without the log too.
pub(super) fn check_topics(log: &dyn Log, settings: &Settings, roles: &[Role]) -> anyhow::Result<()> {
    let found = match compare(log, settings) {
        Ok(found) => found,
        Err(error) if roles == [Role::Router] => {
            tracing::warn!(error = format!("{error:#}"), "the topics could not be checked");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let refuse = roles != [Role::Router] && found.iter().any(Difference::is_fatal);
    if !refuse {
        for difference in &found {
            tracing::warn!(%difference, "a topic differs from its expected configuration");
        }
        return Ok(());
    }
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    bail!("the topics differ from their expected configuration:\n  - {}", all.join("\n  - "))
}

/// The differences between topics and their expected configuration, one sentence each.
pub(crate) fn differences(log: &dyn Log, settings: &Settings) -> anyhow::Result<Vec<String>> {
    Ok(compare(log, settings)?.iter().map(ToString::to_string).collect())
}

fn compare(log: &dyn Log, settings: &Settings) -> anyhow::Result<Vec<Difference>> {
    let expected = settings.topics();
    let names: Vec<&str> = expected.iter().map(|topic| topic.name.as_str()).collect();
    let actual = log.describe(&names)?;
    Ok(serin_topology::check(&expected, &actual))
}
