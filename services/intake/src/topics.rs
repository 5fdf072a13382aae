//! Decides which models a Kafka topic may report on: the topic is the credential.
//!
//! A producer that may write to `feedback` or `predictions` reports on every model. A topic of [`IntakeTopic`]
//! reports only on its own models, and Kafka's ACLs decide which producers may write to it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serin_schemas::{foreign::Kind, pattern, records::Credential};
use serin_topology::{FEEDBACK, PREDICTIONS};

/// Topics that one group of producers writes to, and the models that they may report on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntakeTopic {
    /// The topic of their feedback, without the topology's prefix.
    #[serde(default)]
    pub feedback: Option<String>,
    /// The topic of their predictions, without the topology's prefix.
    #[serde(default)]
    pub predictions: Option<String>,
    /// The models that they may report on: names, or patterns with `*`.
    pub models: Vec<String>,
}

impl IntakeTopic {
    /// The names of its topics.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.feedback.as_deref().into_iter().chain(self.predictions.as_deref())
    }
}

/// The problems of a list of topics. `known` are the topics that Serin uses already.
pub fn check_topics(topics: &[IntakeTopic], known: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut seen: Vec<&str> = known.iter().map(String::as_str).collect();
    for (index, topic) in topics.iter().enumerate() {
        let place = format!("intake.topics[{index}]");
        if topic.names().next().is_none() {
            problems.push(format!("{place}: name a topic under feedback, predictions or both"));
        }
        for name in topic.names() {
            if name.is_empty() || name.len() > 200 || !name.chars().all(legal) {
                problems.push(format!(
                    "{place}: {name:?} is not a valid topic name; use letters, digits, `.`, `_` and `-`"
                ));
            }
            if seen.contains(&name) {
                problems.push(format!("{place}: topic {name:?} is already in use"));
            }
            seen.push(name);
        }
        if topic.models.is_empty() || topic.models.iter().any(|model| model.is_empty() || model.len() > 200) {
            problems
                .push(format!("{place}: models must name models or patterns of 1 to 200 bytes; `*` is every model"));
        }
    }
    problems
}

/// The kind and the credential of the records of one topic.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The kind of a record that does not state one.
    pub(crate) kind: Kind,
    /// The credential that its feedback is stamped with.
    pub(crate) credential: Credential,
}

impl Source {
    fn new(kind: Kind, name: &str, models: &[String]) -> Self {
        Self { kind, credential: Credential { writer: name.to_owned(), models: models.to_vec() } }
    }

    /// Whether its records may report on a model.
    pub(crate) fn covers(&self, model: &str) -> bool {
        self.credential.models.iter().any(|pattern| pattern::matches(pattern, model))
    }
}

/// The topics that the intake reads.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// Topics with their own credential, by full name.
    bound: Arc<[(String, Source)]>,
    predictions: Source,
    feedback: Source,
}

impl Sources {
    pub(crate) fn new(topics: &[IntakeTopic], prefix: &str) -> Self {
        let of =
            |topic: &IntakeTopic, kind, name: &str| (format!("{prefix}{name}"), Source::new(kind, name, &topic.models));
        let bound = topics.iter().flat_map(|topic| {
            let feedback = topic.feedback.iter().map(|name| of(topic, Kind::Feedback, name));
            feedback.chain(topic.predictions.iter().map(|name| of(topic, Kind::Prediction, name)))
        });
        let every = ["*".to_owned()];
        Self {
            bound: bound.collect(),
            predictions: Source::new(Kind::Prediction, PREDICTIONS, &every),
            feedback: Source::new(Kind::Feedback, FEEDBACK, &every),
        }
    }

    /// The source of a topic, by its full name.
    pub(crate) fn of(&self, topic: &str) -> &Source {
        let bound = self.bound.iter().find(|(name, _)| name == topic).map(|(_, source)| source);
        bound.unwrap_or(if topic.ends_with(FEEDBACK) { &self.feedback } else { &self.predictions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(feedback: Option<&str>, predictions: Option<&str>, models: &[&str]) -> IntakeTopic {
        IntakeTopic {
            feedback: feedback.map(str::to_owned),
            predictions: predictions.map(str::to_owned),
            models: models.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn each_topic_has_its_own_credential_even_with_similar_names() {
        let sources = Sources::new(&[topic(Some("team-a.feedback"), Some("team-a.calls"), &["team-a-*"])], "team-a.");
        let own = sources.of("team-a.team-a.feedback");
        assert_eq!((own.kind, own.credential.writer.as_str()), (Kind::Feedback, "team-a.feedback"));
        assert!(own.covers("team-a-fraud") && !own.covers("team-b-fraud"));
        assert_eq!(sources.of("team-a.team-a.calls").kind, Kind::Prediction);
        let shared = sources.of("team-a.feedback");
        assert_eq!((shared.credential.writer.as_str(), shared.covers("team-b-fraud")), ("feedback", true));
        assert_eq!(sources.of("team-a.predictions").kind, Kind::Prediction);
    }

    #[test]
    fn every_problem_of_the_list_is_named() {
        let known = ["feedback".to_owned()];
        let topics =
            [topic(None, None, &["*"]), topic(Some("feedback"), Some("a b"), &[]), topic(Some("x"), Some("x"), &["m"])];
        assert_eq!(
            check_topics(&topics, &known),
            [
                "intake.topics[0]: name a topic under feedback, predictions or both",
                "intake.topics[1]: topic \"feedback\" is already in use",
                "intake.topics[1]: \"a b\" is not a valid topic name; use letters, digits, `.`, `_` and `-`",
                "intake.topics[1]: models must name models or patterns of 1 to 200 bytes; `*` is every model",
                "intake.topics[2]: topic \"x\" is already in use",
            ]
        );
        assert_eq!(check_topics(&[topic(Some("a"), None, &["*"])], &known), Vec::<String>::new());
    }
}
