//! The result of the demo: the decisions, their causes and times, and the harm to callers.

use std::fmt::Write as _;

use serde::Serialize;

use super::story::Ending;
use crate::{
    cli::{Demo, Scenario},
    time::span,
};

/// Times until routers use a routing record, in microseconds from its arrival on the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ApplyTimes {
    /// Number of records applied.
    count: usize,
    /// Median of the times.
    p50_us: i64,
    /// 99th percentile of the times.
    p99_us: i64,
}

impl ApplyTimes {
    /// Quantiles of the measured times.
    pub(crate) fn of(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        let at = |level: f64| {
            let rank = (level * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// The demo's result, as printed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Which rollouts were shown.
    scenario: &'static str,
    /// Seed of the replay.
    seed: u64,
    /// `embedded`, `kafka` or `attached`.
    log: &'static str,
    /// How each rollout ended.
    rollouts: Vec<Ending>,
    /// Total number of requests sent.
    requests: u64,
    /// Times from the routing record on the log to its use.
    table_apply: ApplyTimes,
}

impl Summary {
    /// The result of a run.
    pub(crate) fn new(args: &Demo, rollouts: Vec<Ending>, requests: u64, table_apply: ApplyTimes) -> Self {
        let scenario = match args.scenario {
            Scenario::Main => "main",
            Scenario::Aa => "aa",
        };
        let log = match (&args.kafka, &args.attach) {
            (Some(_), _) => "kafka",
            (None, Some(_)) => "attached",
            (None, None) => "embedded",
        };
        Self { scenario, seed: args.seed, log, rollouts, requests, table_apply }
    }

    /// Whether every rollout ended as expected: the good version promoted, the bad ones rolled back for their fault.
    pub(super) fn as_expected(&self) -> bool {
        // Canary, outcome, and the metric and segment of a rollback.
        let expected: &[(&str, &str, &str, &str)] = match self.scenario {
            "main" => &[
                ("v2", "promoted", "", ""),
                ("v3", "rolled_back", "wrong_rate", "origin=LGA"),
                ("v4", "rolled_back", "latency_p99", "all"),
            ],
            _ => &[("v1", "promoted", "", "")],
        };
        let found = self.rollouts.iter().map(|ending| {
            (ending.canary, ending.outcome, ending.reason.metric.as_str(), ending.reason.segment.as_str())
        });
        found.eq(expected.iter().copied())
    }

    /// The result as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("\nSummary\n");
        for ending in &self.rollouts {
            let _ = writeln!(text, "\n{}: {} -> {}: {}", ending.model, ending.stable, ending.canary, ending.outcome);
            if !ending.reason.sentence.is_empty() {
                let _ = writeln!(text, "  why                {}", ending.reason.sentence);
            }
            let _ = writeln!(
                text,
                "  time to decision   {} of event time, {:.1} s by the clock",
                span(ending.seconds_to_decision_event_time),
                ending.seconds_to_decision_wall
            );
            let _ = writeln!(
                text,
                "  window to weight   {:.0} ms from the end of the deciding window to the router's new table",
                ending.seconds_from_window_end_to_weight * 1e3
            );
            let _ = writeln!(
                text,
                "  blast radius       canary served {} of {} requests; {} got a worse answer than stable would have given",
                ending.canary_requests, ending.requests, ending.hurt_requests
            );
        }
        let _ = writeln!(
            text,
            "\nrouting tables: {} applied, p50 {:.1} ms, p99 {:.1} ms from the log to their use",
            self.table_apply.count,
            self.table_apply.p50_us as f64 / 1e3,
            self.table_apply.p99_us as f64 / 1e3
        );
        let verdict = if self.as_expected() { "as expected" } else { "NOT as expected" };
        let _ = write!(text, "{} requests in total; every rollout ended {verdict}", self.requests);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_apply_times() {
        let times = ApplyTimes::of((1..=100).rev().collect());
        assert_eq!(times, ApplyTimes { count: 100, p50_us: 50, p99_us: 99 });
        assert_eq!(ApplyTimes::of(vec![]), ApplyTimes::default());
    }
}
