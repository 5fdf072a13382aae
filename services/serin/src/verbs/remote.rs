//! Verbs that change something at the controller: `apply`, `status`, `promote`, `pause`, `resume`, `abort`, `stop`.

use std::{
    io::Read as _,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;
use serin_rollout::{Outcome, RolloutState, planner::Applied, units};

use super::local::print_problems;
use crate::{
    cli::{Act, Apply, Output, Remote, Status, Stop},
    client::{Api, ApiError},
    output,
};

/// `serin status`: the rollout ended well.
const PROMOTED: u8 = 0;
/// `serin status`: still running, or the wait timed out.
const RUNNING: u8 = 1;
/// It is decided, and no router is known to use the table.
const NOT_APPLIED: u8 = 1;
/// How long it is waited for routers to use the table of an ending that was waited for, and how often it is looked.
const APPLIED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// `serin status`: all traffic is back on stable.
const ROLLED_BACK: u8 = 3;
/// `serin status`: a person or a newer rollout ended it.
const ABORTED: u8 = 4;
/// The rollout file has errors.
const INVALID: u8 = 1;

/// The text of a file, or of standard input for `-`.
pub(crate) fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// `serin apply`.
pub(crate) async fn apply(args: &Apply) -> anyhow::Result<ExitCode> {
    let text = read(&args.file)?;
    // Problems are told from the file itself, with its lines; the controller would say the same.
    let checked = serin_rollout::check(&text, None);
    if checked.has_errors() {
        print_problems(&args.file.display().to_string(), &checked, args.remote.output)?;
        return Ok(ExitCode::from(INVALID));
    }
    let api = Api::new(&args.remote)?;
    let answer = match api.apply(&text).await {
        Err(ApiError::Invalid(body)) => {
            output::json(&body)?;
            return Ok(ExitCode::from(INVALID));
        }
        answer => answer?,
    };
    let rollout = answer["rollout"].as_str().context("the controller named no rollout")?.to_owned();
    match args.remote.output {
        Output::Json if !args.wait => output::json(&answer)?,
        Output::Json => {}
        Output::Text => {
            let state = api.state(&rollout).await;
            let sentence = state.as_ref().map_or("", |state| state.sentence.as_str());
            output::line(format!("rollout {rollout} accepted. {sentence}"));
            if let Some(applied) = applied_of(&answer).filter(|applied| !applied.done) {
                output::line(not_applied(&applied));
            }
            output::line(format!("watch it with: serin get {rollout} --watch"));
        }
    }
    if args.wait {
        return wait(&api, &rollout, &args.remote, None).await;
    }
    // A table that a router cannot use is no start.
    let refused = applied_of(&answer).is_some_and(|applied| applied.refused);
    Ok(if refused { ExitCode::from(NOT_APPLIED) } else { ExitCode::SUCCESS })
}

/// `serin status`.
pub(crate) async fn status(args: &Status) -> anyhow::Result<ExitCode> {
    let timeout = units::Duration::parse(&args.timeout).map_err(|error| anyhow::anyhow!("--timeout: {error}"))?;
    let api = Api::new(&args.remote)?;
    if args.wait {
        let deadline = Instant::now() + Duration::from_micros(timeout.0.0.unsigned_abs());
        return wait(&api, &args.rollout, &args.remote, Some(deadline)).await;
    }
    let (state, applied) = api.shown(&args.rollout).await?;
    print_state(&state, applied.as_ref(), args.remote.output)?;
    Ok(exit_code(&state, applied.as_ref()))
}

/// Waits until a rollout ends and its end is applied, telling what happens to it on the way. The rollout is the one that the name means
/// now: a model may have another one by then.
async fn wait(api: &Api, rollout: &str, remote: &Remote, deadline: Option<Instant>) -> anyhow::Result<ExitCode> {
    let rollout = api.state(rollout).await?.id.0;
    let (mut after, mut told, mut patience) = (0, String::new(), None);
    loop {
        let (state, applied) = api.shown(&rollout).await?;
        let now = Instant::now();
        let late = deadline.is_some_and(|deadline| now >= deadline);
        if state.phase.is_final() || late {
            let soon = applied.as_ref().is_some_and(|applied| !applied.done && applied.soon);
            if soon && !late && now < *patience.get_or_insert(now + APPLIED_WITHIN) {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            if remote.output == Output::Json || told != state.sentence || !is_applied(applied.as_ref()) {
                print_state(&state, applied.as_ref(), remote.output)?;
            }
            return Ok(exit_code(&state, applied.as_ref()));
        }
        let page = api.events(&rollout, after, Duration::from_secs(20)).await?;
        after = page["next"].as_u64().unwrap_or(after);
        if remote.output == Output::Text {
            for event in page["events"].as_array().into_iter().flatten() {
                event["sentence"].as_str().unwrap_or_default().clone_into(&mut told);
                output::line(&told);
            }
        }
    }
}

/// What the controller said about who uses the table.
fn applied_of(answer: &Value) -> Option<Applied> {
    serde_json::from_value(answer["applied"].clone()).unwrap_or_default()
}

/// Whether calls go as it was decided, as far as the controller says.
fn is_applied(applied: Option<&Applied>) -> bool {
    applied.is_none_or(|applied| applied.done)
}

fn not_applied(applied: &Applied) -> String {
    format!("not applied yet: {}", applied.waits_for)
}

fn print_state(state: &RolloutState, applied: Option<&Applied>, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            let mut document = serde_json::to_value(state)?;
            document["applied"] = serde_json::to_value(applied)?;
            output::json(&document)
        }
        Output::Text => {
            output::line(&state.sentence);
            // What is only observed has no table.
            if let Some(applied) = applied.filter(|applied| !applied.done && state.acts()) {
                output::line(not_applied(applied));
            }
            Ok(())
        }
    }
}

