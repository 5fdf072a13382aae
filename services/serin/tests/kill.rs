//! `kill -9` in the middle of the demo, then a restart: the outcomes are the same, and windows match the events exactly.

#![expect(clippy::print_stdout, reason = "prints figures")]

mod support;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serin_tests::kafka::{Broker, unique_prefix};

use support::{Demo, Moment, Pipeline, REPLAY, alone, oracle, three_outcomes};

/// Maximum duration of a demo with kills.
const WITHIN: Duration = Duration::from_mins(4);

/// Shortest time of a window of the demo. A rollout has more than ten windows, so each of its phases is seen while it lasts.
const PACE: &str = "300ms";

/// Runs the demo on `pipeline`. At each moment, kills the given process and restarts it.
fn demo_with_kills(pipeline: &mut Pipeline, kills: &[(Moment, &'static str)]) -> Result<()> {
    let mut demo = Demo::start(&["--seed", "1", "--pace", PACE, "--attach", &pipeline.doors()])?;
    for (moment, process) in kills {
        moment.wait(pipeline, &mut demo)?;
        let killed = Instant::now();
        pipeline.kill(process)?;
        pipeline.start(process)?;
        pipeline.ready()?;
        println!("{process} killed at {moment:?}, ready again after {:.2} s", killed.elapsed().as_secs_f64());
    }
    let summary = demo.finish(WITHIN)?;
    three_outcomes(&summary);
    pipeline.stop_all()?;
    let report = oracle::compare(&pipeline.tail("events")?, &pipeline.tail("windows")?)?;
    assert_eq!(report.stale, 0, "a killed process wrote after its successor");
    let requests = summary["requests"].as_u64().context("requests")?;
    let lost = requests.checked_sub(report.requests as u64).context("more events than requests")?;
    let twice = report.predictions - report.requests;
    println!("client requests {requests} - events = {lost}; {twice} requests answered twice; {report:?}");
    Ok(())
}

const fn at(rollout: usize, step: i64) -> Moment {
    Moment { rollout, step }
}

#[test]
fn the_whole_of_serin_up_is_killed_in_every_phase() -> Result<()> {
    let _alone = alone();
    let mut pipeline = Pipeline::embedded(&REPLAY)?;
    let moments = [at(1, -1), at(1, 0), at(1, 2), at(2, -1), at(2, 0), at(3, -1), at(3, 0)];
    demo_with_kills(&mut pipeline, &moments.map(|moment| (moment, "up")))
}

#[test]
fn each_role_is_killed_in_turn_on_kafka() -> Result<()> {
    let _alone = alone();
    let prefix = unique_prefix("kill");
    // With static group membership, the group does not wait for the session timeout of the killed process.
    let settings = [&REPLAY[..], &["log.kafka.instance=one"]].concat();
    let mut pipeline = Pipeline::kafka(Broker::shared()?.bootstrap(), &prefix, &settings)?;
    let kills = [
        (at(1, -1), "aggregator"),
        (at(1, -1), "controller"),
        (at(1, 0), "router"),
        (at(1, 1), "analyzer"),
        (at(2, -1), "router"),
        (at(2, 0), "controller"),
        (at(2, 0), "aggregator"),
        (at(3, -1), "analyzer"),
        (at(3, 0), "aggregator"),
    ];
    demo_with_kills(&mut pipeline, &kills)
}
