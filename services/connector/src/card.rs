//! The body of a call, in the form that each service documents. Bodies contain no secrets: they are on the log.

use serde_json::{Value, json};
use serin_schemas::records::RolloutEvent;

use crate::{
    config::{Kind, On},
    message::{Message, resolves, short},
};

/// Longest text of a block in Slack, with room for escapes.
const SLACK_TEXT: usize = 2_500;
/// Longest header in Slack.
const SLACK_HEADER: usize = 150;
/// Longest field in Slack, with room for escapes.
const SLACK_FIELD: usize = 1_500;
/// Most fields of a block in Slack.
const SLACK_FIELDS: usize = 10;
/// Longest text in a card of Teams.
const TEAMS_TEXT: usize = 4_000;
/// Longest summary in `PagerDuty`.
const PAGERDUTY_SUMMARY: usize = 1_024;
/// Longest key of an incident in `PagerDuty`.
const PAGERDUTY_KEY: usize = 255;

/// What a destination of `PagerDuty` does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    Open,
    Resolve,
}

/// The body that a message has for a kind of destination.
pub(crate) fn body(kind: Kind, message: &Message<'_>) -> Value {
    match kind {
        Kind::Webhook => webhook(message),
        Kind::Slack => slack(message),
        Kind::Teams => teams(message),
        Kind::Pagerduty => pagerduty(message, Incident::Open),
    }
}

/// An event of Standard Webhooks. `data` has the fields of the audit event, as `serin tail audit` prints them, without the state.
fn webhook(message: &Message<'_>) -> Value {
    let event = message.event;
    let mut data = json!({
        "id": event.id,
        "model": event.model,
        "rollout": event.rollout,
        "on": message.on,
        "kind": event.kind,
        "phase": event.phase,
        "step": event.step,
        "canary_share": event.canary_share,
        "generation": event.generation,
        "at": event.at,
        "recorded_at": event.recorded_at,
        "actor": event.actor,
        "sentence": event.sentence,
        "findings": message.findings(),
        "url": message.link,
    });
    if let Some(state) = &message.state {
        data["canary"] = json!(state.spec.canary.version);
        data["stable"] = json!(state.spec.stable.version);
        data["canary_answers"] = json!(state.answers);
    }
    json!({"type": format!("rollout.{}", message.on.as_str()), "timestamp": time(event), "data": data})
}

/// A message of Slack, in blocks. `text` is shown in notifications.
fn slack(message: &Message<'_>) -> Value {
    let title = message.title();
    let text = |text: &str| json!({"type": "mrkdwn", "text": text, "verbatim": true});
    let fields: Vec<Value> = message
        .facts()
        .iter()
        .take(SLACK_FIELDS)
        .map(|(name, value)| text(&format!("*{name}*\n{}", escaped(&short(value, SLACK_FIELD)))))
        .collect();
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": short(&title, SLACK_HEADER), "emoji": false}}),
        json!({"type": "section", "text": text(&escaped(&short(&message.event.sentence, SLACK_TEXT)))}),
        json!({"type": "section", "fields": fields}),
    ];
    if let Some(link) = &message.link {
        let label = json!({"type": "plain_text", "text": "Show the evidence"});
        blocks.push(json!({"type": "actions", "elements": [{"type": "button", "text": label, "url": link}]}));
    }
    let summary = escaped(&short(&format!("{title}: {}", message.event.sentence), SLACK_TEXT));
    json!({"text": summary, "blocks": blocks, "unfurl_links": false, "unfurl_media": false})
}

