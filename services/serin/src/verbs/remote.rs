//! Verbs that act on a rollout at the controller: `apply`, `status`, `promote`, `set-weight`, `freeze` and so on.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use serin_rollout::{
    Outcome, RolloutState,
    planner::{Applied, HoldCause},
};
use serin_schemas::records::Phase;
use serin_spec::RolloutSpec;

use super::{
    deadline::Deadline,
    diff::differences,
    local::{print_problems, print_warnings, read},
};
use crate::{
    cli::{Act, Apply, Freeze, Mark, Output, Remote, Retry, SetWeight, Status, Stop, Unfreeze, Was},
    client::{Api, ApiError},
    exit, output, plan,
    time::to_the_second,
};

/// How long to wait for routers to use the last table of an ended rollout, and the wait between two requests.
const APPLIED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Longest wait for new events in one request.
const NEWS: Duration = Duration::from_secs(20);

/// `serin apply`.
pub(crate) async fn apply(args: &Apply) -> anyhow::Result<ExitCode> {
    let text = read(&args.file)?;
    // Problems are found in the file here, so that they have line numbers. The controller would report the same.
    let checked = serin_rollout::check(&text, None);
    if checked.has_errors() {
        print_problems(&args.file.display().to_string(), &checked, args.remote.output)?;
        return Ok(exit::with(exit::NOT_DONE));
    }
    let api = Api::new(&args.remote)?;
    let mut deadline = Deadline::of(&args.timeout)?;
    if let Some(running) = runs_already(&api, checked.spec.as_ref()).await {
        if args.wait {
            return wait(&api, &running.id.0, &args.remote, deadline).await;
        }
        match args.remote.output {
            Output::Json => {
                let RolloutState { id, phase, sentence, .. } = &running;
                output::json(&json!({"rollout": id, "unchanged": true, "phase": phase, "sentence": sentence}))?;
            }
            Output::Text => unchanged(&running).into_iter().for_each(output::text),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let sent = if args.wait { deadline.send(|| api.apply(&text)).await } else { api.apply(&text).await };
    let answer = match sent {
        Err(ApiError::Invalid(body)) => {
            output::json(&body)?;
            return Ok(exit::with(exit::NOT_DONE));
        }
        answer => answer?,
    };
    let rollout = answer["rollout"].as_str().context("the controller's answer contains no rollout id")?.to_owned();
    let is_answered = answer["sentence"].is_string();
    match args.remote.output {
        Output::Json if !args.wait => output::json(&answer)?,
        Output::Json => {}
        Output::Text => {
            let state = api.state(&rollout).await;
            let sentence = state.as_ref().map_or("", |state| state.sentence.as_str());
            print_warnings(&args.file.display().to_string(), &checked);
            let accepted = if is_answered { "accepted" } else { "sent; not confirmed yet" };
            output::text(format!("rollout {rollout} {accepted}. {sentence}"));
            if let Some(proof) = checked.spec.as_ref().and_then(how_long) {
                output::text(proof);
            }
            if let Some(applied) = applied_of(&answer).filter(|applied| !applied.done) {
                output::text(not_applied(&applied));
            }
            output::line(format!("watch it with: serin get {rollout} --watch"));
        }
    }
    if args.wait {
        if !is_answered && !is_confirmed(&api, &rollout, &mut deadline).await? {
            let sentence = format!(
                "rollout {rollout} was sent, but the controller did not confirm it within --timeout: check that its stage runs \
                 (`/readyz`), then run `serin status {rollout}`"
            );
            match args.remote.output {
                Output::Json => output::json(&answer)?,
                Output::Text => output::line(&sentence),
            }
            return Ok(exit::with(exit::NOT_DONE));
        }
        return wait(&api, &rollout, &args.remote, deadline).await;
    }
    // A rollout has not started if a router cannot use its table.
    let refused = applied_of(&answer).is_some_and(|applied| applied.refused);
    Ok(exit::done_if(!refused && is_answered))
}

/// The rollout of the model that runs with exactly this file. If the controller cannot be asked, `apply` reports it.
async fn runs_already(api: &Api, file: Option<&RolloutSpec>) -> Option<RolloutState> {
    let file = file?;
    let state = api.state(file.model.as_str()).await.ok()?;
    (!state.phase.is_final() && differences(&state.file(), file).is_empty()).then_some(state)
}

/// What `apply` reports about a rollout that already runs with the file, and how to start over. Held and paused rollouts count as
/// running, even with `concurrency: supersede`: starting over would lose their evidence.
fn unchanged(running: &RolloutState) -> [String; 2] {
    let phase = match running.phase {
        Phase::Held => " and is held",
        Phase::Paused => " and is paused",
        _ => "",
    };
    [
        format!("unchanged: rollout {} runs with this file{phase}. {}", running.id, running.sentence),
        format!("to start over with the same file, end it first: serin abort {}", running.spec.model),
    ]
}

/// Waits until the controller knows a rollout that it accepted without an answer. Returns whether it does by the deadline.
///
/// # Errors
/// The rollout was refused after all, or the controller cannot be asked.
async fn is_confirmed(api: &Api, rollout: &str, deadline: &mut Deadline) -> anyhow::Result<bool> {
    loop {
        match deadline.ask(|| api.state(rollout)).await {
            Err(ApiError::NotFound(_)) if !deadline.is_over() && !output::is_closed() => {}
            Err(ApiError::NotFound(_)) => return Ok(false),
            answer => return Ok(answer.map(|_| true)?),
        }
        // A refusal has an event but no state.
        if let Ok(page) = api.events(rollout, 0, Duration::ZERO).await
            && let Some(event) = page["events"].as_array().and_then(|events| events.first())
            && event["kind"] == "refused"
        {
            anyhow::bail!("{}", event["sentence"].as_str().unwrap_or("refused"));
        }
        tokio::time::sleep(deadline.left(LOOK_AGAIN)).await;
    }
}

/// Request rates for which the time of a proof is shown, in requests per second.
const RATES: [f64; 4] = [0.1, 1.0, 10.0, 100.0];

/// How long a proof takes, for a model whose traffic is not known. With little traffic it takes days.
fn how_long(spec: &RolloutSpec) -> Option<String> {
    let spec = spec.normalized();
    let none = BTreeMap::new();
    let at = |per_second: f64| Some(format!("  at {per_second} requests/s {}", plan::proof(&spec, per_second, &none)?));
    let lines: Vec<String> = RATES.into_iter().filter_map(at).collect();
    (!lines.is_empty()).then(|| {
        let lines = lines.join("\n");
        let about = "time until a version equal to stable passes";
        let provided = plan::under_limits(&spec, &none).map_or_else(String::new, |limits| format!(", {limits}"));
        format!("{about}{provided} (for your own traffic: serin plan -f FILE --traffic RATE):\n{lines}")
    })
}

/// `serin status`.
pub(crate) async fn status(args: &Status) -> anyhow::Result<ExitCode> {
    let deadline = Deadline::of(&args.timeout)?;
    let api = Api::new(&args.remote)?;
    if args.wait {
        return wait(&api, &args.rollout, &args.remote, deadline).await;
    }
    let (state, applied) = api.shown(&args.rollout).await?;
    print_state(&state, applied.as_ref(), args.remote.output)?;
    Ok(exit_code(&state, applied.as_ref()))
}

/// Waits until a rollout ends and routers apply the end, and prints its events meanwhile. A model's name means its current rollout,
/// even if another one follows.
async fn wait(api: &Api, rollout: &str, remote: &Remote, mut deadline: Deadline) -> anyhow::Result<ExitCode> {
    let rollout = deadline.ask(|| api.state(rollout)).await?.id.0;
    let (mut after, mut printed, mut applied_by) = (0, String::new(), None);
    loop {
        let (state, applied) = deadline.ask(|| api.shown(&rollout)).await?;
        let is_over = deadline.is_over() || output::is_closed();
        if state.phase.is_final() || is_over {
            let soon = applied.as_ref().is_some_and(|applied| !applied.done && applied.soon);
            let now = Instant::now();
            if soon && !is_over && now < *applied_by.get_or_insert(now + APPLIED_WITHIN) {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            if remote.output == Output::Json || printed != state.sentence || !is_applied(applied.as_ref()) {
                print_state(&state, applied.as_ref(), remote.output)?;
            }
            return Ok(exit_code(&state, applied.as_ref()));
        }
        let news = deadline.left(NEWS);
        let page = deadline.ask(|| api.events(&rollout, after, news)).await?;
        after = page["next"].as_u64().unwrap_or(after);
        if remote.output == Output::Text {
            for event in page["events"].as_array().into_iter().flatten() {
                event["sentence"].as_str().unwrap_or_default().clone_into(&mut printed);
                output::text(&printed);
            }
        }
    }
}

/// The part of the controller's answer about routers that use the table.
fn applied_of(answer: &Value) -> Option<Applied> {
    serde_json::from_value(answer["applied"].clone()).unwrap_or_default()
}

/// Whether routers apply the decision. True if the controller does not report it.
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
            output::text(current(state));
            // A rollout that is only observed has no table.
            if let Some(applied) = applied.filter(|applied| !applied.done && state.acts()) {
                output::text(not_applied(applied));
            }
            Ok(())
        }
    }
}

