//! The report of a rollout in its three forms, and the hash chain over its audit events.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;
#[path = "support/world.rs"]
mod world;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use serin_controller::{
    Config,
    report::{
        audit,
        chain::{Chain, digest, unhex},
    },
};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, ArmSummary, Decision, Estimate, MetricResult, MetricVerdict, Reason, Segment, Verdict},
};
use serin_stream::record::Outgoing;
use sha2::{Digest as _, Sha256};
use support::{SPEC, outgoing, verdict};
use tower::ServiceExt as _;
use world::{NOW_MS, WAIT_MS, World};

/// A text that would be a script on a page and a link in Markdown.
const HOSTILE: &str = "<script>alert('x')</script> | [a](javascript:b) \"quoted\"";

fn metric(golden: &Verdict, name: &str, segment: Segment, effect: f64, half: f64) -> MetricVerdict {
    MetricVerdict {
        metric: name.into(),
        segment,
        result: if effect - half > 0.02 { MetricResult::Fail } else { MetricResult::Undecided },
        no_data: None,
        canary: Estimate { n: 1000, value: Some(0.05 + effect) },
        control: Estimate { n: 2000, value: Some(0.05) },
        effect: Some(effect),
        effect_low: Some(effect - half),
        effect_high: Some(effect + half),
        margin: Some(0.02),
        limit_pass: None,
        limit_fail: None,
        ..golden.metrics[0].clone()
    }
}

