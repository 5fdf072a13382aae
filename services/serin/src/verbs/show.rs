//! Verbs that show something: `list`, `get`, `explain`.

use std::{fmt::Write as _, io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use serin_rollout::{Outcome, RolloutState, planner::Applied};
use serin_schemas::{
    ids::{EventTime, ModelName, Version},
    records::{Arm, Capture, Correction, Decision, MetricVerdict, RouterStatus, Undecided, Verdict},
};

use super::{patience::Patience, progress};
use crate::{
    cli::{Explain, Get, Output, Remote},
    client::{Api, ApiError},
    evidence::{self, Rows},
    output,
    time::{date, span, to_the_second},
};

/// How long one look for something new may take.
const WAIT: Duration = Duration::from_secs(5);

/// `serin list`.
pub(crate) async fn list(args: &Remote) -> anyhow::Result<ExitCode> {
    let rollouts = Api::new(args)?.rollouts().await?;
    if args.output == Output::Json {
        output::json(&rollouts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let states: Vec<RolloutState> =
        serde_json::from_value(rollouts).context("something this version of serin cannot read")?;
    if states.is_empty() {
        output::line("no rollouts yet; start one with: serin apply -f rollout.yaml");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["model", "canary", "stable", "phase", "step", "weight", "rollout", ""]);
    for state in states {
        table.add_row([
            state.spec.model.to_string(),
            state.spec.canary.version.to_string(),
            state.spec.stable.version.to_string(),
            phase(&state),
            step(&state),
            weight(&state),
            state.id.to_string(),
            state.sentence.clone(),
        ]);
    }
    output::line(table);
    Ok(ExitCode::SUCCESS)
}

/// `serin get`.
pub(crate) async fn get(args: &Get) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    let mut patience = Patience::of(if args.watch { &args.timeout } else { "0s" })?;
    let live = args.watch && args.remote.output == Output::Text && std::io::stdout().is_terminal();
    let (mut rollout, mut after, mut began) = (args.rollout.clone(), 0, None);
    loop {
        let (state, applied) = patience.ask(|| api.shown(&rollout)).await?;
        // By a model's name the rollout of now is meant, also when another one follows it.
        state.id.as_str().clone_into(&mut rollout);
        let verdict = optional(patience.ask(|| api.verdict(&rollout)).await)?;
        let wait = if args.watch && after > 0 { WAIT } else { Duration::ZERO };
        let page = patience.ask(|| api.events(&rollout, after, wait)).await?;
        // What routers tell is beside the state: an API that does not know it hides nothing else.
        let routers = api.routers().await.unwrap_or_default();
        let told =
            Told { applied, undecided: undecided(&routers, &state.spec.model), refused: refused(&routers, &state) };
        match args.remote.output {
            Output::Json if args.watch => {
                output::json_line(&document(&state, verdict.as_ref(), &page, &told))?;
            }
            Output::Json => output::json(&document(&state, verdict.as_ref(), &page, &told))?,
            Output::Text => {
                if live {
                    // ANSI: home, erase to the end of the screen.
                    output::line("\x1b[H\x1b[2J");
                }
                began = began.or_else(|| first_step(&page));
                output::line(screen(&state, verdict.as_ref(), &page, &told, began));
            }
        }
        if !args.watch || state.phase.is_final() || patience.is_over() || output::is_closed() {
            return Ok(ExitCode::SUCCESS);
        }
        after = page["next"].as_u64().unwrap_or(after).max(1);
    }
}

/// When the first step began, if the events say so.
fn first_step(page: &Value) -> Option<EventTime> {
    let events = page["events"].as_array()?;
    let first = events.iter().find(|event| event["kind"] == "advanced" && event["step"] == 0)?;
    first["at"].as_i64().map(EventTime)
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
        "  ! router {router}: {what} could not be read in {calls} of {of} calls ({share:.1} %, {reason}); they went to {stable} and enter no comparison"
    )
}

/// No verdict yet is not an error.
fn optional(verdict: Result<Verdict, ApiError>) -> Result<Option<Verdict>, ApiError> {
    match verdict {
        Err(ApiError::NotFound(_)) => Ok(None),
        verdict => verdict.map(Some),
    }
}

/// One screen: where it stands, what serves, what the evidence says, what happened.
fn screen(
    state: &RolloutState,
    verdict: Option<&Verdict>,
    events: &Value,
    told: &Told,
    began: Option<EventTime>,
) -> String {
    let colour = std::io::stdout().is_terminal();
    let mut text = String::new();
    let _ = writeln!(text, "Model:     {}", state.spec.model);
    let _ = writeln!(text, "Rollout:   {}", state.id);
    let _ = writeln!(text, "Canary:    {}   Stable: {}", state.spec.canary.version, state.spec.stable.version);
    let _ = writeln!(text, "Phase:     {}   Step: {}   Weight: {}", phase(state), step(state), weight(state));
    let _ = writeln!(text, "Routing:   {}", routing(state, told));
    let _ = writeln!(text, "Message:   {}", state.sentence);
    let _ = writeln!(text, "\nRamp:      {}", ramp(state));
    for line in progress::lines(state, verdict, began) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(verdict) = verdict {
        let _ = writeln!(
            text,
            "\nEvidence through {} UTC, score {:.0} .. {:.0}: {}",
            progress::moment(verdict.as_of, state.spec.window),
            verdict.score_low,
            verdict.score_high,
            verdict.sentence
        );
        // While warming nothing is compared.
        let warming = verdict.warmup_events.is_some();
        if !warming {
            let _ = writeln!(text, "\n{}", evidence::table(verdict, Rows::Telling, colour));
        }
        for arm in verdict.arms.iter().filter(|arm| arm.arm != Arm::Stable && !warming) {
            let (name, outcomes) = (arm.arm.as_str(), evidence::outcomes(arm));
            let _ = writeln!(text, "  {name}: {} answers compared: {outcomes}", arm.predictions);
        }
        for issue in &verdict.health {
            let _ = writeln!(text, "  ! {} (policy: {})", issue.sentence, issue.policy);
        }
    }
    for (router, told) in &told.undecided {
        let _ = writeln!(text, "{}", undecided_sentence(router, told, &state.spec.stable.version));
    }
    let events: Vec<&Value> = events["events"].as_array().into_iter().flatten().collect();
    if !events.is_empty() {
        let _ = writeln!(text, "\nEvents: (UTC)");
        for event in events.iter().rev().take(10).rev() {
            let recorded =
                event["recorded_at"].as_i64().map_or_else(|| "?".to_owned(), |at| to_the_second(EventTime(at)));
            let _ = writeln!(text, "  {recorded}  {}", event["sentence"].as_str().unwrap_or_default());
        }
    }
    text
}

/// Which table, and who uses it.
fn routing(state: &RolloutState, told: &Told) -> String {
    if !state.acts() {
        return "no table: it is only observed (mode: observe), so no call moves".to_owned();
    }
    let mut text = match &told.applied {
        None => format!("generation {}", state.generation),
        Some(applied) if applied.done => {
            format!("generation {}, applied by {}", state.generation, applied.routers.join(", "))
        }
        Some(applied) => format!("generation {}, not applied yet: {}", state.generation, applied.waits_for),
    };
    // The one that is waited for has said so already.
    let more = told.refused.iter().filter(|_| told.applied.as_ref().is_none_or(|applied| !applied.refused));
    for refused in more {
        let _ = write!(text, "\n  ! {refused}");
    }
    text
}

fn ramp(state: &RolloutState) -> String {
    let ended_well = state.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Promoted);
    let promoted = state.promoted || ended_well;
    let marks = state.spec.steps.iter().enumerate().map(|(index, step)| {
        let index = index as i32;
        // Who promotes by hand leaves steps out.
        let mark = match index {
            _ if index < state.step || (promoted && index == state.step) => '✔',
            _ if index == state.step => '●',
            _ if promoted => '-',
            _ => '○',
        };
        format!("{mark} {step}")
    });
    marks.chain([format!("{} 100%", if promoted { '✔' } else { '○' })]).collect::<Vec<_>>().join("  ")
}