/// What a rollout does now. While the evidence holds it, that is the first cause of the last verdict, whose numbers grow after the hold
/// has started.
fn current(state: &RolloutState) -> &str {
    let by_evidence =
        state.phase == Phase::Held && state.hold.as_ref().is_some_and(|hold| hold.cause == HoldCause::Health);
    let causes = state.verdict.iter().filter(|_| by_evidence).flat_map(|verdict| &verdict.holds);
    causes.map(|cause| cause.sentence.as_str()).next().unwrap_or(&state.sentence)
}

fn exit_code(state: &RolloutState, applied: Option<&Applied>) -> ExitCode {
    let promoted = if is_applied(applied) { exit::DONE } else { exit::NOT_DONE };
    exit::with(match state.ending.as_ref().map(|ending| ending.outcome) {
        None if state.promoted => promoted,
        None => exit::NOT_DONE,
        Some(Outcome::Promoted) => promoted,
        Some(Outcome::Evidence | Outcome::NoData | Outcome::Inconclusive) => exit::WORSE,
        Some(Outcome::Aborted | Outcome::Superseded) => exit::ENDED,
    })
}

/// `serin promote`, `pause`, `resume`, `abort`, `approve`, `reject`, `undo`.
pub(crate) async fn act(args: &Act, verb: &str, full: bool) -> anyhow::Result<ExitCode> {
    let body = json!({"reason": args.reason, "full": full});
    let answer = Api::new(&args.remote)?.act(&args.rollout, verb, body).await?;
    print_answer(&answer, args.remote.output)
}

