//! What the console gets from a running `serin up`: the page, sessions, the event stream, verdicts over time and plans.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Demo, PATIENCE, Pipeline, REPLAY, SERIN, alone, http, http_with, three_outcomes};

const TOKEN: &str = "operator-0123456789";

/// One message of the event stream.
#[derive(Debug)]
struct Message {
    event: String,
    id: Option<String>,
    data: Value,
}

/// Reads the event stream until a message is `last`, and returns all of them.
fn stream(url: &str, headers: &[(&str, &str)], last: impl Fn(&Message) -> bool) -> Vec<Message> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = async {
        let client = reqwest::Client::new();
        let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(*name, *value));
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let (mut text, mut messages) = (String::new(), Vec::new());
        while let Some(chunk) = response.chunk().await.unwrap() {
            // A chunk may end within a character of a sentence.
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((one, rest)) = text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut fields = one.lines().filter_map(|line| line.split_once(": "));
                    fields.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
                };
                let data = serde_json::from_str(&field("data").unwrap()).unwrap();
                messages.push(Message { event: field("event").unwrap(), id: field("id"), data });
                text = rest.to_owned();
                if messages.last().is_some_and(&last) {
                    return messages;
                }
            }
        }
        panic!("the stream ended: {messages:?}")
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, read).await.unwrap() })
}