/// A rollout that a person pauses, and that the evidence in one segment ends.
async fn rolled_back(world: &World) -> String {
    let id = world.apply(SPEC).await;
    let golden: Verdict = serde_json::from_str(include_str!("../../../schemas/tests/golden/verdict.v5.json")).unwrap();
    let mut warm = verdict(&id, 1, 10, Decision::Promote);
    warm.frozen = Some(r#"{"segments":{},"warmupEvents":1000}"#.into());
    world.write(outgoing::<Verdict>("verdicts", &warm));
    let (_, news) = world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    assert_eq!(news["events"][0]["kind"], "advanced");
    let body = json!({"reason": HOSTILE}).to_string();
    for verb in ["pause", "resume"] {
        let path = format!("/v1/rollouts/{id}/{verb}?wait_ms={WAIT_MS}");
        assert_eq!(world.post(&path, body.clone()).await.0, StatusCode::OK);
    }
    let lga = Segment::of("origin", "LGA");
    for number in 1..=40_i64 {
        let half = 0.2 / number as f64;
        let effect = 0.002 * number as f64;
        let mut judged = verdict(&id, 2, 10 + 60 * number, Decision::Continue);
        judged.metrics = vec![
            metric(&golden, "wrong", Segment::all(), effect / 10.0, half),
            metric(&golden, "wrong", lga.clone(), effect, half),
            metric(&golden, "wrong", Segment::of("origin", "JFK"), 0.0, half),
        ];
        let arm = |arm, predictions| ArmSummary { arm, predictions, ..golden.arms[0].clone() };
        judged.arms = vec![arm(Arm::Canary, 100 * number), arm(Arm::Control, 200 * number)];
        if number == 40 {
            judged.decision = Decision::Rollback;
            let sentence = "for origin=LGA, more answers are wrong".to_owned();
            judged.reasons = vec![Reason { metric: "wrong".into(), segment: lga.clone(), sentence }];
            judged.sentence = "roll back: for origin=LGA, more answers are wrong".into();
        }
        let record = outgoing::<Verdict>("verdicts", &judged);
        world.write(Outgoing { timestamp_ms: Some(NOW_MS + number), ..record });
    }
    let ended = async {
        while world.get(&format!("/v1/rollouts/{id}")).await.1["phase"] != "rolled_back" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(WAIT_MS), ended).await.unwrap();
    id
}

#[tokio::test]
async fn the_report_says_who_what_when_and_on_which_evidence() {
    let world = World::new(Config::default());
    let id = rolled_back(&world).await;
    let (status, report) = world.get(&format!("/v1/rollouts/{id}/report")).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    assert_eq!((&report["rollout"], &report["outcome"]), (&json!(id), &json!("evidence")));
    assert_eq!((&report["started"]["by"], &report["ended"]["by"]), (&json!("operator"), &json!("analyzer")));
    assert_eq!(report["spec"]["steps"].as_array().unwrap().len(), 2);
    let shares: Vec<i64> =
        report["steps"].as_array().unwrap().iter().map(|step| step["canary_share"].as_i64().unwrap()).collect();
    assert_eq!(shares, [0, 500, 0]);
    let people = report["people"].as_array().unwrap();
    let acts: Vec<_> = people.iter().map(|act| (&act["action"], &act["kind"], &act["reason"])).collect();
    let reason = json!(HOSTILE);
    let kind = json!("override");
    assert_eq!(acts, [(&json!("pause"), &kind, &reason), (&json!("resume"), &kind, &reason)]);
    let evidence = &report["evidence"];
    assert_eq!((&evidence["decided"], &evidence["decision"]), (&json!(true), &json!("rollback")));
    assert_eq!(evidence["reasons"][0]["segment"]["value"], "LGA");
    // Every verdict has a point, with the check that decided in its segment, and without other segments.
    let points = report["series"]["points"].as_array().unwrap();
    assert_eq!((points.len(), &report["series"]["seen"]), (41, &json!(41)));
    let segments: Vec<&Value> =
        points[40]["metrics"].as_array().unwrap().iter().map(|metric| &metric["segment"]["value"]).collect();
    assert_eq!((segments, &points[40]["canary_share"]), (vec![&json!(""), &json!("LGA")], &json!(500)));
    // 1000 answers, eight points worse.
    let harmed = &report["calls"]["harmed"][0];
    assert_eq!((harmed["calls"].as_f64().unwrap().round(), &harmed["answers"]), (80.0, &json!(1000)));
    assert_eq!(report["notes"], json!([]));
    assert_eq!(world.get("/v1/rollouts/unknown/report").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.get(&format!("/v1/rollouts/{id}/report?format=pdf")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_chain_is_that_of_the_records_on_the_log() {
    let world = World::new(Config::default());
    let id = rolled_back(&world).await;
    let (_, report) = world.get(&format!("/v1/rollouts/{id}/report")).await;
    let events = report["events"].as_array().unwrap();
    assert_eq!(report["chain"]["events"], json!(events.len()));
    let mut chain = Chain::of(&id.as_str().into());
    for event in events {
        chain.add(unhex(event["record"].as_str().unwrap()).unwrap());
        assert_eq!(event["link"], chain.head());
    }
    assert_eq!(report["chain"]["head"], chain.head());

    let from_log = audit(&world.log, &"flights".into(), &id.as_str().into()).unwrap();
    let records: Vec<&str> = from_log.iter().map(|linked| linked.record.as_str()).collect();
    let reported: Vec<&str> = events.iter().map(|event| event["record"].as_str().unwrap()).collect();
    assert_eq!(records, reported);
    assert_ne!(unhex(records[0]).unwrap(), digest(b""));
    // A newer event continues the chain.
    let path = format!("/v1/rollouts/{id}/retry?wait_ms={WAIT_MS}");
    world.post(&path, r#"{"reason": "again"}"#).await;
    let after = audit(&world.log, &"flights".into(), &id.as_str().into()).unwrap();
    assert_eq!(after[..from_log.len()], from_log);
}

#[tokio::test]
async fn the_page_is_one_file_without_scripts_and_its_policy_allows_only_its_style() {
    let world = World::new(Config::default());
    let id = rolled_back(&world).await;
    let request = Request::get(format!("/v1/rollouts/{id}/report?format=html")).body(Body::empty()).unwrap();
    let response = world.routes.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let page = response.into_body().collect().await.unwrap().to_bytes();
    let page = String::from_utf8(page.to_vec()).unwrap();
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = STANDARD.encode(Sha256::digest(style));
    assert!(
        policy.contains(&format!("style-src 'sha256-{hash}';")) && policy.starts_with("default-src 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && policy.ends_with("sandbox"), "{policy}");
    let lower = page.to_lowercase();
    for inline in
        ["<script", " style=", " onload=", " onclick=", "javascript:b\"", "http://", "https://", "<link", "<img"]
    {
        // The rollout file has addresses, as text.
        let text = lower.replace("http://localhost", "");
        assert!(!text.contains(inline), "{inline}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"), "the reason is shown as text");
    // One picture per check of which there is an interval, the one that decided first, with names and units of its axes.
    assert_eq!(page.matches("<svg ").count(), 2);
    let first = page.split_once("<figcaption>").unwrap().1;
    assert!(first.starts_with("wrong, origin=LGA"), "{}", &first[..60]);
    for text in ["canary - control (points)", "event time (UTC", ">margin<", ">failed<", "class=\"band\"", "5%"] {
        assert!(first.contains(text), "{text}");
    }
    let pictures: String = page.split("<svg ").skip(1).map(|rest| rest.split("</svg>").next().unwrap()).collect();
    assert!(!pictures.contains("NaN") && !pictures.contains("inf"), "a number of a picture is not finite");
}

#[tokio::test]
async fn the_report_as_markdown_has_the_same_facts_as_text() {
    let world = World::new(Config::default());
    let id = rolled_back(&world).await;
    let (status, text) = world.get(&format!("/v1/rollouts/{id}/report?format=markdown")).await;
    let text = text.as_str().unwrap().to_owned();
    assert_eq!(status, StatusCode::OK);
    let (_, report) = world.get(&format!("/v1/rollouts/{id}/report")).await;
    let chain =
        format!("serin.chain/v1 {id} {} {}", report["chain"]["events"], report["chain"]["head"].as_str().unwrap());
    for expected in [
        "# Rollout report: flights, v1 to v2",
        "**Rolled back on evidence.** for origin=LGA, more answers are wrong",
        "## The evidence that decided",
        "## Blast radius",
        "about 80 of 1000 answers of v2 were bad that would not have been with v1",
        &format!("serin replay --config serin.yaml -f rollout.yaml --rollout {id}"),
        &chain,
        "&lt;script>alert('x')&lt;/script> \\| \\[a\\](javascript:b)",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    // A head follows an empty line, or it would be a row of the table before it.
    assert!(
        text.split("\n## ").skip(1).all(|part| !part.is_empty())
            && text.matches("\n## ").count() == text.matches("\n\n## ").count()
    );
    // Each table has as many cells in each row as its head.
    for table in text.split("\n\n").filter(|part| part.trim_start().starts_with('|')) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let first = cells(table.trim_start().lines().next().unwrap());
        assert!(table.trim().lines().all(|line| cells(line) == first), "{table}");
    }
}

#[tokio::test]
async fn a_rollout_that_runs_and_one_without_verdicts_have_reports() {
    let world = World::new(Config::default());
    let id = world.apply(SPEC).await;
    let (_, report) = world.get(&format!("/v1/rollouts/{id}/report")).await;
    assert_eq!((&report["outcome"], &report["ended"], &report["evidence"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(report["chain"]["events"], json!(1));
    for format in ["html", "markdown"] {
        let (status, text) = world.get(&format!("/v1/rollouts/{id}/report?format={format}")).await;
        assert!(status == StatusCode::OK && text.as_str().unwrap().contains("Warming up"), "{text}");
    }
    // A promotion by a person is decided by no verdict.
    let warm = Verdict {
        frozen: Some(r#"{"segments":{},"warmupEvents":1000}"#.into()),
        as_of: EventTime::from_secs(10),
        ..verdict(&id, 1, 10, Decision::Promote)
    };
    world.write(outgoing::<Verdict>("verdicts", &warm));
    world.get(&format!("/v1/rollouts/{id}/events?after=1&wait_ms={WAIT_MS}")).await;
    let path = format!("/v1/rollouts/{id}/promote?wait_ms={WAIT_MS}");
    assert_eq!(world.post(&path, r#"{"full": true, "reason": "seen enough"}"#).await.0, StatusCode::OK);
    let (_, report) = world.get(&format!("/v1/rollouts/{id}/report")).await;
    assert_eq!((&report["outcome"], &report["evidence"]["decided"]), (&json!("promoted"), &json!(false)));
    assert_eq!((&report["ended"]["by"], &report["people"][0]["action"]), (&json!("operator"), &json!("promote_full")));
}
