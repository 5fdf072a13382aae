//! Time until a routing table is used: from its commit on the log to the first request that follows it.
//!
//! The figures depend on the machine, so they are only printed. The test asserts that every table is used, in order, and that no
//! request after the first use of a table follows an older one.

#![expect(clippy::print_stdout, reason = "prints figures")]

use std::sync::Arc;

use anyhow::Result;
use serin_bench_router::publish::{Change, Series, measure, quantile};
use serin_stream::{
    embedded::{EmbeddedLog, EmbeddedOptions},
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
};
use serin_tests::kafka::{Broker, unique_prefix};

const SERIES: Series = Series { warm_up: 100, measured: 200 };

fn report(log: &str, changes: &[Change]) {
    let quantiles = |what: fn(&Change) -> u128| {
        let at = |level| quantile(changes, what, level);
        format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(50), at(99), at(100))
    };
    println!("{log}: {} tables", changes.len());
    println!("  commit                      {}", quantiles(|change| change.commit));
    println!("  from commit to first use    {}", quantiles(|change| change.to_use));
    println!("  from sending to first use   {}", quantiles(|change| change.commit + change.to_use));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_is_used_on_the_embedded_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(folder.path(), EmbeddedOptions::default())?);
    report("embedded", &measure(log, SERIES).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_is_used_on_kafka() -> Result<()> {
    let broker = tokio::task::spawn_blocking(Broker::shared).await??;
    let options = KafkaOptions::new(broker.bootstrap(), &unique_prefix("publish"));
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(&options)?);
    report("kafka", &measure(log, SERIES).await?);
    Ok(())
}