/// Escapes the characters that Slack gives a meaning: no text of an event can mention anybody or hide a link.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A message of Teams with an Adaptive Card. Text runs show their text as it is, without Markdown.
fn teams(message: &Message<'_>) -> Value {
    let run = |text: &str, bold: bool| {
        let weight = if bold { "Bolder" } else { "Default" };
        json!({"type": "TextRun", "text": short(text, TEAMS_TEXT), "weight": weight})
    };
    let mut title = run(&message.title(), true);
    title["size"] = json!("Large");
    let mut lines = vec![
        json!({"type": "RichTextBlock", "inlines": [title]}),
        json!({"type": "RichTextBlock", "inlines": [run(&message.event.sentence, false)]}),
    ];
    for (name, value) in message.facts() {
        let inlines = [run(&format!("{name}: "), true), run(&value, false)];
        lines.push(json!({"type": "RichTextBlock", "spacing": "Small", "inlines": inlines}));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": lines,
    });
    if let Some(link) = &message.link {
        card["actions"] = json!([{"type": "Action.OpenUrl", "title": "Show the evidence", "url": link}]);
    }
    let attachment =
        json!({"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card});
    json!({"type": "message", "attachments": [attachment]})
}

/// An event of the Events API v2. The integration key is added when it is sent.
pub(crate) fn pagerduty(message: &Message<'_>, incident: Incident) -> Value {
    let event = message.event;
    let subject = event.rollout.as_ref().map_or(event.id.as_str(), |rollout| rollout.as_str());
    let key = short(&format!("serin/{subject}"), PAGERDUTY_KEY);
    if incident == Incident::Resolve {
        return json!({"event_action": "resolve", "dedup_key": key});
    }
    let severity = match message.on {
        On::RolledBack => "error",
        On::Paused => "info",
        _ => "warning",
    };
    let mut details = serde_json::Map::new();
    details.insert("Sentence".to_owned(), json!(event.sentence));
    for (name, value) in message.facts() {
        // The first metric is the worst.
        details.entry(name).or_insert(json!(value));
    }
    let mut body = json!({
        "event_action": "trigger",
        "dedup_key": key,
        "client": "Serin",
        "payload": {
            "summary": short(&format!("{}: {}", message.title(), event.sentence), PAGERDUTY_SUMMARY),
            "source": event.model,
            "severity": severity,
            "timestamp": time(event),
            "component": event.model,
            "class": message.on,
            "custom_details": details,
        },
    });
    if let Some(link) = &message.link {
        body["client_url"] = json!(link);
        body["links"] = json!([{"href": link, "text": "The rollout and its evidence"}]);
    }
    body
}

/// What an event does to incidents. `opens`: whether the destination gets messages about it.
pub(crate) fn incident(on: On, opens: bool) -> Option<Incident> {
    if opens { Some(Incident::Open) } else { resolves(on).then_some(Incident::Resolve) }
}

/// When the event was recorded: event time may be that of replayed traffic.
fn time(event: &RolloutEvent) -> Option<String> {
    event.recorded_at.to_rfc3339()
}

#[cfg(test)]
mod tests {
    use serin_schemas::records::EventKind;

    use super::*;
    use crate::message::tests::event;

    const URL: &str = "https://serin.example.com";
    const SENTENCE: &str = "roll back: for country=<!channel>, the canary's latency p99 is 90 ms & more";

    fn of(kind: Kind) -> Value {
        let event = event(EventKind::RolledBack, SENTENCE);
        body(kind, &Message::new(&event, URL))
    }

    #[test]
    fn a_webhook_has_type_timestamp_and_the_audit_event() {
        let body = of(Kind::Webhook);
        assert_eq!(
            (body["type"].as_str(), body["timestamp"].as_str()),
            (Some("rollout.rolled_back"), Some("2025-11-21T10:01:31Z"))
        );
        let data = &body["data"];
        assert_eq!((data["model"].as_str(), data["sentence"].as_str()), (Some("fraud"), Some(SENTENCE)));
        assert_eq!((data["canary"].as_str(), data["canary_answers"].as_i64()), (Some("2"), Some(12345)));
        assert_eq!(data["findings"][0]["metric"], "latency_p99");
        assert!(data["url"].as_str().is_some_and(|url| url.starts_with(URL)));
        assert!(data.get("state").is_none());
    }

    #[test]
    fn slack_gets_blocks_within_its_limits_and_nobody_is_mentioned() {
        let long = event(EventKind::RolledBack, &"<".repeat(10_000));
        for body in [of(Kind::Slack), body(Kind::Slack, &Message::new(&long, URL))] {
            let blocks = body["blocks"].as_array().unwrap();
            assert_eq!(
                blocks.iter().map(|block| block["type"].as_str().unwrap()).collect::<Vec<_>>(),
                ["header", "section", "section", "actions"]
            );
            assert!(blocks[0]["text"]["text"].as_str().unwrap().len() <= 150);
            assert!(blocks[2]["fields"].as_array().unwrap().len() <= 10);
            assert!(!body.to_string().contains('<'), "{body}");
        }
        let text = of(Kind::Slack)["blocks"][1]["text"]["text"].as_str().unwrap().to_owned();
        assert!(text.contains("&lt;!channel&gt;") && text.contains("&amp; more"), "{text}");
    }

    #[test]
    fn teams_gets_a_message_with_an_adaptive_card() {
        let body = of(Kind::Teams);
        assert_eq!(body["type"], "message");
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
        let card = &attachment["content"];
        assert_eq!((card["type"].as_str(), card["version"].as_str()), (Some("AdaptiveCard"), Some("1.4")));
        assert_eq!(card["body"][1]["inlines"][0]["text"], SENTENCE);
        assert_eq!(card["actions"][0]["type"], "Action.OpenUrl");
    }

    #[test]
    fn an_incident_is_opened_and_resolved_under_the_same_key() {
        let opened = of(Kind::Pagerduty);
        assert_eq!(
            (opened["event_action"].as_str(), opened["payload"]["severity"].as_str()),
            (Some("trigger"), Some("error"))
        );
        for required in ["summary", "source", "severity"] {
            assert!(opened["payload"][required].as_str().is_some_and(|text| !text.is_empty()), "{required}");
        }
        assert_eq!(opened["payload"]["custom_details"]["Metric"], "latency_p99, segment country=DE");
        let later = event(EventKind::Resumed, "continues");
        let resolved = pagerduty(&Message::new(&later, URL), Incident::Resolve);
        assert_eq!((&resolved["dedup_key"], &resolved["event_action"]), (&opened["dedup_key"], &json!("resolve")));
        assert_eq!(incident(On::Held, true), Some(Incident::Open));
        assert_eq!(incident(On::Resumed, false), Some(Incident::Resolve));
        assert_eq!(incident(On::Confirmed, false), None);
    }
}
