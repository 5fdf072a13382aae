//! Mirrors: their answers are recorded, never returned and never waited for; examples of pairs.

use std::time::{Duration, Instant};

use http::StatusCode;
use serin_schemas::records::{Arm, Capture, Prediction};

use crate::{
    harness::{Bench, Events, config, decoded, eventually, table, with_shadow},
    upstreams::{Reply, Server},
};

async fn three(shadow: Reply) -> (Server, Server, Server) {
    let stable = Server::start(Reply::probability("0.1")).await;
    (stable, Server::start(Reply::probability("0.9")).await, Server::start(shadow).await)
}

fn shadows(predictions: &[Prediction]) -> Vec<Prediction> {
    predictions.iter().filter(|found| found.arm == Arm::Shadow).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_gets_a_copy_and_its_answer_is_recorded_under_the_same_id() {
    let (stable, canary, shadow) = three(Reply::probability("0.7")).await;
    let bench = Bench::start(config()).await;
    bench.route(&with_shadow(table(1, &stable.url(), &canary.url(), (0, 10_000)), &shadow.url(), 10_000)).await;
    for _ in 0..10 {
        let got = bench.infer(&[]).await;
        assert_eq!(
            (got.header("x-model-version"), got.status),
            ("v1", StatusCode::OK),
            "the shadow's answer is not returned"
        );
    }
    let all = bench.predictions(20).await;
    let copies = shadows(&all);
    assert_eq!(copies.len(), 10);
    for copy in copies {
        let live = all.iter().find(|found| found.request_id == copy.request_id && found.arm == Arm::Control).unwrap();
        assert_eq!((live.outputs["p"], copy.outputs["p"]), (0.1, 0.7));
        assert_eq!((copy.version.as_str(), &copy.segments), ("v3", &live.segments));
        assert_eq!((copy.rollout, copy.generation), (live.rollout.clone(), live.generation));
    }
    let seen = shadow.seen();
    assert!(seen.iter().all(|seen| seen.headers["x-serin-mirror"] == "1" && seen.body == stable.seen()[0].body));
    assert!(stable.seen().iter().all(|seen| !seen.headers.contains_key("x-serin-mirror")));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_match_their_share_and_pinned_calls_are_not_copied() {
    let (stable, canary, shadow) = three(Reply::probability("0.7")).await;
    let bench = Bench::start(config()).await;
    bench.route(&with_shadow(table(1, &stable.url(), &canary.url(), (0, 10_000)), &shadow.url(), 2_500)).await;
    for _ in 0..400 {
        bench.infer(&[]).await;
        bench.infer(&[("x-model-version", "v1")]).await;
    }
    let share = eventually("all copies are answered", async || {
        let found = Events::read(&bench.log).predictions();
        let copies = shadows(&found).len();
        (found.len() == 800 + copies && copies == shadow.calls()).then_some(copies)
    })
    .await;
    // Four standard deviations of a binomial around 100.
    assert!((65..=135).contains(&share), "{share} of 400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_hangs_does_not_slow_calls_and_is_capped() {
    let slow = Reply { delay: Duration::from_secs(30), ..Reply::probability("0.7") };
    let (stable, canary, shadow) = three(slow).await;
    let bench = Bench::start(config()).await;
    let mut split = with_shadow(table(1, &stable.url(), &canary.url(), (0, 0)), &shadow.url(), 10_000);
    split.policy = r#"{"mirror":{"maxInFlight":3,"timeout":"200ms"}}"#.into();
    bench.route(&split).await;
    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(bench.infer(&[]).await.status, StatusCode::OK);
    }
    // If each call waited for its copy, the calls would take 10 s.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let copies = eventually("the copies end at their timeout", async || {
        let found = Events::read(&bench.log).predictions();
        let copies = shadows(&found);
        (found.len() - copies.len() == 50 && copies.len() == shadow.calls()).then_some(copies)
    })
    .await;
    assert!((3..50).contains(&copies.len()), "at most three at a time: {}", copies.len());
    assert!(copies.iter().all(|copy| copy.error.as_deref() == Some("timeout") && copy.status.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn further_shadows_are_reported_without_a_rollout() {
    let (stable, canary, shadow) = three(Reply::probability("0.7")).await;
    let bench = Bench::start(config()).await;
    let mut split = with_shadow(table(1, &stable.url(), &canary.url(), (0, 10_000)), &shadow.url(), 10_000);
    split.policy = r#"{"shadows":[{"version":"v3","share":"100%"}]}"#.into();
    bench.route(&split).await;
    bench.infer(&[]).await;
    let all = bench.predictions(2).await;
    assert_eq!(shadows(&all)[0].rollout, None);
    assert!(all.iter().any(|found| found.rollout.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_disagree_are_kept_and_redacted() {
    let (stable, canary, shadow) = three(Reply::probability("0.7")).await;
    let bench = Bench::start(config()).await;
    let mut split = with_shadow(table(1, &stable.url(), &canary.url(), (0, 10_000)), &shadow.url(), 10_000);
    split.policy = r#"{"capture":{"redact":["origin"],"perMinute":5,"maxBytes":400}}"#.into();
    bench.route(&split).await;
    for _ in 0..8 {
        bench.infer(&[]).await;
    }
    bench.predictions(16).await;
    let kept = eventually("examples", async || {
        let kept: Vec<(i32, Capture)> = decoded(&bench.log, "captures");
        (kept.len() == 5).then_some(kept)
    })
    .await;
    let (_, example) = &kept[0];
    assert_eq!(
        (example.reason.as_str(), &example.differences[..]),
        ("disagreement", &["p: 0.1 against 0.7".to_owned()][..])
    );
    let request: serde_json::Value = serde_json::from_str(example.request.as_ref().unwrap()).unwrap();
    assert_eq!(request["inputs"][0], serde_json::json!({"name": "origin", "data": "[redacted]"}));
    assert_eq!((example.live.arm, example.live.version.as_str()), (Arm::Control, "v1"));
    assert!(
        example.live.body.as_ref().unwrap().contains("0.1") && example.shadow.body.as_ref().unwrap().contains("0.7")
    );

    // Answers that agree are kept only at random.
    split.generation.0 = 2;
    split.routes[3].url = Some(stable.url());
    bench.route(&split).await;
    bench.infer(&[]).await;
    bench.predictions(18).await;
    assert_eq!(decoded::<Capture>(&bench.log, "captures").len(), 5);
}
