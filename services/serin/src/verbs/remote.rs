//! Verbs that change something at the controller: `apply`, `status`, `promote`, `pause`, `resume`, `abort`, `stop`.

use std::{
    io::Read as _,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;
use serin_rollout::{Outcome, RolloutSpec, RolloutState, units};

use super::local::{print_problems, print_warnings};
use crate::{
    cli::{Act, Apply, Output, Remote, Status, Stop},
    client::{Api, ApiError},
    output, plan,
};

/// `serin status`: the rollout ended well.
const PROMOTED: u8 = 0;
/// `serin status`: still running, or the wait timed out.
const RUNNING: u8 = 1;
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
            print_warnings(&args.file.display().to_string(), &checked);
            output::line(format!("rollout {rollout} accepted. {sentence}"));
            if let Some(proof) = checked.spec.as_ref().and_then(how_long) {
                output::line(proof);
            }
            output::line(format!("watch it with: serin get {rollout} --watch"));
        }
    }
    if args.wait { wait(&api, &rollout, &args.remote, None).await } else { Ok(ExitCode::SUCCESS) }
}

/// Traffic for which it is said how long a proof takes, in requests per second.
const RATES: [f64; 4] = [0.1, 1.0, 10.0, 100.0];

/// How long a proof takes, for a model whose traffic is not known: where little comes, it takes days.
fn how_long(spec: &RolloutSpec) -> Option<String> {
    let spec = spec.normalised();
    let at = |per_second: f64| Some(format!("  at {per_second} requests/s {}", plan::proof(&spec, per_second)?));
    let lines: Vec<String> = RATES.into_iter().filter_map(at).collect();
    (!lines.is_empty()).then(|| {
        let lines = lines.join("\n");
        let about = "how long it takes until a version equal to stable has passed";
        format!("{about} (for your own traffic: serin plan -f FILE --traffic RATE):\n{lines}")
    })
}

/// `serin status`.
pub(crate) async fn status(args: &Status) -> anyhow::Result<ExitCode> {
    let timeout = units::Duration::parse(&args.timeout).map_err(|error| anyhow::anyhow!("--timeout: {error}"))?;
    let api = Api::new(&args.remote)?;
    if args.wait {
        let deadline = Instant::now() + Duration::from_micros(timeout.0.0.unsigned_abs());
        return wait(&api, &args.rollout, &args.remote, Some(deadline)).await;
    }
    let state = api.state(&args.rollout).await?;
    print_state(&state, args.remote.output)?;
    Ok(exit_code(&state))
}

/// Waits until a rollout ends, telling what happens to it on the way.
async fn wait(api: &Api, rollout: &str, remote: &Remote, deadline: Option<Instant>) -> anyhow::Result<ExitCode> {
    let mut after = 0;
    let mut told = String::new();
    loop {
        let state = api.state(rollout).await?;
        if state.phase.is_final() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            if remote.output == Output::Json || told != state.sentence {
                print_state(&state, remote.output)?;
            }
            return Ok(exit_code(&state));
        }
        let page = api.events(rollout, after, Duration::from_secs(20)).await?;
        after = page["next"].as_u64().unwrap_or(after);
        if remote.output == Output::Text {
            for event in page["events"].as_array().into_iter().flatten() {
                event["sentence"].as_str().unwrap_or_default().clone_into(&mut told);
                output::line(&told);
            }
        }
    }
}

fn print_state(state: &RolloutState, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => output::json(state),
        Output::Text => {
            output::line(&state.sentence);
            Ok(())
        }
    }
}

fn exit_code(state: &RolloutState) -> ExitCode {
    ExitCode::from(match state.ending.as_ref().map(|ending| ending.outcome) {
        None if state.promoted => PROMOTED,
        None => RUNNING,
        Some(Outcome::Promoted) => PROMOTED,
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

/// Prints what the controller made of a command.
fn print_answer(answer: &Value, output: Output) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => output::json(answer)?,
        Output::Text => output::line(answer["sentence"].as_str().unwrap_or("sent; not confirmed yet")),
    }
    Ok(ExitCode::SUCCESS)
}
