//! What the command line computes and the API serves too, so that both give the same answers.
//!
//! The forecasts and the wording belong to the binary, which links the controller. It passes them in as functions.

use serde::Serialize;
use serde_json::Value;
use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{
    ids::EventTime,
    records::{MetricVerdict, Verdict},
};
use serin_spec::RolloutSpec;

/// Functions of the binary.
#[derive(Clone, Copy, Debug)]
pub struct Verbs {
    /// The state of a rollout in one sentence, as `serin get` shows it.
    pub headline: fn(&RolloutState, Option<&Applied>) -> Headline,
    /// The progress of a rollout, as `serin get` shows it. The time is that of the first step, if it is known.
    pub progress: fn(&RolloutState, Option<&Verdict>, Option<EventTime>) -> Vec<Line>,
    /// The suspected segments of a verdict, as in `serin explain`.
    pub suspects: fn(&Verdict) -> Vec<&MetricVerdict>,
    /// The forecast of a normalized spec at this many requests per second, as `serin plan` prints it in JSON.
    pub forecast: fn(&RolloutSpec, f64) -> Result<Value, String>,
}

/// How a state is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// A good state.
    Good,
    /// A bad state.
    Bad,
    /// An operator is needed, or the result is not known yet.
    Open,
    /// Normal text.
    Plain,
}

/// The state of a rollout in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Headline {
    /// How the state is to be seen.
    pub tone: Tone,
    /// The sentence.
    pub text: String,
}

/// One line about the progress of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What the line is about, such as `Next`. Empty if it continues the line before.
    pub name: String,
    /// The line.
    pub text: String,
}

impl Line {
    /// Reads a line of the terminal: `Next:      25% to v2` or `  - an open check`.
    pub fn of(text: &str) -> Self {
        let named = text.split_once(':').filter(|(name, _)| !text.starts_with(' ') && name.len() < 10);
        let (name, text) = named.unwrap_or(("", text.trim_start_matches(|c: char| c.is_whitespace() || c == '-')));
        Self { name: name.to_owned(), text: text.trim().to_owned() }
    }
}

impl Default for Verbs {
    /// Functions for a controller without the command line: the state's own sentence, and no forecasts.
    fn default() -> Self {
        Self {
            headline: |state, _| Headline { tone: Tone::Plain, text: state.sentence.clone() },
            progress: |_, _, _| Vec::new(),
            suspects: |_| Vec::new(),
            forecast: |_, _| Err("this controller has no forecasts".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_terminal_are_split_into_name_and_text() {
        let line = |text: &str| {
            let Line { name, text } = Line::of(text);
            (name, text)
        };
        for (text, name, rest) in [
            ("Next:      25% to v2, in 3m", "Next", "25% to v2, in 3m"),
            ("You can:   serin abort m", "You can", "serin abort m"),
            ("Missing:   1 check", "Missing", "1 check"),
            ("  - late: the canary has no labels", "", "late: the canary has no labels"),
            ("  ! late: 0 of 7 answers had a value", "", "! late: 0 of 7 answers had a value"),
        ] {
            assert_eq!(line(text), (name.to_owned(), rest.to_owned()));
        }
    }
}
