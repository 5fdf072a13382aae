//! Compares the topics that should exist with those that do.

use std::{collections::BTreeMap, fmt};

use crate::{APPEND_TIME, Cleanup, EVENTS, TopicSpec};

/// One difference between a topic and its specification. It prints as a sentence that names the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The topic, without the prefix.
    pub topic: String,
    /// What differs.
    pub what: What,
}

/// What differs between a topic and its specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The topic does not exist.
    Missing,
    /// The number of partitions differs.
    Partitions {
        /// The specified number of partitions.
        expected: i32,
        /// The actual number of partitions.
        actual: i32,
    },
    /// The number of replicas differs.
    Replication {
        /// The specified number of replicas.
        expected: i32,
        /// The actual number of replicas.
        actual: i32,
    },
    /// The cleanup policy differs: old records are deleted where they must be compacted, or the reverse.
    Policy {
        /// The specified policy.
        expected: Cleanup,
        /// The actual policy.
        actual: Cleanup,
    },
    /// The retention time differs, in milliseconds.
    Retention {
        /// The specified retention time.
        expected: i64,
        /// The actual retention time.
        actual: i64,
    },
    /// Another setting differs.
    Setting {
        /// The setting's Kafka name.
        name: String,
        /// The specified value.
        expected: String,
        /// The actual value. `None`: the broker does not report one.
        actual: Option<String>,
    },
}

impl Difference {
    /// Whether a stage must not start: records would be lost, would go to the wrong task, or would carry the wrong
    /// timestamp. Other differences can be fixed while everything runs.
    pub fn is_fatal(&self) -> bool {
        match &self.what {
            What::Missing | What::Partitions { .. } | What::Policy { .. } => true,
            What::Setting { name, .. } => self.topic == EVENTS && name == APPEND_TIME.0,
            What::Replication { .. } | What::Retention { .. } => false,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = &self.topic;
        match &self.what {
            What::Missing => write!(f, "{topic}: does not exist; create it with `serin topology ensure`"),
            What::Partitions { expected, actual } => write!(
                f,
                "{topic}: has {actual} partitions, expected {expected}; set topology.partitions to {actual} if every topic has \
                 {actual}, else use another topology.prefix. Partitions are never changed in place: keys would move"
            ),
            What::Replication { expected, actual } => write!(
                f,
                "{topic}: has {actual} replicas, expected {expected}; move it with `kafka-reassign-partitions`, or set \
                 topology.replication to {actual}"
            ),
            What::Policy { expected, actual } => write!(
                f,
                "{topic}: cleanup.policy is {}, expected {}; set it with `kafka-configs --alter --add-config cleanup.policy={}`",
                policy(*actual),
                policy(*expected),
                policy(*expected)
            ),
            What::Retention { expected, actual } => write!(
                f,
                "{topic}: retention is {}, expected {}; set it with `kafka-configs --alter --add-config \
                 retention.ms={expected}`",
                time(*actual),
                time(*expected)
            ),
            What::Setting { name, expected, actual } => write!(
                f,
                "{topic}: {name} is {}, expected {expected}; set it with `kafka-configs --alter --add-config {name}={expected}`",
                actual.as_deref().unwrap_or("not set")
            ),
        }
    }
}

fn policy(cleanup: Cleanup) -> &'static str {
    match cleanup {
        Cleanup::Delete { .. } => "delete",
        Cleanup::Compact => "compact",
    }
}

/// A duration in the largest unit that divides it.
pub(crate) fn time(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    if ms < 0 {
        return "unlimited".to_owned();
    }
    UNITS
        .iter()
        .find(|(length, _)| ms > 0 && ms % length == 0)
        .map_or_else(|| format!("{ms} ms"), |(length, unit)| format!("{} {unit}", ms / length))
}

/// Every difference, in the order of `expected`. Topics that are only in `actual` belong to others and are ignored.
pub fn check(expected: &[TopicSpec], actual: &[TopicSpec]) -> Vec<Difference> {
    let found: BTreeMap<&str, &TopicSpec> = actual.iter().map(|topic| (topic.name.as_str(), topic)).collect();
    let mut out = Vec::new();
    for topic in expected {
        let differences = match found.get(topic.name.as_str()) {
            None => vec![What::Missing],
            Some(actual) => compare(topic, actual),
        };
        out.extend(differences.into_iter().map(|what| Difference { topic: topic.name.clone(), what }));
    }
    out
}

