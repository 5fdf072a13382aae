//! The outcomes of the demo: three rollouts end as expected and for the right reason, on the embedded log and on Apache Kafka.

mod support;

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use serin_tests::kafka::Broker;

use support::{Demo, alone, three_outcomes};

/// Maximum duration of the demo on Kafka.
const WITHIN: Duration = Duration::from_mins(6);

fn run(arguments: &[&str]) -> Result<Value> {
    let _alone = alone();
    Demo::start(arguments)?.finish(WITHIN)
}

/// Checks that every field that scripts may rely on is present and has its type.
fn check_shape(summary: &Value) {
    let rollouts = summary["rollouts"].as_array().expect("a list of rollouts");
    for rollout in rollouts {
        for text in ["model", "stable", "canary", "outcome"] {
            assert!(rollout[text].as_str().is_some_and(|text| !text.is_empty()), "{text} in {rollout}");
        }
        for text in ["metric", "segment", "sentence"] {
            assert!(rollout["reason"][text].is_string(), "reason.{text} in {rollout}");
        }
        for count in ["requests", "canary_requests", "hurt_requests"] {
            assert!(rollout[count].is_u64(), "{count} in {rollout}");
        }
        for span in ["seconds_to_decision_event_time", "seconds_to_decision_wall", "seconds_from_window_end_to_weight"]
        {
            assert!(rollout[span].as_f64().is_some_and(|seconds| seconds > 0.0), "{span} in {rollout}");
        }
    }
    let sum: u64 = rollouts.iter().filter_map(|rollout| rollout["requests"].as_u64()).sum();
    assert_eq!(summary["requests"].as_u64(), Some(sum));
    assert!(summary["table_apply"]["count"].as_u64().is_some_and(|count| count >= rollouts.len() as u64), "{summary}");
}

/// Checks that the figures of seed 1 are those of docs/demo.md, on every machine and log.
fn check_figures(summary: &Value) {
    let page = include_str!("../../../docs/demo.md");
    let documented: Vec<&str> =
        page.lines().filter_map(|line| line.trim().strip_prefix("blast radius")).map(str::trim).collect();
    let found = summary["rollouts"].as_array().expect("a list of rollouts").iter().map(|rollout| {
        let [canary, all, hurt] = ["canary_requests", "requests", "hurt_requests"].map(|count| &rollout[count]);
        format!("canary served {canary} of {all} requests; {hurt} got a worse answer than stable would have given")
    });
    assert_eq!(documented, found.collect::<Vec<_>>());
    let why: Vec<&str> = page.lines().filter_map(|line| line.trim().strip_prefix("why ")).map(str::trim).collect();
    let found = summary["rollouts"].as_array().expect("a list of rollouts").iter();
    assert_eq!(
        why,
        found.map(|rollout| rollout["reason"]["sentence"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    );
}

#[test]
fn a_good_version_is_promoted_and_two_bad_ones_are_rolled_back() -> Result<()> {
    let summary = run(&["--seed", "1"])?;
    assert_eq!((&summary["log"], &summary["seed"]), (&"embedded".into(), &1.into()));
    check_shape(&summary);
    three_outcomes(&summary);
    check_figures(&summary);
    Ok(())
}

#[test]
fn outcomes_are_the_same_with_one_process_per_role_on_kafka() -> Result<()> {
    let summary = run(&["--seed", "1", "--kafka", Broker::shared()?.bootstrap()])?;
    assert_eq!(summary["log"], "kafka");
    check_shape(&summary);
    three_outcomes(&summary);
    check_figures(&summary);
    Ok(())
}

#[test]
fn a_version_against_itself_is_promoted() -> Result<()> {
    let summary = run(&["--scenario", "aa"])?;
    check_shape(&summary);
    let rollouts = summary["rollouts"].as_array().context("rollouts")?;
    assert_eq!(rollouts.len(), 1);
    assert_eq!((&rollouts[0]["canary"], &rollouts[0]["outcome"]), (&"v1".into(), &"promoted".into()), "{summary}");
    Ok(())
}

#[test]
fn of_500_rollouts_of_equal_versions_at_most_5_are_rolled_back_on_evidence() -> Result<()> {
    let result = run(&["--scenario", "aa", "--rollouts", "500"])?;
    let counts = &result[0]["counts"];
    println!("{counts}");
    let count = |name: &str| counts[name].as_u64().with_context(|| format!("{name} in {counts}"));
    assert_eq!(count("rollouts")?, 500);
    assert!(count("rolled_back_on_evidence")? <= 5, "{counts}");
    let ends = ["promoted", "rolled_back_on_evidence", "inconclusive", "unfinished"];
    assert_eq!(ends.into_iter().map(count).sum::<Result<u64>>()?, 500, "{counts}");
    Ok(())
}