fn phase(state: &RolloutState) -> String {
    serde_json::to_value(state.phase).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn step(state: &RolloutState) -> String {
    if state.step < 0 { "-".to_owned() } else { format!("{}/{}", state.step + 1, state.spec.steps.len()) }
}

fn weight(state: &RolloutState) -> String {
    if !state.acts() {
        return "none (observed only)".to_owned();
    }
    format!("{}%", f64::from(state.canary_share) / 100.0)
}

/// `serin explain`.
pub(crate) async fn explain(args: &Explain) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    if let Some(limit) = args.examples {
        return examples(&api, args, limit).await;
    }
    let mut verdict = api.verdict(&args.rollout).await?;
    let state = api.state(&args.rollout).await?;
    let waits = progress::missing(&state, Some(&verdict));
    // Of all metrics, whichever is asked for: the list's bound is on the whole.
    let suspects: Vec<MetricVerdict> = evidence::suspects(&verdict).into_iter().cloned().collect();
    if let Some(metric) = &args.metric {
        let names: Vec<String> = verdict.metrics.iter().map(|known| known.metric.clone()).collect();
        let meant: &str = if names.contains(metric) { metric } else { serin_rollout::built_in_name(metric) };
        verdict.metrics.retain(|known| known.metric == meant);
        anyhow::ensure!(
            !verdict.metrics.is_empty(),
            "the rollout has no metric {metric:?}; it has {}",
            unique(names).join(", ")
        );
    }
    if args.remote.output == Output::Json {
        output::json(&with_suspects(&verdict, &suspects)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!(
        "Verdict {} of {} UTC on rollout {} (step {}, generation {})",
        verdict.id,
        progress::moment(verdict.as_of, state.spec.window),
        verdict.rollout,
        verdict.step + 1,
        verdict.generation
    ));
    if verdict.decision == Decision::Promote && !waits.is_empty() {
        let waits = waits.join("; ");
        output::line(format!(
            "Decision: the evidence allows the next step, which waits for {waits}. {}\n",
            verdict.sentence
        ));
    } else {
        output::line(format!("Decision: {}. {}\n", decision(&verdict), verdict.sentence));
    }
    if let Some(learned) = verdict.warmup_events {
        output::line(format!(
            "warm-up: {learned} good answers of {} learned from; nothing is compared yet",
            state.spec.stable.version
        ));
        for seen in &verdict.seen {
            output::line(format!("  {}: {} of {} answers carried a value", seen.metric, seen.values, seen.answers));
        }
        for issue in &verdict.health {
            output::line(format!("health: {} (policy: {})", issue.sentence, issue.policy));
        }
        return Ok(ExitCode::SUCCESS);
    }
    for reason in &verdict.reasons {
        output::line(format!("  because {} ({}): {}", reason.metric, reason.segment, reason.sentence));
    }
    output::line(format!("{}\n", evidence::table(&verdict, Rows::All, std::io::stdout().is_terminal())));
    for metric in &verdict.metrics {
        output::line(explanation(metric, verdict.as_of));
    }
    if !suspects.is_empty() {
        output::line("suspected segments (at most 5 % of such names are wrong on average; failed is what is proven):");
    }
    for suspect in &suspects {
        output::line(format!("  {}", evidence::suspicion(suspect)));
    }
    for group in &verdict.groups {
        output::line(format!(
            "group {}: {} (ln e against it {:.2}, budget share {:.4}, weight {} in the score)",
            group.group,
            name_of(group.result),
            group.ln_e_fail,
            group.weight,
            group.score_weight
        ));
    }
    if verdict.stable_is_out_of_date {
        output::line("stable is out of date: the canary is better in at least half of the judged metrics");
    }
    for arm in &verdict.arms {
        output::line(format!(
            "{} ({}): {} answers compared ({}), {} left out, {} late, {} lost",
            arm.arm.as_str(),
            arm.version,
            arm.predictions,
            evidence::outcomes(arm),
            arm.excluded,
            arm.late,
            arm.lost
        ));
    }
    for issue in &verdict.health {
        output::line(format!("health: {} (policy: {})", issue.sentence, issue.policy));
    }
    output::line(format!(
        "\nAll gates together: ln e = {:.2} against a rollback at ln(1/false_rollback); score {:.0} .. {:.0}",
        verdict.ln_e_rollback, verdict.score_low, verdict.score_high
    ));
    Ok(ExitCode::SUCCESS)
}

/// A verdict with the list of suspects, which follows from it.
fn with_suspects(verdict: &Verdict, suspects: &[MetricVerdict]) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(verdict)?;
    let one = |suspect: &MetricVerdict| json!({"metric": suspect.metric, "segment": suspect.segment, "ln_e_fail": suspect.ln_e_fail});
    value["suspects"] = suspects.iter().map(one).collect();
    Ok(value)
}

