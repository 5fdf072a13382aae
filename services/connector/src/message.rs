//! What a message says about an event of a rollout, independent of the service that shows it.

use serin_rollout::{
    RolloutState,
    planner::{HoldCause, StepIndex},
};
use serin_schemas::records::{EventKind, RolloutEvent};
use serin_spec::Share;

use crate::config::On;

/// Most findings that a message lists.
const FINDINGS_MAX: usize = 3;
/// The planner's word for a rollout that was undone. Its events have the kind of every rollout that a person ends.
const UNDONE: &str = "undone ";

/// A message about one event.
#[derive(Clone, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) event: &'a RolloutEvent,
    pub(crate) on: On,
    /// The state of the rollout after the event, if the event has it and this build understands it.
    pub(crate) state: Option<RolloutState>,
    /// The page of the rollout.
    pub(crate) link: Option<String>,
}

/// A fact of a message: a name and its value.
pub(crate) type Fact = (&'static str, String);

impl<'a> Message<'a> {
    /// The message about an event. `public_url` may be empty.
    pub(crate) fn new(event: &'a RolloutEvent, public_url: &str) -> Self {
        let state: Option<RolloutState> = event.state.as_deref().and_then(|state| serde_json::from_str(state).ok());
        let on = on(event, state.as_ref());
        let page = |rollout: &str| format!("{}/rollouts/{}", public_url.trim_end_matches('/'), encoded(rollout));
        let link = event.rollout.as_ref().filter(|_| !public_url.is_empty()).map(|rollout| page(rollout.as_str()));
        Self { event, on, state, link }
    }

    /// One line: the model and what happened.
    pub(crate) fn title(&self) -> String {
        let what = match self.on {
            On::NeedsDecision => "needs a decision",
            On::RolledBack => "was rolled back",
            On::Held => "is held",
            On::Promoted => "was promoted and is monitored",
            On::Completed => "was promoted",
            On::Undone => "was undone",
            On::Warned => "has a warning",
            On::Started => "started",
            On::Advanced => "took a step",
            On::Resumed => "continues",
            On::Paused => "is paused",
            On::Refused => "got a command that was refused",
            On::Aborted => "was aborted",
            On::Superseded => "was superseded",
            On::Confirmed => "was rolled back by every router",
            On::Frozen => "is frozen",
            On::Unfrozen => "is no longer frozen",
            On::Marked => "was judged after its end",
        };
        let subject = match (self.event.rollout.is_some(), self.canary()) {
            (true, Some(canary)) => format!("The rollout of {canary} of {}", self.event.model),
            (true, None) => format!("The rollout of {}", self.event.model),
            (false, _) => self.event.model.to_string(),
        };
        format!("{subject} {what}")
    }

    fn canary(&self) -> Option<String> {
        self.state.as_ref().map(|state| state.spec.canary.version.in_words())
    }

    /// The facts, in the order in which they are shown.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![("Model", self.event.model.to_string())];
        if let Some(state) = &self.state {
            let versions = (state.spec.canary.version.in_words(), state.spec.stable.version.in_words());
            facts.push(("Versions", format!("{} against {}", versions.0, versions.1)));
            for reason in self.findings() {
                facts.push(("Metric", format!("{}, segment {}", reason.metric, reason.segment)));
                if reason.sentence != self.event.sentence {
                    facts.push(("Finding", reason.sentence.clone()));
                }
            }
            if let Some(StepIndex(step)) = state.step {
                facts.push(("Step", format!("{} of {}", step + 1, state.spec.steps.len())));
            }
            facts.push(("Share of the canary", Share(self.event.canary_share).to_string()));
            facts.push(("Answers of the canary", state.answers.to_string()));
        }
        facts.push(("By", self.event.actor.clone()));
        facts.extend(self.event.rollout.as_ref().map(|rollout| ("Rollout", rollout.to_string())));
        facts
    }

    /// The evidence that ended the rollout, worst first.
    pub(crate) fn findings(&self) -> &[serin_schemas::records::Reason] {
        let ending = self.state.as_ref().and_then(|state| state.ending.as_ref());
        let all = ending.map_or(&[][..], |ending| &ending.reasons);
        &all[..all.len().min(FINDINGS_MAX)]
    }
}

/// What an event is about, in the words of the configuration.
fn on(event: &RolloutEvent, state: Option<&RolloutState>) -> On {
    let hold = state.and_then(|state| state.hold.as_ref());
    match event.kind {
        EventKind::Held if hold.is_some_and(|hold| hold.cause == HoldCause::Approval) => On::NeedsDecision,
        EventKind::Warned if hold.is_some_and(|hold| hold.reported) => On::NeedsDecision,
        EventKind::Aborted if event.sentence.starts_with(UNDONE) => On::Undone,
        EventKind::Started => On::Started,
        EventKind::Refused => On::Refused,
        EventKind::Advanced => On::Advanced,
        EventKind::Held => On::Held,
        EventKind::Resumed => On::Resumed,
        EventKind::Paused => On::Paused,
        EventKind::Promoted => On::Promoted,
        EventKind::Completed => On::Completed,
        EventKind::RolledBack => On::RolledBack,
        EventKind::Aborted => On::Aborted,
        EventKind::Superseded => On::Superseded,
        EventKind::Warned => On::Warned,
        EventKind::Confirmed => On::Confirmed,
        EventKind::Frozen => On::Frozen,
        EventKind::Unfrozen => On::Unfrozen,
        EventKind::Marked => On::Marked,
    }
}

