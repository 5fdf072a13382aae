//! The rollouts of the demo, one after the other, each on its third of the year.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::json;
use serin_rollout::{Outcome, RolloutState};
use serin_schemas::{
    ids::{EventTime, Generation, Span},
    records::Verdict,
};

use super::{
    data::{self, FlightRecord},
    model::Models,
    replay::Replay,
    stuck::Seen,
    tally::Tally,
    view::{View, decided},
};
use crate::{cli::Scenario, client::Api};

/// The model's name.
pub(super) const MODEL: &str = "flights";
/// Length of a window, as in the demo's rollout file.
pub(super) const WINDOW: Span = Span(6 * 3600 * 1_000_000);
/// Longest time for a window to pass through the pipeline, including restarts of its parts.
const TIMEOUT: Duration = Duration::from_mins(2);
/// Pause between two checks of the pipeline's progress.
const LOOK: Duration = Duration::from_millis(2);

/// One rollout to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chapter {
    /// The version that serves.
    pub(super) stable: &'static str,
    /// The version on trial.
    pub(super) canary: &'static str,
}

/// The rollouts of a scenario.
pub(super) fn chapters(scenario: Scenario) -> &'static [Chapter] {
    match scenario {
        Scenario::Main => &[
            Chapter { stable: "v1", canary: "v2" },
            Chapter { stable: "v2", canary: "v3" },
            Chapter { stable: "v2", canary: "v4" },
        ],
        Scenario::Aa => &[Chapter { stable: "v1", canary: "v1" }],
    }
}

/// The versions of a scenario, their planted faults and the expected results.
pub(crate) fn about(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Main => {
            "Each recorded flight is a request at its departure: will it arrive more than 15 minutes late? The feedback follows hours\n\
             of event time later. The versions and the expected results:\n\
             \x20 v2  better than v1, which only has a threshold on the departure delay: promoted\n\
             \x20 v3  v2 with a bug for one airport, whose delays are in hours: rolled back, for origin=LGA\n\
             \x20 v4  v2 with one more second of latency in 3 % of the calls: rolled back, for its p99 latency\n"
        }
        Scenario::Aa => {
            "Each recorded flight is a request at its departure. v1 is compared with itself and should be promoted.\n"
        }
    }
}

/// The cause of a rollout's end.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct EndReason {
    /// The metric that decided it; empty if no metric did.
    pub(super) metric: String,
    /// The segment of the finding: `all` or `origin=LGA`.
    pub(super) segment: String,
    /// The cause in one sentence.
    pub(super) sentence: String,
}

/// The end of one rollout.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ending {
    /// The model of the rollout.
    pub(super) model: &'static str,
    /// The version that served.
    pub(super) stable: &'static str,
    /// The version on trial.
    pub(super) canary: &'static str,
    /// `promoted`, `rolled_back` (on evidence), `inconclusive`, `no_data`, `aborted` or `unfinished` (the flights ran out).
    pub(super) outcome: &'static str,
    /// The cause of the end.
    pub(super) reason: EndReason,
    /// Total number of requests.
    pub(super) requests: u64,
    /// Requests that the canary served.
    pub(super) canary_requests: u64,
    /// Requests of the canary that got a worse answer than stable would have given.
    pub(super) hurt_requests: u64,
    /// Time from the first canary request to the decision, in event time.
    pub(super) seconds_to_decision_event_time: f64,
    /// Time from the first canary request to the decision, by the wall clock.
    pub(super) seconds_to_decision_wall: f64,
    /// Time from the end of the deciding window to the router's use of the new table, by the wall clock.
    pub(super) seconds_from_window_end_to_weight: f64,
}

impl Ending {
    /// The version that serves after the rollout.
    fn serving(&self) -> &'static str {
        if self.outcome == "promoted" { self.canary } else { self.stable }
    }
}

/// Plays the chapters of a scenario and returns how each ended.
pub(crate) struct Story<'a> {
    pub(crate) replay: Replay,
    pub(super) api: Api,
    pub(super) router: RouterAdmin,
    /// Microseconds from the log to the router's use of each generation.
    pub(super) applied: BTreeMap<Generation, i64>,
    pub(super) models: Models,
    pub(super) view: &'a mut View,
    /// Base URL of the model server of each version.
    pub(super) servers: Vec<(&'static str, std::net::SocketAddr)>,
    /// Shortest time that each window takes by the wall clock.
    pub(super) pace: Duration,
}

