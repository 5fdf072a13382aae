//! The variants of Serin's router that are measured: a model for each variant, and its events on the log.

use std::sync::Arc;

use anyhow::Context as _;
use serin_bench_router::publish::outgoing;
use serin_schemas::{
    ids::{EventTime, Generation},
    records::{Arm, Route, RoutingTable},
};
use serin_stream::{
    kafka::{KafkaLog, KafkaOptions},
    log::Log,
    record::TopicPartition,
};
use serin_topology::Topology;

use crate::upstream::Upstream;

/// A variant of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The variant's name in the table of results.
    pub(crate) name: &'static str,
    /// The model that is called.
    pub(crate) model: &'static str,
    /// Whether the model's calls are reported.
    pub(crate) events: bool,
    /// Models in the routing table.
    pub(crate) models: usize,
}

pub(crate) const OFF: Variant = Variant { name: "serin_events_off", model: "off", events: false, models: 4 };
pub(crate) const ON: Variant = Variant { name: "serin_events_on", model: "on", events: true, models: 4 };
pub(crate) const MIRROR: Variant = Variant { name: "serin_mirror", model: "mirror", events: true, models: 4 };
pub(crate) const OUTPUTS: Variant = Variant { name: "serin_outputs", model: "outputs", events: true, models: 4 };
pub(crate) const MODELS: Variant = Variant { name: "serin_1000_models", model: "off", events: false, models: 1000 };

/// The topics of one Serin and their routing tables.
pub(crate) struct Cluster {
    log: KafkaLog,
    topology: Topology,
}

impl Cluster {
    /// Creates the topics and writes a table for each of `models` models.
    pub(crate) fn create(
        brokers: &str,
        prefix: &str,
        models: usize,
        [stable, canary, shadow]: &[Upstream; 3],
    ) -> anyhow::Result<Self> {
        let topology = Topology { prefix: prefix.to_owned(), ..Topology::default() };
        let log = KafkaLog::connect(&KafkaOptions::new(brokers, prefix)).context("the benchmark's Kafka")?;
        log.create(&topology.topics())?;
        let url = |upstream: &Upstream| format!("http://{}", upstream.address);
        let table = |model: &str| {
            let route = |version: &str, arm, share, upstream| Route {
                version: version.into(),
                arm,
                share,
                url: Some(url(upstream)),
            };
            let mut routes =
                vec![route("stable", Arm::Stable, 9000, stable), route("canary", Arm::Canary, 1000, canary)];
            if model == MIRROR.model {
                routes.push(route("shadow", Arm::Shadow, 1000, shadow));
            }
            let (mut segments, mut outputs) = ("[]", "[]");
            if model == OUTPUTS.model {
                segments = r#"[{"name":"origin","source":{"input":"origin"}}]"#;
                outputs = r#"[{"name":"p","source":{"tensor":"probability"},"min":0,"max":1}]"#;
            }
            RoutingTable {
                model: model.into(),
                generation: Generation(1),
                lease_seq: 0,
                lease_ms: 3_600_000,
                // Calls of a model that is in no rollout are not reported (`report: rollouts`).
                rollout: (model != OFF.model).then(|| "r1".into()),
                salt: "r1".into(),
                sticky: None,
                routes,
                segments: segments.into(),
                outputs: outputs.into(),
                fallback: false,
                policy: String::new(),
                reason: "benchmark".into(),
                decided_at: EventTime(0),
            }
        };
        let named = [OFF, ON, MIRROR, OUTPUTS].map(|variant| variant.model.to_owned());
        let others = (named.len()..models).map(|number| format!("model-{number}"));
        let records: Vec<_> =
            named.into_iter().chain(others).map(|model| outgoing(&table(&model))).collect::<Result<_, _>>()?;
        log.transactional("benchmark")?.commit(&records, &[], None)?;
        Ok(Self { log, topology })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.topology.prefix
    }

    /// Number of records on the topic `events`.
    pub(crate) fn events(&self) -> anyhow::Result<i64> {
        let topic: Arc<str> = self.log.full_name(serin_topology::EVENTS);
        let mut sum = 0;
        for partition in 0..self.topology.partitions {
            let (first, end) = self.log.bounds(&TopicPartition::new(&topic, partition))?;
            sum += end.0 - first.0;
        }
        Ok(sum)
    }
}
