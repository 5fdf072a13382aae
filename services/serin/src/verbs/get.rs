//! `serin get`: one rollout on one screen; with `--watch`, refreshed with each verdict.

mod page;
mod reported;
#[cfg(test)]
mod tests;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use serin_rollout::{RolloutState, planner::without_order};
use serin_schemas::records::Verdict;

use self::{
    page::{Page, Shown, event_line},
    reported::{Reported, refused, undecided},
};
use super::deadline::Deadline;
use crate::{
    cli::{Get, Output},
    client::{Api, ApiError},
    output,
    terminal::{Block, Terminal, visible},
    time::to_the_second,
};

/// Longest wait for new events in one request.
const WAIT: Duration = Duration::from_secs(5);
/// How long to wait for routers to use the last table of an ended rollout, and the wait between two requests.
const APPLIED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `serin get`.
pub(crate) async fn get(args: &Get) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    let mut deadline = Deadline::of(if args.watch { &args.timeout } else { "0s" })?;
    // A model's name means its current rollout, even if another one follows while this verb runs.
    let rollout = deadline.ask(|| api.shown(&args.rollout)).await?.0.id.0;
    let (mut after, mut watch, mut ended) = (0, Watch::default(), None);
    loop {
        let wait = match ended {
            Some(_) => LOOK_AGAIN,
            None if args.watch && after > 0 => WAIT,
            None => Duration::ZERO,
        };
        // Events are read before the state, so that the state is not older than the events.
        let mut page = deadline.ask(|| api.events(&rollout, after, wait)).await?;
        let (state, applied) = deadline.ask(|| api.shown(&rollout)).await?;
        let verdict = optional(deadline.ask(|| api.verdict(&rollout)).await)?;
        // Reports of routers are optional: an older API does not have them.
        let routers = api.routers().await.unwrap_or_default();
        let soon = applied.as_ref().is_some_and(|applied| !applied.done && applied.soon);
        let reported =
            Reported { applied, undecided: undecided(&routers, &state.spec.model), refused: refused(&routers, &state) };
        let is_over = if state.phase.is_final() {
            let now = Instant::now();
            !soon || now >= *ended.get_or_insert(now + APPLIED_WITHIN)
        } else {
            false
        };
        let is_last = !args.watch || is_over || deadline.is_over();
        if is_last {
            // The state may be newer than the events that were read before it.
            let next = page["next"].as_u64().unwrap_or(after);
            let rest = deadline.ask(|| api.events(&rollout, next, Duration::ZERO)).await?;
            let rest = rest["events"].as_array().cloned().unwrap_or_default();
            page["events"].as_array_mut().into_iter().for_each(|events| events.extend_from_slice(&rest));
        }
        match args.remote.output {
            Output::Json if args.watch => {
                output::json_line(&document(&state, verdict.as_ref(), &page, &reported))?;
            }
            Output::Json => output::json(&document(&state, verdict.as_ref(), &page, &reported))?,
            Output::Text => {
                let news = page["events"].as_array().map_or(&[][..], Vec::as_slice);
                watch.show(&state, verdict.as_ref(), news, &reported, is_last);
            }
        }
        if is_last || output::is_closed() {
            return Ok(ExitCode::SUCCESS);
        }
        after = page["next"].as_u64().unwrap_or(after).max(1);
    }
}

/// What has been shown so far.
#[derive(Default)]
struct Watch {
    /// All events so far: the controller returns only new ones.
    events: Vec<Value>,
    block: Block,
    /// The verdict's sentence that was printed last.
    last_sentence: Option<String>,
}

impl Watch {
    /// Shows a rollout. A terminal is redrawn; otherwise the first and last page are printed in full, and new events as lines between them.
    fn show(
        &mut self,
        state: &RolloutState,
        verdict: Option<&Verdict>,
        news: &[Value],
        reported: &Reported,
        is_last: bool,
    ) {
        let is_first = self.events.is_empty() && self.last_sentence.is_none();
        self.events.extend_from_slice(news);
        let terminal = Terminal::stdout();
        let page = || Page::new(&Shown { state, verdict, reported, events: &self.events }, terminal);
        let sentence = verdict.map(|verdict| without_order(&verdict.sentence).to_owned()).unwrap_or_default();
        match terminal.redraws() {
            Some(size) if !is_last => {
                let text = page().fitted(size);
                output::part(self.block.replace(&visible(&text), size.1));
            }
            Some((_, columns)) => {
                let text = page().text();
                output::part(self.block.erase(columns));
                output::line(text);
            }
            None if is_first || is_last => output::line(page().text()),
            None => {
                for event in news {
                    output::line(event_line(event).trim_start());
                }
                if let Some(verdict) = verdict.filter(|_| self.last_sentence.as_deref() != Some(&sentence)) {
                    output::line(format!("{}  evidence: {sentence}", to_the_second(verdict.as_of)));
                }
            }
        }
        self.last_sentence = Some(sentence);
    }
}

/// The document of `--output json`.
fn document(state: &RolloutState, verdict: Option<&Verdict>, page: &Value, reported: &Reported) -> Value {
    let undecided: Vec<Value> = reported
        .undecided
        .iter()
        .map(|(router, reported)| {
            json!({"router": router, "needed": reported.needed, "reason": reported.reason, "calls": reported.calls, "of": reported.of})
        })
        .collect();
    json!({"state": state, "verdict": verdict, "events": page["events"], "undecided": undecided, "applied": reported.applied,
        "refused": reported.refused})
}

/// Turns a missing verdict into `None`.
fn optional(verdict: Result<Verdict, ApiError>) -> Result<Option<Verdict>, ApiError> {
    match verdict {
        Err(ApiError::NotFound(_)) => Ok(None),
        verdict => verdict.map(Some),
    }
}