#[test]
fn the_demo_is_followed_in_the_stream_and_shown_again_after_a_restart_with_tokens() {
    let _alone = alone();
    let mut pipeline = Pipeline::embedded(&REPLAY).unwrap();
    let demo = Demo::start(&["--seed", "1", "--attach", &pipeline.doors()]).unwrap();
    // The stream starts before there is a rollout, and ends when the last of the three has ended.
    let messages = stream(&format!("{}/v1/stream", pipeline.api()), &[], |message| {
        message.event == "rollout" && message.data["canary"] == "v4" && message.data["phase"] == "rolled_back"
    });
    three_outcomes(&demo.finish(PATIENCE * 4).unwrap());
    assert_eq!(messages[0].event, "snapshot");
    let of = |canary: &str, member: &str| -> Vec<Value> {
        let changes = messages.iter().filter(|message| message.event == "rollout" && message.data["canary"] == canary);
        let mut values: Vec<Value> = changes.map(|message| message.data[member].clone()).collect();
        values.dedup();
        values
    };
    assert_eq!(of("v2", "phase").last(), Some(&json!("completed")));
    assert_eq!(of("v3", "outcome").last(), Some(&json!("evidence")));
    assert!(of("v3", "step").iter().all(Value::is_i64), "{:?}", of("v3", "step"));
    let position = messages.iter().rev().find_map(|message| message.id.clone()).unwrap();

    let rollouts = pipeline.ask("/v1/rollouts").unwrap();
    let id =
        rollouts.as_array().unwrap().iter().find(|state| state["spec"]["canary"]["version"] == "v3").unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
    let before = pipeline.ask(&format!("/v1/rollouts/{id}/verdicts")).unwrap();
    let points = before["points"].as_array().unwrap();
    assert!(points.len() > 10 && before["complete"] == true, "{before}");
    assert_eq!(points.last().unwrap()["decision"], "rollback");
    assert!(points.iter().any(|point| point["canary_share"] == 1000), "{before}");
    let judged =
        |point: &Value| point["metrics"].as_array().unwrap().iter().any(|metric| metric["effect_low"].is_f64());
    assert!(points.iter().any(judged), "{before}");
    let matrix = pipeline.ask(&format!("/v1/rollouts/{id}/segments")).unwrap();
    let rows = matrix["rows"].as_array().unwrap();
    let lga = rows.iter().find(|row| row["segment"]["value"] == "LGA").unwrap();
    let wrong = matrix["metrics"].as_array().unwrap().iter().position(|name| name == "wrong_rate").unwrap();
    assert_eq!(lga["cells"][wrong]["result"], "fail", "{matrix}");
    assert!(lga["cells"][wrong]["suspect"] == true && rows[0]["cells"][wrong]["suspect"] == false, "{matrix}");
    let state = pipeline.ask(&format!("/v1/rollouts/{id}")).unwrap();
    assert_eq!(state["headline"]["tone"], "bad");
    assert!(state["headline"]["text"].as_str().unwrap().starts_with("flights: ROLLED BACK: v3"), "{state}");

    plan_equals_the_command_line(&pipeline);

    // Restarted with tokens: the page is open, the rest needs a session. The series is read back from the log.
    pipeline.stop("up").unwrap();
    let tokens =
        ["--set", "controller.tokens.ada.role=operator", "--set", "controller.tokens.ada.token=operator-0123456789"];
    pipeline.start_with("up", &tokens).unwrap();
    pipeline.ready().unwrap();
    let page = http(Method::GET, &pipeline.api(), None).unwrap();
    assert!(page.status == 200 && page.text.contains("/console/app.js"), "{page:?}");
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"), "{page:?}");
    assert_eq!(pipeline.ask(&format!("/v1/rollouts/{id}/verdicts")), None);
    let session = format!("{}/v1/session", pipeline.api());
    let signed_in = http(Method::POST, &session, Some(&json!({"token": TOKEN}))).unwrap();
    assert_eq!((signed_in.status, signed_in.json().unwrap()["name"].clone()), (200, json!("ada")));
    let cookie = signed_in.headers["set-cookie"].split(';').next().unwrap().to_owned();
    let api = pipeline.api();
    let own = [("cookie", cookie.as_str()), ("origin", api.as_str())];
    let after = http_with(Method::GET, &format!("{}/v1/rollouts/{id}/verdicts", pipeline.api()), &own, None).unwrap();
    let after = after.json().unwrap();
    assert_eq!(after["points"], before["points"]);
    // The id is of the process before.
    let resumed = [own[0], ("last-event-id", position.as_str())];
    let url = format!("{}/v1/stream?rollout={id}", pipeline.api());
    let messages = stream(&url, &resumed, |message| message.event == "verdict");
    let events: Vec<&str> = messages.iter().map(|message| message.event.as_str()).collect();
    assert_eq!((events[0], events.contains(&"state")), ("snapshot", true), "{events:?}");
    assert_eq!(messages.last().unwrap().data, *points.last().unwrap());
    let stop = http_with(Method::POST, &format!("{}/v1/stop-all", pipeline.api()), &own, Some(b"{}".to_vec())).unwrap();
    assert!(stop.status == 200 || stop.status == 202, "{stop:?}");
    let foreign = [own[0], ("origin", "http://127.0.0.1:1")];
    let refused = http_with(Method::POST, &format!("{}/v1/stop-all", pipeline.api()), &foreign, Some(b"{}".to_vec()));
    assert_eq!(refused.unwrap().json().unwrap()["code"], "foreign_origin");
    // A stream does not delay the end of the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = reqwest::Client::new().get(format!("{api}/v1/stream")).header("cookie", &cookie);
    let mut open = runtime.block_on(request.send()).unwrap();
    assert_eq!(open.status().as_u16(), 200);
    pipeline.stop("up").unwrap();
    runtime.block_on(async { while let Ok(Some(_)) = open.chunk().await {} });
}

fn plan_equals_the_command_line(pipeline: &Pipeline) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rollout.yaml");
    let printed = Command::new(SERIN).args(["plan", "-f", file, "--traffic", "100/s", "--output", "json"]).output();
    let printed: Value = serde_json::from_slice(&printed.unwrap().stdout).unwrap();
    let url = format!("{}/v1/plan?per_second=100", pipeline.api());
    let served = http_with(Method::POST, &url, &[], Some(std::fs::read(file).unwrap())).unwrap().json().unwrap();
    assert_eq!((&served["valid"], &served["forecast"]), (&json!(true), &printed), "{served}");
}