impl Story<'_> {
    /// Plays every chapter, each on its share of the year. Stops early if a chapter leaves the wrong version serving.
    pub(crate) async fn play(&mut self, scenario: Scenario) -> anyhow::Result<Vec<Ending>> {
        let flights: Vec<FlightRecord> = data::flights().collect();
        let share = flights.len() / 3;
        let mut endings = Vec::new();
        for (number, chapter) in chapters(scenario).iter().enumerate() {
            let flights = flights.get(number * share..(number + 1) * share).context("a third of the year")?;
            let ending = self.chapter(number as u64, *chapter, flights).await?;
            let serving = ending.serving();
            endings.push(ending);
            // The next chapter needs the version that should serve after this one.
            if let Some(next) = chapters(scenario).get(number + 1).filter(|next| next.stable != serving) {
                let Chapter { stable, canary } = next;
                self.view.print(&format!("{serving} serves, not {stable}: {stable} -> {canary} cannot be shown"));
                break;
            }
        }
        Ok(endings)
    }

    async fn chapter(&mut self, number: u64, chapter: Chapter, flights: &[FlightRecord]) -> anyhow::Result<Ending> {
        let (first, last) = (flights.first().context("no flights")?, flights.last().context("no flights")?);
        let mut end = self.replay.window_end(EventTime::from_secs(first.departed_at));
        let last = self.replay.window_end(EventTime::from_secs(last.departed_at));
        self.replay.start_rollout(number);
        self.replay.set_clock(EventTime(end.0 - self.replay.length().0)).await?;
        let rollout = self.start(chapter).await?;
        self.view.chapter(chapter.stable, chapter.canary);

        let mut tally = Tally::default();
        let mut first_canary: Option<(EventTime, Instant)> = None;
        let mut rest = flights;
        while end <= last {
            let split = rest.partition_point(|flight| EventTime::from_secs(flight.departed_at) < end);
            let (now, later) = rest.split_at(split);
            rest = later;
            let started = Instant::now();
            let (answers, moved) = self.replay.window(now, end).await?;
            tally.add(&answers, &self.models, chapter.stable);
            if first_canary.is_none() && tally.canary > 0 {
                first_canary = Some((EventTime(end.0 - self.replay.length().0), started));
            }
            let state = self.closed(&rollout, end).await?;
            let verdict: Option<Verdict> =
                if self.view.wants_verdict(&state) { self.api.verdict(&rollout).await.ok() } else { None };
            self.view.window(end, &state, verdict.as_ref(), tally);
            if decided(&state) {
                let (event, wall) = first_canary.unwrap_or((end, moved));
                return Ok(Ending {
                    model: MODEL,
                    stable: chapter.stable,
                    canary: chapter.canary,
                    outcome: outcome(&state),
                    reason: reason(&state),
                    requests: tally.requests,
                    canary_requests: tally.canary,
                    hurt_requests: tally.hurt,
                    seconds_to_decision_event_time: end.since(event).as_secs_f64(),
                    seconds_to_decision_wall: wall.elapsed().as_secs_f64(),
                    seconds_from_window_end_to_weight: moved.elapsed().as_secs_f64(),
                });
            }
            tokio::time::sleep_until((started + self.pace).into()).await;
            end = end.plus(self.replay.length());
        }
        let state = self.state(&rollout).await?;
        self.api.act(&rollout, "abort", json!({"reason": "the demo ran out of flights"})).await.ok();
        Ok(Ending {
            model: MODEL,
            stable: chapter.stable,
            canary: chapter.canary,
            outcome: "unfinished",
            reason: EndReason { sentence: state.sentence, ..EndReason::default() },
            requests: tally.requests,
            canary_requests: tally.canary,
            hurt_requests: tally.hurt,
            seconds_to_decision_event_time: 0.0,
            seconds_to_decision_wall: 0.0,
            seconds_from_window_end_to_weight: 0.0,
        })
    }

    /// Applies the demo's rollout file; returns the rollout's id.
    async fn start(&mut self, chapter: Chapter) -> anyhow::Result<String> {
        let url = |version: &str| {
            self.servers
                .iter()
                .find(|(name, _)| *name == version)
                .map(|(_, at)| format!("http://{at}"))
                .unwrap_or_default()
        };
        let spec = spec(chapter, url);
        let answer = self.api.apply(&spec).await?;
        let id = answer["rollout"].as_str().context("the controller's answer contains no rollout id")?.to_owned();
        self.settled(&id).await?;
        Ok(id)
    }

    /// Waits until the pipeline has closed and planned the window that ends at `end`, and the router uses the result.
    async fn closed(&mut self, rollout: &str, end: EventTime) -> anyhow::Result<RolloutState> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            // A part of the pipeline may be down for a moment, while it is killed and restarted.
            if let Ok((through, generation)) = self.api.progress(rollout).await
                && through.unwrap_or(EventTime(i64::MIN)) >= end
                && let Some((applied, took)) = self.router.table(MODEL).await
                && applied >= generation
                && let Ok(state) = self.state(rollout).await
                && state.generation >= generation
            {
                self.applied.insert(applied, took);
                return Ok(state);
            }
            if Instant::now() > deadline {
                bail!("{}", self.stuck(rollout, end).await);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The part of the pipeline where a window is stuck, and the state of the rollout.
    async fn stuck(&self, rollout: &str, end: EventTime) -> String {
        let seen = Seen {
            end,
            planned: self.api.progress(rollout).await.map_err(|error| error.to_string()),
            judged: self.api.verdict(rollout).await.ok().map(|verdict| verdict.as_of),
            applied: self.router.table(MODEL).await.map(|(generation, _)| generation),
        };
        let state = self
            .state(rollout)
            .await
            .map_or_else(|_| String::new(), |state| format!("\nthe rollout: {}", state.sentence));
        seen.sentence(TIMEOUT) + &state
    }

    /// Waits until the router uses the rollout's first table.
    async fn settled(&mut self, rollout: &str) -> anyhow::Result<()> {
        self.closed(rollout, EventTime(i64::MIN)).await.map(|_| ())
    }

    async fn state(&self, rollout: &str) -> anyhow::Result<RolloutState> {
        Ok(self.api.state(rollout).await?)
    }
}