fn exit_code(state: &RolloutState, applied: Option<&Applied>) -> ExitCode {
    let promoted = if is_applied(applied) { PROMOTED } else { NOT_APPLIED };
    ExitCode::from(match state.ending.as_ref().map(|ending| ending.outcome) {
        None if state.promoted => promoted,
        None => RUNNING,
        Some(Outcome::Promoted) => promoted,
        Some(Outcome::Evidence | Outcome::NoData | Outcome::Inconclusive) => ROLLED_BACK,
        Some(Outcome::Aborted | Outcome::Superseded) => ABORTED,
    })
}

/// `serin promote`, `pause`, `resume`, `abort`.
pub(crate) async fn act(args: &Act, verb: &str, full: bool) -> anyhow::Result<ExitCode> {
    let answer = Api::new(&args.remote)?.act(&args.rollout, verb, &args.reason, full).await?;
    print_answer(&answer, args.remote.output)
}

/// `serin stop --all`.
pub(crate) async fn stop_all(args: &Stop) -> anyhow::Result<ExitCode> {
    debug_assert!(args.all, "clap requires it");
    let answer = Api::new(&args.remote)?.stop_all(&args.reason).await?;
    print_answer(&answer, args.remote.output)
}

/// Prints what the controller made of a command. It is done when routers use the table that it led to.
fn print_answer(answer: &Value, output: Output) -> anyhow::Result<ExitCode> {
    let applied = applied_of(answer);
    match output {
        Output::Json => output::json(answer)?,
        Output::Text => {
            output::line(answer["sentence"].as_str().unwrap_or("sent; not confirmed yet"));
            if let Some(applied) = applied.as_ref().filter(|applied| !applied.done) {
                output::line(not_applied(applied));
            }
        }
    }
    Ok(if is_applied(applied.as_ref()) { ExitCode::SUCCESS } else { ExitCode::from(NOT_APPLIED) })
}