/// `serin explain --examples`.
async fn examples(api: &Api, args: &Explain, limit: usize) -> anyhow::Result<ExitCode> {
    let found = api.examples(&args.rollout, limit).await?;
    if args.remote.output == Output::Json {
        output::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        output::line(
            "no examples: nothing is mirrored, `capture` is not in the rollout file, or all pairs agree so far",
        );
    }
    for example in &found {
        output::line(example_text(example));
    }
    Ok(ExitCode::SUCCESS)
}

/// One pair of answers for people.
fn example_text(example: &Capture) -> String {
    let mut text = format!("{} UTC  request {}  ({})", date(example.at), example.request_id, example.reason);
    for difference in &example.differences {
        let _ = write!(text, "\n  {difference}");
    }
    let body = |body: &Option<String>, bytes: i64| body.clone().unwrap_or_else(|| format!("({bytes} bytes, not kept)"));
    let _ = write!(text, "\n  request  {}", body(&example.request, example.request_bytes));
    for answer in [&example.live, &example.shadow] {
        let status =
            answer.status.map_or_else(|| answer.error.clone().unwrap_or_default(), |status| status.to_string());
        let took = answer.latency_us.map_or(0.0, |micros| micros as f64 / 1e3);
        let (arm, version) = (answer.arm.as_str(), &answer.version);
        let _ = write!(text, "\n  {arm:<8} {version} {status} in {took:.1} ms  {}", body(&answer.body, answer.bytes));
    }
    text.push('\n');
    text
}