/// Whether the event ends an incident that an earlier event of its rollout has opened.
pub(crate) fn resolves(on: On) -> bool {
    matches!(on, On::Resumed | On::Advanced | On::Promoted | On::Completed | On::Undone | On::Aborted | On::Superseded)
}

/// A text as one segment of a path.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// At most `max` characters of a text. A shortened text ends with `...`.
pub(crate) fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};
    use serin_rollout::{
        Input, Planner,
        planner::{Hold, Settings, WallMs},
    };
    use serin_schemas::{
        ids::{EventTime, Generation},
        records::{Action, Command, Phase},
    };

    use super::*;

    const SPEC: &str = "apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {version: '1', url: 'http://localhost:9001'}
canary: {version: '2', url: 'http://localhost:9002'}
steps: [{weight: 5%}, {weight: 25%}]
metrics: [{name: latency_p99, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.5}}]
";

    /// The state of a rollout that was rolled back on evidence.
    fn state() -> Value {
        let spec = serin_rollout::parse_yaml(SPEC).unwrap();
        let command = Command {
            rollout: Some("0198f3c4-0000-7000-8000-000000000003".into()),
            spec: Some(serde_json::to_string(&spec).unwrap()),
            ..Command::new("c".to_owned(), Action::Apply, "fraud".into(), "ann".to_owned(), EventTime(0))
        };
        let effects = Planner::new(Settings::default()).apply(Input::Command(Box::new(command)), WallMs(0));
        let mut state: Value = serde_json::from_str(effects.events[0].state.as_deref().unwrap()).unwrap();
        let finding = json!({
            "metric": "latency_p99",
            "segment": {"dimension": "country", "value": "DE"},
            "sentence": "for country=DE, the canary's latency p99 is 90 ms against 40 ms",
        });
        state["step"] = json!(1);
        state["answers"] = json!(12345);
        state["ending"] =
            json!({"outcome": "evidence", "reasons": [finding], "sentence": "why", "at": 0, "actor": "analyzer"});
        state
    }

    pub(crate) fn event(kind: EventKind, sentence: &str) -> RolloutEvent {
        RolloutEvent {
            id: "5f0c9a7e21b4d863".to_owned(),
            model: "fraud".into(),
            rollout: Some("0198f3c4-0000-7000-8000-000000000003".into()),
            kind,
            phase: Phase::RolledBack,
            step: 1,
            canary_share: 0,
            generation: Generation(19),
            at: EventTime::from_secs(1_763_719_290),
            recorded_at: EventTime::from_secs(1_763_719_291),
            actor: "analyzer".to_owned(),
            sentence: sentence.to_owned(),
            cause: Some("v".to_owned()),
            state: Some(state().to_string()),
            was_good: None,
        }
    }

    #[test]
    fn a_message_has_the_finding_the_share_and_the_number_of_answers() {
        let event = event(EventKind::RolledBack, "roll back: the canary's latency p99 is 90 ms against 40 ms");
        let message = Message::new(&event, "https://serin.example.com/");
        assert_eq!(message.title(), "The rollout of version 2 of fraud was rolled back");
        assert_eq!(
            message.link.as_deref(),
            Some("https://serin.example.com/rollouts/0198f3c4-0000-7000-8000-000000000003")
        );
        let facts = message.facts();
        let value = |name: &str| facts.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("Metric"), Some("latency_p99, segment country=DE"));
        assert_eq!(value("Step"), Some("2 of 2"));
        assert_eq!(value("Answers of the canary"), Some("12345"));
        assert!(value("Finding").is_some_and(|finding| finding.contains("90 ms")), "{facts:?}");
        assert_eq!(Message::new(&event, "").link, None);
    }

    #[test]
    fn a_hold_that_only_a_person_ends_and_an_undone_rollout_have_words_of_their_own() {
        let kinds = |kind, sentence: &str, change: &dyn Fn(&mut Value)| {
            let mut json = state();
            change(&mut json);
            let event = RolloutEvent { state: Some(json.to_string()), ..event(kind, sentence) };
            Message::new(&event, "").on
        };
        let hold = |cause: HoldCause, reported: bool| {
            move |state: &mut Value| {
                let hold = Hold { cause, since: EventTime(0), reported };
                state["hold"] = serde_json::to_value(hold).unwrap();
            }
        };
        assert_eq!(kinds(EventKind::Held, "held", &hold(HoldCause::Health, false)), On::Held);
        assert_eq!(
            kinds(EventKind::Held, "waits for an approval", &hold(HoldCause::Approval, false)),
            On::NeedsDecision
        );
        assert_eq!(kinds(EventKind::Warned, "held for 6h", &hold(HoldCause::Marginal, true)), On::NeedsDecision);
        assert_eq!(kinds(EventKind::Warned, "no labels", &hold(HoldCause::Marginal, false)), On::Warned);
        assert_eq!(kinds(EventKind::Aborted, "undone by ann: why", &|_| ()), On::Undone);
        assert_eq!(kinds(EventKind::Aborted, "aborted by ann: why", &|_| ()), On::Aborted);
    }

    #[test]
    fn a_state_that_is_not_understood_leaves_the_event() {
        let event = RolloutEvent { state: Some("{}".to_owned()), ..event(EventKind::RolledBack, "why") };
        let message = Message::new(&event, "");
        assert_eq!((message.title().as_str(), message.on), ("The rollout of fraud was rolled back", On::RolledBack));
        assert_eq!(encoded("a/b?c#d"), "a%2Fb%3Fc%23d");
        assert_eq!((short("abcdef", 6), short("abcdefg", 6)), ("abcdef".to_owned(), "abc...".to_owned()));
    }
}
