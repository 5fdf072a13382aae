//! `serin get`: one rollout on one screen; with `--watch`, again with each verdict.

mod page;
#[cfg(test)]
mod tests;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use serin_rollout::{
    RolloutState,
    planner::{Applied, without_order},
};
use serin_schemas::{
    ids::{ModelName, Version},
    records::{RouterStatus, Undecided, Verdict},
};

use self::page::{Page, Shown, event_line};
use super::patience::Patience;
use crate::{
    cli::{Get, Output},
    client::{Api, ApiError},
    output,
    terminal::{Block, Terminal},
    time::to_the_second,
};

/// How long one look for something new may take.
const WAIT: Duration = Duration::from_secs(5);
/// How long an end is shown until routers use its table, and how long one look then takes.
const APPLIED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `serin get`.
pub(crate) async fn get(args: &Get) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    let mut patience = Patience::of(if args.watch { &args.timeout } else { "0s" })?;
    // By a model's name the rollout of now is meant, also when another one follows it.
    let rollout = patience.ask(|| api.shown(&args.rollout)).await?.0.id.0;
    let (mut after, mut watch, mut ended) = (0, Watch::default(), None);
    loop {
        let wait = match ended {
            Some(_) => LOOK_AGAIN,
            None if args.watch && after > 0 => WAIT,
            None => Duration::ZERO,
        };
        // What is new comes first: the state is then not older than it.
        let mut page = patience.ask(|| api.events(&rollout, after, wait)).await?;
        let (state, applied) = patience.ask(|| api.shown(&rollout)).await?;
        let verdict = optional(patience.ask(|| api.verdict(&rollout)).await)?;
        // What routers tell is beside the state: an API that does not know it hides nothing else.
        let routers = api.routers().await.unwrap_or_default();
        let soon = applied.as_ref().is_some_and(|applied| !applied.done && applied.soon);
        let told =
            Told { applied, undecided: undecided(&routers, &state.spec.model), refused: refused(&routers, &state) };
        let is_over = if state.phase.is_final() {
            let now = Instant::now();
            !soon || now >= *ended.get_or_insert(now + APPLIED_WITHIN)
        } else {
            false
        };
        let is_last = !args.watch || is_over || patience.is_over();
        if is_last {
            // The state may be newer than what has happened before it was asked for.
            let next = page["next"].as_u64().unwrap_or(after);
            let rest = patience.ask(|| api.events(&rollout, next, Duration::ZERO)).await?;
            let rest = rest["events"].as_array().cloned().unwrap_or_default();
            page["events"].as_array_mut().into_iter().for_each(|events| events.extend_from_slice(&rest));
        }
        match args.remote.output {
            Output::Json if args.watch => {
                output::json_line(&document(&state, verdict.as_ref(), &page, &told))?;
            }
            Output::Json => output::json(&document(&state, verdict.as_ref(), &page, &told))?,
            Output::Text => {
                let news = page["events"].as_array().map_or(&[][..], Vec::as_slice);
                watch.show(&state, verdict.as_ref(), news, &told, is_last);
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
    /// All that happened: the controller tells what is new only.
    events: Vec<Value>,
    block: Block,
    /// The verdict's sentence that was shown last.
    said: Option<String>,
}

impl Watch {
    /// Shows a rollout: on a terminal in the place of what was there, else the first and the last time whole and in between as lines.
    fn show(&mut self, state: &RolloutState, verdict: Option<&Verdict>, news: &[Value], told: &Told, is_last: bool) {
        let is_first = self.events.is_empty() && self.said.is_none();
        self.events.extend_from_slice(news);
        let terminal = Terminal::stdout();
        let page = || Page::new(&Shown { state, verdict, told, events: &self.events }, terminal);
        let says = verdict.map(|verdict| without_order(&verdict.sentence).to_owned()).unwrap_or_default();
        match terminal.redraws() {
            Some(size) if !is_last => {
                let text = page().fitted(size);
                output::part(self.block.replace(&text, size.1));
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
                if let Some(verdict) = verdict.filter(|_| self.said.as_deref() != Some(&says)) {
                    output::line(format!("{}  evidence: {says}", to_the_second(verdict.as_of)));
                }
            }
        }
        self.said = Some(says);
    }
}

/// What routers tell of a rollout.
struct Told {
    /// Who uses its table.
    applied: Option<Applied>,
    /// The calls that they could not decide as asked, by router.
    undecided: Vec<(String, Undecided)>,
    /// Why they cannot use its table or a newer one, a sentence each.
    refused: Vec<String>,
}

/// Why routers cannot use the rollout's table or a newer one.
fn refused(routers: &[RouterStatus], state: &RolloutState) -> Vec<String> {
    let of = |router: &RouterStatus| {
        let told = router.refused.iter().filter(|told| told.model == state.spec.model);
        let told = told.filter(|told| told.generation >= state.generation || told.generation.0 == 0);
        told.map(|told| format!("router {} cannot use the newest table: {}", router.router, told.reason))
            .collect::<Vec<_>>()
    };
    routers.iter().flat_map(of).collect()
}

/// The calls of a model that routers could not decide as its rollout asks, by router.
fn undecided(routers: &[RouterStatus], model: &ModelName) -> Vec<(String, Undecided)> {
    let of = |router: &RouterStatus| {
        let told = router.undecided.iter().filter(|told| told.model == *model);
        told.map(|told| (router.router.clone(), told.clone())).collect::<Vec<_>>()
    };
    routers.iter().flat_map(of).collect()
}

/// What `--output json` shows.
fn document(state: &RolloutState, verdict: Option<&Verdict>, page: &Value, told: &Told) -> Value {
    let undecided: Vec<Value> = told
        .undecided
        .iter()
        .map(|(router, told)| {
            json!({"router": router, "needed": told.needed, "reason": told.reason, "calls": told.calls, "of": told.of})
        })
        .collect();
    json!({"state": state, "verdict": verdict, "events": page["events"], "undecided": undecided, "applied": told.applied,
        "refused": told.refused})
}

/// What routers could not decide as asked, a sentence each.
fn undecided_sentence(router: &str, told: &Undecided, stable: &Version) -> String {
    let Undecided { needed, reason, calls, of, .. } = told;
    let share = 100.0 * *calls as f64 / (*of).max(1) as f64;
    let what = match needed.as_str() {
        "sticky" => "the sticky key",
        "target" => "what a target looks at",
        _ => "the value of a segment",
    };
    if reason == "absent" {
        return format!(
            "  router {router}: {calls} of {of} calls ({share:.1} %) have no sticky key; they are split by chance"
        );
    }
    format!(
        "  ! router {router}: {what} could not be read in {calls} of {of} calls ({share:.1} %, {reason}); they went to {} and enter no comparison",
        stable.in_words()
    )
}

/// No verdict yet is not an error.
fn optional(verdict: Result<Verdict, ApiError>) -> Result<Option<Verdict>, ApiError> {
    match verdict {
        Err(ApiError::NotFound(_)) => Ok(None),
        verdict => verdict.map(Some),
    }
}

/// Why routers cannot use the newest table, unless the one that is waited for has said so already.
fn refusals(told: &Told) -> impl Iterator<Item = &String> {
    told.refused.iter().filter(|_| told.applied.as_ref().is_none_or(|applied| !applied.refused))
}
