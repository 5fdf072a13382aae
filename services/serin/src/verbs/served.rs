//! What verbs compute and the controller's API serves too.

use std::collections::BTreeMap;

use serin_controller::verbs::{Headline, Line, Tone, Verbs};
use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{ids::EventTime, records::Verdict};
use serin_spec::RolloutSpec;

use super::progress;
use crate::{
    evidence::suspects,
    headline::headline,
    plan::{self, Request},
    terminal,
};

/// Seconds from the close of a window to the canary's last request, as by default in `serin plan`.
const REACT_SECONDS: f64 = 2.0;

/// The functions for the API.
pub(crate) const SERVED: Verbs = Verbs { headline: in_a_sentence, progress: in_lines, suspects, forecast };

fn in_a_sentence(state: &RolloutState, applied: Option<&Applied>) -> Headline {
    let (tone, text) = headline(state, applied);
    let tone = match tone {
        terminal::Tone::Good => Tone::Good,
        terminal::Tone::Bad => Tone::Bad,
        terminal::Tone::Open => Tone::Open,
        terminal::Tone::Plain => Tone::Plain,
    };
    Headline { tone, text }
}

fn in_lines(state: &RolloutState, verdict: Option<&Verdict>, started: Option<EventTime>) -> Vec<Line> {
    progress::lines(state, verdict, started).iter().map(|line| Line::of(line)).collect()
}

fn forecast(spec: &RolloutSpec, per_second: f64) -> Result<serde_json::Value, String> {
    let request = Request {
        spec: spec.clone(),
        per_second,
        base: BTreeMap::new(),
        counted: BTreeMap::new(),
        regressions: Vec::new(),
        react_seconds: REACT_SECONDS,
    };
    let forecast = plan::forecast(&request).map_err(|error| error.to_string())?;
    serde_json::to_value(forecast).map_err(|error| error.to_string())
}