/// The demo's rollout file for one chapter. `url` returns the base URL of a version's server.
pub(crate) fn spec(chapter: Chapter, url: impl Fn(&str) -> String) -> String {
    include_str!("rollout.yaml")
        .replace("STABLE_URL", &url(chapter.stable))
        .replace("CANARY_URL", &url(chapter.canary))
        .replace("STABLE", chapter.stable)
        .replace("CANARY", chapter.canary)
}

fn outcome(state: &RolloutState) -> &'static str {
    match state.ending.as_ref().map(|ending| ending.outcome) {
        None | Some(Outcome::Promoted) => "promoted",
        Some(Outcome::Evidence) => "rolled_back",
        Some(Outcome::NoData) => "no_data",
        Some(Outcome::Inconclusive) => "inconclusive",
        Some(Outcome::Aborted | Outcome::Superseded) => "aborted",
    }
}

fn reason(state: &RolloutState) -> EndReason {
    let first = state.ending.as_ref().and_then(|ending| ending.reasons.first());
    first.map_or_else(
        || EndReason { sentence: state.sentence.clone(), ..EndReason::default() },
        |first| EndReason {
            metric: first.metric.clone(),
            segment: first.segment.to_string(),
            sentence: first.sentence.clone(),
        },
    )
}

/// The router's admin port.
#[derive(Clone, Debug)]
pub(super) struct RouterAdmin {
    http: reqwest::Client,
    base: String,
}

impl RouterAdmin {
    /// The admin port at `base`.
    pub(crate) fn at(base: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned() }
    }

    /// The generation of the table that the router uses for `model`, and the microseconds from the log to its use.
    /// `None` while the router does not answer.
    async fn table(&self, model: &str) -> Option<(Generation, i64)> {
        let response = self.http.get(format!("{}/tables", self.base)).send().await.ok()?;
        let body: serde_json::Value = response.json().await.ok()?;
        let table = body["tables"].as_array()?.iter().find(|table| table["model"] == model)?;
        Some((Generation(table["generation"].as_i64()?), table["apply_us"].as_i64()?))
    }
}