fn compare(expected: &TopicSpec, actual: &TopicSpec) -> Vec<What> {
    let mut out = Vec::new();
    if expected.partitions != actual.partitions {
        out.push(What::Partitions { expected: expected.partitions, actual: actual.partitions });
    }
    if expected.replication != actual.replication {
        out.push(What::Replication { expected: expected.replication, actual: actual.replication });
    }
    match (expected.cleanup, actual.cleanup) {
        (expected, actual) if expected == actual => {}
        (Cleanup::Delete { retention_ms: expected }, Cleanup::Delete { retention_ms: actual }) => {
            out.push(What::Retention { expected, actual });
        }
        (expected, actual) => out.push(What::Policy { expected, actual }),
    }
    for (name, value) in &expected.settings {
        let found = actual.settings.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        if !found.is_some_and(|found| same(value, found)) {
            out.push(What::Setting { name: name.clone(), expected: value.clone(), actual: found.map(str::to_owned) });
        }
    }
    out
}

/// Whether two values are equal. Numbers are compared numerically: `0.1` equals `0.10`.
fn same(expected: &str, actual: &str) -> bool {
    expected == actual
        || expected
            .parse::<f64>()
            .is_ok_and(|expected| actual.parse().is_ok_and(|actual: f64| expected.total_cmp(&actual).is_eq()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    fn sentences(change: impl FnOnce(&mut Vec<TopicSpec>)) -> String {
        let expected = Topology { replication: 3, ..Topology::default() }.topics();
        let mut actual = expected.clone();
        change(&mut actual);
        let differences = check(&expected, &actual);
        let lines: Vec<String> =
            differences.iter().map(|one| format!("{}{one}", if one.is_fatal() { "! " } else { "" })).collect();
        lines.join("\n")
    }

    fn topic<'a>(topics: &'a mut [TopicSpec], name: &str) -> &'a mut TopicSpec {
        topics.iter_mut().find(|topic| topic.name == name).unwrap()
    }

    #[test]
    fn matching_topics_have_no_difference() {
        assert_eq!(sentences(|_| ()), "");
    }

    #[test]
    fn foreign_topics_and_other_spellings_are_not_differences() {
        assert_eq!(
            sentences(|topics| {
                let mut other = topics[0].clone();
                other.name = "orders".into();
                topics.push(other);
                topics.reverse();
                topic(topics, "routing").settings[3].1 = "0.10".into();
            }),
            ""
        );
    }

    #[test]
    fn each_difference_is_a_sentence_that_names_the_fix() {
        let printed = sentences(|topics| {
            topics.retain(|topic| topic.name != "audit");
            topic(topics, "events").partitions = 12;
            let stamps = topic(topics, "events").settings.iter_mut().find(|(name, _)| name == APPEND_TIME.0);
            stamps.unwrap().1 = "CreateTime".into();
            topic(topics, "windows").replication = 1;
            topic(topics, "verdicts").cleanup = Cleanup::Delete { retention_ms: 604_800_000 };
            topic(topics, "dead-letters").cleanup = Cleanup::Delete { retention_ms: -1 };
            topic(topics, "routing").cleanup = Cleanup::Delete { retention_ms: 1 };
            topic(topics, "aggregator-changelog").settings[0].1 = "1".into();
            topic(topics, "analyzer-changelog").settings.pop();
        });
        insta::assert_snapshot!(printed, @"
        ! events: has 12 partitions, expected 4; set topology.partitions to 12 if every topic has 12, else use another topology.prefix. Partitions are never changed in place: keys would move
        ! events: message.timestamp.type is CreateTime, expected LogAppendTime; set it with `kafka-configs --alter --add-config message.timestamp.type=LogAppendTime`
        windows: has 1 replicas, expected 3; move it with `kafka-reassign-partitions`, or set topology.replication to 1
        verdicts: retention is 7 d, expected 400 d; set it with `kafka-configs --alter --add-config retention.ms=34560000000`
        ! routing: cleanup.policy is delete, expected compact; set it with `kafka-configs --alter --add-config cleanup.policy=compact`
        ! audit: does not exist; create it with `serin topology ensure`
        dead-letters: retention is unlimited, expected 14 d; set it with `kafka-configs --alter --add-config retention.ms=1209600000`
        aggregator-changelog: min.insync.replicas is 1, expected 2; set it with `kafka-configs --alter --add-config min.insync.replicas=2`
        analyzer-changelog: max.message.bytes is not set, expected 8454144; set it with `kafka-configs --alter --add-config max.message.bytes=8454144`
        ");
    }
}
