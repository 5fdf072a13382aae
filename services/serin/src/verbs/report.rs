//! `serin report`: the report of a rollout, and whether the log still has the events of a report.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use serin_controller::report::{
    audit,
    chain::{Chain, FORMAT, unhex},
};

use super::local::read;
use crate::{
    cli::{Report, ReportOutput},
    client::Api,
    exit, output, serve, settings,
};

/// Members of an event that are compared, in addition to its record.
const MEMBERS: [&str; 12] = [
    "id",
    "model",
    "rollout",
    "kind",
    "phase",
    "step",
    "canary_share",
    "generation",
    "at",
    "recorded_at",
    "actor",
    "sentence",
];

/// `serin report`.
pub(crate) async fn report(args: &Report) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.verify {
        return verify(args, file).await;
    }
    let api = Api::connect(&args.connection)?;
    let rollout = args.rollout.as_deref().context("name a model or a rollout")?;
    match args.output {
        ReportOutput::Json => output::json(&api.report(rollout, "json").await?)?,
        ReportOutput::Text => print(&api.report(rollout, "markdown").await?)?,
        ReportOutput::Html => print(&api.report(rollout, "html").await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a text of the API.
fn print(answer: &Value) -> anyhow::Result<()> {
    let text = answer.as_str().context("the controller's answer is not a text")?;
    output::line(text.trim_end());
    Ok(())
}

/// The chain in a report.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    rollout: String,
    /// The model, which only the JSON has.
    model: Option<String>,
    count: usize,
    head: String,
    /// The events, which only the JSON has.
    events: Option<Vec<Value>>,
}

impl Kept {
    /// The chain of a report in any of its forms.
    fn read(text: &str) -> anyhow::Result<Self> {
        if let Ok(report) = serde_json::from_str::<Value>(text) {
            let chain = &report["chain"];
            let name = |value: &Value| value.as_str().map(str::to_owned);
            if chain["format"] != FORMAT {
                bail!("it is JSON, but not a report of a rollout with a chain ({FORMAT})");
            }
            return Ok(Self {
                rollout: name(&report["rollout"]).context("it has no rollout")?,
                model: name(&report["model"]),
                count: chain["events"].as_u64().context("its chain has no number of events")? as usize,
                head: name(&chain["head"]).context("its chain has no head")?,
                events: Some(report["events"].as_array().context("it has no events")?.clone()),
            });
        }
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>')).collect();
        let mut lines = words.windows(4).filter(|words| words[0] == FORMAT);
        let found = lines.find_map(|words| {
            Some(Self {
                rollout: words[1].to_owned(),
                model: None,
                count: words[2].parse().ok()?,
                head: unhex(words[3]).map(|_| words[3].to_owned())?,
                events: None,
            })
        });
        found.with_context(|| format!("it is not a report: there is no line `{FORMAT} ROLLOUT EVENTS HEAD`"))
    }
}

async fn verify(args: &Report, file: &Path) -> anyhow::Result<ExitCode> {
    if args.output == ReportOutput::Html {
        bail!("--verify prints text or JSON");
    }
    let kept = Kept::read(&read(file)?).with_context(|| format!("{}", file.display()))?;
    let (source, now) = if args.log {
        let model = kept
            .model
            .clone()
            .context("with --log, give the report as JSON: the other forms do not name the model exactly")?;
        let settings = settings::load(&args.serve)?;
        let look = serve::open_log_read_only(&settings)?;
        let events = audit(&look.log, &model.as_str().into(), &kept.rollout.as_str().into())?;
        let events: Result<Vec<Value>, _> = events.iter().map(serde_json::to_value).collect();
        ("the log", events?)
    } else {
        let report = Api::connect(&args.connection)?.report(&kept.rollout, "json").await?;
        ("the controller", report["events"].as_array().context("the controller's answer has no events")?.clone())
    };
    let found = differences(&kept, &now);
    let newer = now.len().saturating_sub(kept.count);
    if args.output == ReportOutput::Json {
        output::json(&json!({
            "rollout": kept.rollout, "events": kept.count, "head": kept.head, "newer": newer, "same": found.is_empty(), "differences": found,
        }))?;
    } else if found.is_empty() {
        let later = if newer > 0 { format!("; {newer} newer since then") } else { String::new() };
        output::text(format!("{}: {source} has the same {} events{later}", kept.rollout, kept.count));
    } else {
        output::text(format!("{}: the report and {source} differ", kept.rollout));
        for one in &found {
            output::text(format!("- {one}"));
        }
    }
    Ok(exit::done_if(found.is_empty()))
}

/// The links of a chain over events with these records; `None` for an event without one.
fn links(rollout: &str, events: &[Value]) -> Vec<Option<String>> {
    let mut chain = Chain::of(&rollout.into());
    let link = |event: &Value| {
        chain.add(unhex(event["record"].as_str()?)?);
        Some(chain.head())
    };
    events.iter().map(link).collect()
}

/// What differs between a report and the events `now`, in sentences.
fn differences(kept: &Kept, now: &[Value]) -> Vec<String> {
    let links_now = links(&kept.rollout, now);
    let Some(events) = &kept.events else {
        let head = if kept.count == 0 { Some(Chain::of(&kept.rollout.as_str().into()).head()) } else { None };
        let head = head.or_else(|| links_now.get(kept.count.wrapping_sub(1)).cloned().flatten());
        return match head {
            Some(head) if head == kept.head => Vec::new(),
            Some(head) => vec![format!(
                "the first {} events give the head {head}, and the report has {}; the report as JSON would show which event differs",
                kept.count, kept.head
            )],
            None => vec![format!("the report has {} events, and there are only {} now", kept.count, now.len())],
        };
    };
    let mut found = Vec::new();
    if kept.count != events.len() {
        found.push(format!(
            "the chain of the report is over {} events, and the report has {}",
            kept.count,
            events.len()
        ));
    }
    let own = links(&kept.rollout, events);
    for (place, (event, link)) in events.iter().zip(&own).enumerate() {
        let number = place + 1;
        if link.as_deref() != event["link"].as_str() {
            found.push(format!("event {number}: its link in the report does not follow from the records before it"));
            break;
        }
    }
    if own.last().cloned().flatten().is_some_and(|head| head != kept.head) {
        found.push("the head of the report does not follow from its events".to_owned());
    }
    for (place, event) in events.iter().enumerate() {
        let number = place + 1;
        let sentence = |event: &Value| event["sentence"].as_str().unwrap_or("?").to_owned();
        let Some(other) = now.get(place) else {
            found.push(format!("event {number} is missing now: {}", sentence(event)));
            continue;
        };
        let differs = MEMBERS.iter().filter(|member| event[**member] != other[**member]);
        let differs: Vec<String> = differs
            .map(|member| format!("{member} is {} in the report and {} now", event[*member], other[*member]))
            .collect();
        if !differs.is_empty() {
            found.push(format!("event {number}: {}", differs.join(", ")));
        } else if event["record"] != other["record"] {
            found.push(format!(
                "event {number}: the record is another one, in a part that the report does not show: {}",
                sentence(other)
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serin_controller::report::chain::{digest, hex};

    use super::*;

    fn events(sentences: &[&str]) -> Vec<Value> {
        let mut chain = Chain::of(&"r1".into());
        let event = |(place, sentence): (usize, &&str)| {
            let record = digest(sentence.as_bytes());
            chain.add(record);
            json!({"number": place + 1, "record": hex(&record), "link": chain.head(), "actor": "ada", "sentence": sentence})
        };
        sentences.iter().enumerate().map(event).collect()
    }

    fn report(events: &[Value]) -> Value {
        let head = events
            .last()
            .map_or_else(|| Chain::of(&"r1".into()).head(), |last| last["link"].as_str().unwrap().to_owned());
        let chain = json!({"format": FORMAT, "events": events.len(), "head": head});
        json!({"rollout": "r1", "model": "m", "events": events, "chain": chain})
    }

    fn kept(report: &Value) -> Kept {
        Kept::read(&report.to_string()).unwrap()
    }

    #[test]
    fn the_same_events_and_newer_ones_do_not_differ() {
        let now = events(&["started", "paused", "aborted"]);
        for count in 0..=3 {
            let report = report(&now[..count]);
            assert_eq!(differences(&kept(&report), &now), Vec::<String>::new(), "{count}");
            let head = report["chain"]["head"].as_str().unwrap();
            for text in [format!("    {FORMAT} r1 {count} {head}\n"), format!("<pre>{FORMAT} r1 {count} {head}</pre>")]
            {
                let kept = Kept::read(&text).unwrap();
                assert_eq!((kept.events.as_ref(), differences(&kept, &now)), (None, Vec::new()), "{text}");
            }
        }
    }

    #[test]
    fn each_difference_is_named() {
        let now = events(&["started", "paused", "aborted"]);
        let of = |report: &Value| differences(&kept(report), &now).join("\n");
        let all = report(&now);
        // Someone wrote another event to the topic, or removed one.
        let other = events(&["started", "resumed", "aborted"]);
        let text = of(&report(&other));
        assert!(text.contains("event 2: sentence is \"resumed\" in the report and \"paused\" now"), "{text}");
        assert!(!text.contains("event 3: sentence"), "{text}");
        let text = of(&report(&events(&["started", "paused", "aborted", "confirmed"])));
        assert_eq!(text, "event 4 is missing now: confirmed");
        // Someone edited the report.
        let mut edited = all.clone();
        edited["events"][1]["actor"] = json!("eve");
        assert_eq!(of(&edited), "event 2: actor is \"eve\" in the report and \"ada\" now");
        let mut edited = all.clone();
        edited["events"].as_array_mut().unwrap().remove(1);
        let text = of(&edited);
        assert!(text.contains("over 3 events, and the report has 2") && text.contains("event 2: its link"), "{text}");
        let mut edited = all.clone();
        edited["chain"]["head"] = json!("00");
        assert_eq!(of(&edited), "the head of the report does not follow from its events");
        let mut edited = all;
        edited["events"][0]["record"] = edited["events"][1]["record"].clone();
        let text = of(&edited);
        assert!(text.contains("event 1: the record is another one"), "{text}");
        // A text has the head only.
        let line = |count: usize, head: &str| Kept::read(&format!("{FORMAT} r1 {count} {head}")).unwrap();
        let head = other[2]["link"].as_str().unwrap();
        assert!(differences(&line(3, head), &now)[0].contains("the first 3 events give the head"));
        assert!(differences(&line(4, head), &now)[0].contains("has 4 events, and there are only 3 now"));
    }

    #[test]
    fn a_file_that_is_not_a_report_is_refused() {
        for (text, expected) in [
            ("", "it is not a report"),
            ("{}", "not a report of a rollout"),
            ("serin.chain/v1 r1 many ff", "it is not a report"),
            (r#"{"chain": {"format": "serin.chain/v1"}}"#, "it has no rollout"),
        ] {
            let error = format!("{:#}", Kept::read(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