/// `serin set-weight`.
pub(crate) async fn set_weight(args: &SetWeight) -> anyhow::Result<ExitCode> {
    let body = json!({"reason": args.reason, "weight": args.weight, "force": args.force});
    let answer = Api::new(&args.remote)?.act(&args.rollout, "set-weight", body).await?;
    print_answer(&answer, args.remote.output)
}

/// `serin mark`.
pub(crate) async fn mark(args: &Mark) -> anyhow::Result<ExitCode> {
    let was = if args.was == Was::Good { "good" } else { "bad" };
    let body = json!({"reason": args.reason, "was": was});
    let answer = Api::new(&args.remote)?.act(&args.rollout, "mark", body).await?;
    print_answer(&answer, args.remote.output)
}

/// `serin retry`.
pub(crate) async fn retry(args: &Retry) -> anyhow::Result<ExitCode> {
    let Act { rollout, reason, remote } = &args.act;
    let body = json!({"reason": reason, "from_step": args.from_step});
    let answer = Api::new(remote)?.act(rollout, "retry", body).await?;
    if remote.output == Output::Text
        && let Some(id) = answer["rollout"].as_str()
    {
        output::text(format!("rollout {id}"));
    }
    print_answer(&answer, remote.output)
}

/// `serin freeze`.
pub(crate) async fn freeze(args: &Freeze) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    let Some(models) = args.models.as_deref().or(args.all.then_some("*")) else {
        let freezes = api.freezes().await?;
        match args.remote.output {
            Output::Json => output::json(&serde_json::to_value(&freezes)?)?,
            Output::Text if freezes.is_empty() => output::text("nothing is frozen"),
            Output::Text => freezes.iter().for_each(|freeze| output::text(freeze_line(freeze))),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let until = args.span.map(|span| jiff::Timestamp::now().as_microsecond().saturating_add(span.0.0));
    let answer = api.freeze("freeze", json!({"models": models, "reason": args.reason, "until": until})).await?;
    print_answer(&answer, args.remote.output)
}

/// `serin unfreeze`.
pub(crate) async fn unfreeze(args: &Unfreeze) -> anyhow::Result<ExitCode> {
    let models = args.models.as_deref().unwrap_or("*");
    let answer = Api::new(&args.remote)?.freeze("unfreeze", json!({"models": models, "reason": args.reason})).await?;
    print_answer(&answer, args.remote.output)
}

/// A freeze with its end, as one line.
pub(super) fn freeze_line(freeze: &serin_rollout::planner::Freeze) -> String {
    let until = freeze.until.map_or_else(
        || format!("until: serin unfreeze {}", if freeze.models == "*" { "--all" } else { freeze.models.as_str() }),
        |until| format!("until {} UTC", to_the_second(until)),
    );
    format!("{}: by {} ({}), {until}", freeze.models, freeze.by, freeze.reason)
}

/// `serin stop --all`.
pub(crate) async fn stop_all(args: &Stop) -> anyhow::Result<ExitCode> {
    debug_assert!(args.all, "clap requires it");
    let answer = Api::new(&args.remote)?.stop_all(&args.reason).await?;
    print_answer(&answer, args.remote.output)
}

/// Prints the result of a command. It is done when routers use the resulting table.
fn print_answer(answer: &Value, output: Output) -> anyhow::Result<ExitCode> {
    let applied = applied_of(answer);
    match output {
        Output::Json => output::json(answer)?,
        Output::Text => {
            output::text(answer["sentence"].as_str().unwrap_or("sent; not confirmed yet"));
            if let Some(applied) = applied.as_ref().filter(|applied| !applied.done) {
                output::text(not_applied(applied));
            }
        }
    }
    // Without a sentence the command is not confirmed.
    let is_done = answer["sentence"].is_string() && is_applied(applied.as_ref());
    Ok(exit::done_if(is_done))
}

#[cfg(test)]
mod tests {
    use serin_schemas::records::Action;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::samples::Sample;

    #[test]
    fn an_unchanged_rollout_is_reported_with_its_phase_and_how_to_start_over() {
        let running = Sample::started().warm();
        let [first, second] = unchanged(&running.state());
        assert!(first.starts_with("unchanged: rollout 01a1fdf2"), "{first}");
        assert!(first.contains(" runs with this file. "), "{first}");
        assert_eq!(second, "to start over with the same file, end it first: serin abort flights");
        let paused = running.command(Action::Pause, "late labels");
        let [first, _] = unchanged(&paused.state());
        assert!(first.contains(" runs with this file and is paused. "), "{first}");
    }

    /// A controller without rollouts, which returns this for its events.
    async fn controller(events: (u16, &'static str)) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::at(&format!("http://{}", listener.local_addr().unwrap()), None, None).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap() == 0 {
                        break;
                    }
                }
                let asked = String::from_utf8_lossy(&head).contains("/events?");
                let (status, body) = if asked { events } else { (404, "{\"error\": \"there is no rollout\"}") };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        api
    }

    #[tokio::test]
    async fn an_unconfirmed_rollout_is_not_an_error_but_a_refused_one_is() {
        let silent = controller((404, "{\"error\": \"there is no rollout\"}")).await;
        assert!(!is_confirmed(&silent, "r1", &mut Deadline::of("0s").unwrap()).await.unwrap());
        let refused = "{\"events\": [{\"kind\": \"refused\", \"sentence\": \"apply refused: no\"}], \"next\": 1}";
        let refusing = controller((200, refused)).await;
        let error = is_confirmed(&refusing, "r1", &mut Deadline::of("1h").unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "apply refused: no");
    }
}
