//! Derives the topic specifications from the few numbers that a user sets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::codec::MAX_RECORD_BYTES;

use crate::{CATALOG, CHANGELOG_STAGES, Cleanup, Entry, TopicSpec, changelog};

/// Room for headers, key and batch around the largest record.
const BATCH_OVERHEAD_BYTES: usize = 64 * 1024;

/// Kafka's limit for the name of a topic.
const MAX_NAME: usize = 249;

/// The Kafka setting, and its value, that makes the broker stamp each record with its append time.
///
/// `events` requires it: writer silence and clock skew are measured by these timestamps.
pub const APPEND_TIME: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

/// The topic settings that a user can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Prefix of every topic, group and transactional id, such as `serin.`. Empty by default. Installations with
    /// different prefixes are independent.
    pub prefix: String,
    /// Partitions of every topic, 4 by default. This limits how far the folds can scale out. It cannot change once
    /// the topics exist.
    pub partitions: i32,
    /// Replicas of every partition, 1 by default. Set 3 on a production cluster. The embedded log has no replicas.
    pub replication: i32,
}

impl Default for Topology {
    fn default() -> Self {
        Self { prefix: String::new(), partitions: 4, replication: 1 }
    }
}

/// A topology that no cluster can have. Lists every problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TopologyError(pub Vec<String>);

impl Topology {
    /// Returns every value that cannot work.
    pub fn validate(&self) -> Result<(), TopologyError> {
        let mut problems = Vec::new();
        if !(1..=10_000).contains(&self.partitions) {
            problems.push(format!("topology.partitions is {}; write 1 to 10000", self.partitions));
        }
        if !(1..=100).contains(&self.replication) {
            problems.push(format!("topology.replication is {}; write 1 to the number of brokers", self.replication));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(wrong) = self.prefix.chars().find(|c| !legal(*c)) {
            problems
                .push(format!("topology.prefix has the character {wrong:?}; write letters, digits, `.`, `_` and `-`"));
        }
        let longest = self.topics().iter().map(|topic| topic.name.len()).max().unwrap_or(0);
        if self.prefix.len() + longest > MAX_NAME {
            problems.push(format!(
                "topology.prefix has {} characters; write at most {}",
                self.prefix.len(),
                MAX_NAME - longest
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(TopologyError(problems)) }
    }

    /// The specification of every topic in the order of the data flow, with the changelogs last. Names do not include
    /// the prefix.
    pub fn topics(&self) -> Vec<TopicSpec> {
        let entries = CATALOG.iter().map(|entry| self.topic(entry.name.to_owned(), entry));
        entries.chain(CHANGELOG_STAGES.iter().map(|stage| self.changelog(stage))).collect()
    }

    fn changelog(&self, stage: &str) -> TopicSpec {
        let entry = Entry {
            name: "",
            key: "state key",
            records: &[],
            cleanup: Cleanup::Compact,
            large: true,
            writers: &[],
            readers: &[],
        };
        self.topic(changelog(stage), &entry)
    }

    fn topic(&self, name: String, entry: &Entry) -> TopicSpec {
        let mut settings = vec![
            // With three replicas one broker may be down, and an acknowledged record still survives the loss of a
            // second one.
            ("min.insync.replicas", if self.replication >= 3 { "2" } else { "1" }.to_owned()),
            // Retention then counts from arrival, whatever the producer's clock: records with replayed or hostile
            // timestamps are neither deleted at once nor kept forever.
            (APPEND_TIME.0, APPEND_TIME.1.to_owned()),
        ];
        if entry.cleanup == Cleanup::Compact {
            // Restoring reads the whole topic, so it is kept short. Tombstones stay for a day so that a cache that
            // was offline for less than a day still sees them.
            settings.push(("segment.ms", (10 * 60 * 1000).to_string()));
            settings.push(("min.cleanable.dirty.ratio", "0.1".to_owned()));
            settings.push(("delete.retention.ms", (24 * 60 * 60 * 1000).to_string()));
        }
        if entry.large {
            settings.push(("max.message.bytes", (MAX_RECORD_BYTES + BATCH_OVERHEAD_BYTES).to_string()));
        }
        TopicSpec {
            name,
            partitions: self.partitions,
            replication: self.replication,
            cleanup: entry.cleanup,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_there_once_with_the_same_partitions() {
        let topology = Topology { partitions: 6, replication: 3, ..Topology::default() };
        let topics = topology.topics();
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "predictions",
                "feedback",
                "events",
                "windows",
                "verdicts",
                "routing",
                "router-status",
                "commands",
                "audit",
                "deliveries",
                "captures",
                "dead-letters",
                "aggregator-changelog",
                "analyzer-changelog",
                "connector-changelog",
                "controller-changelog",
                "intake-changelog",
            ]
        );
        assert!(topics.iter().all(|topic| topic.partitions == 6 && topic.replication == 3));
    }

    #[test]
    fn state_is_compacted_and_never_deleted_by_age() {
        for topic in Topology::default().topics() {
            let state = topic.name == "routing" || topic.name.ends_with("-changelog");
            assert_eq!(topic.cleanup == Cleanup::Compact, state, "{}", topic.name);
            assert_eq!(topic.settings.iter().any(|(name, _)| name == "segment.ms"), state, "{}", topic.name);
        }
    }

    #[test]
    fn two_of_three_replicas_must_acknowledge_a_record() {
        for (replication, want) in [(1, "1"), (2, "1"), (3, "2"), (5, "2")] {
            let topics = Topology { replication, ..Topology::default() }.topics();
            assert!(
                topics.iter().all(|topic| topic.settings.contains(&("min.insync.replicas".into(), want.into()))),
                "{replication}"
            );
        }
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        assert_eq!(Topology::default().validate(), Ok(()));
        let wrong = Topology { prefix: format!("a/{}", "b".repeat(300)), partitions: 0, replication: -1 };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "topology.partitions is 0; write 1 to 10000\n\
             topology.replication is -1; write 1 to the number of brokers\n\
             topology.prefix has the character '/'; write letters, digits, `.`, `_` and `-`\n\
             topology.prefix has 302 characters; write at most 229"
        );
    }
}