fn decision(verdict: &Verdict) -> String {
    name_of(verdict.decision)
}

/// The name of a variant, as on the wire.
fn name_of(variant: impl serde::Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// One metric's evidence in a sentence and its numbers.
fn explanation(metric: &MetricVerdict, as_of: serin_schemas::ids::EventTime) -> String {
    let mut text = format!("{} ({}): {}", metric.metric, metric.segment, metric.sentence);
    let corrected = match metric.correction {
        Correction::WeightedHolm => format!("{} after weighted Holm", probability(metric.p_fail)),
        Correction::None => "not corrected, for it is only watched".to_owned(),
    };
    let _ = write!(
        text,
        "\n    ln e against it {:.2}, for it {:.2}; anytime p {} ({corrected}); budget share {:.4}",
        metric.ln_e_fail,
        metric.ln_e_pass,
        probability(metric.p_anytime),
        metric.weight
    );
    if let Some(effect) = metric.design_effect {
        let _ = write!(text, ", {} answers count as one (clustered units)", evidence::short(effect));
    }
    if let Some(units) = metric.units {
        let _ = write!(text, ", about {} users", evidence::short(units));
    }
    if let Some(share) = metric.at_cap {
        let _ = write!(text, ", {:.2} % of the canary's values are at the cap", 100.0 * share);
    }
    if let Some(culprit) = &metric.culprit {
        let new = if metric.culprit_is_new { ", which control never showed" } else { "" };
        let _ = write!(text, ", most evidence is on {culprit}{new}");
    }
    if let Some(harm) = &metric.harm {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), evidence::short);
        let _ = write!(
            text,
            ", shown by the {} to {} UTC: {} against {}",
            span(harm.through.since(harm.from).as_secs_f64()),
            to_the_second(harm.through),
            number(harm.canary.value),
            number(harm.control.value)
        );
    }
    if let Some(at) = metric.failed_at {
        let _ = write!(text, ", failed at {} UTC", to_the_second(at));
    }
    if let Some(through) = metric.evidence_through {
        let _ = write!(text, ", evidence is {} behind", span(as_of.since(through).as_secs_f64()));
    }
    text
}

/// A probability in two significant digits.
fn probability(p: f64) -> String {
    match p {
        p if p >= 0.001 => format!("{p:.3}"),
        p if p > 0.0 => format!("{p:.1e}"),
        _ => "0".to_owned(),
    }
}

fn unique(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}
