//! `serin explain`: the last verdict of a rollout, with all its evidence.

mod over_time;

use std::{fmt::Write as _, process::ExitCode};

use serde_json::{Value, json};
use serin_rollout::{RolloutState, planner::Applied};
use serin_schemas::{
    ids::EventTime,
    records::{Arm, ArmSummary, Correction, Decision, MetricVerdict, Verdict},
};
use serin_spec::RolloutSpec;

use super::{
    contrasts::{contrasts, is_in_doubt},
    examples::examples,
    meant::meant,
    progress::{Missing, by_people},
};
use crate::{
    cli::{Explain, Output},
    client::{Api, ApiError},
    evidence::{self, Rows},
    headline::headline,
    output,
    terminal::Terminal,
    time::{span, to_the_second},
};

/// `serin explain`.
pub(crate) async fn explain(args: &Explain) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.remote)?;
    if let Some(limit) = args.examples {
        return examples(&api, args, limit).await;
    }
    if args.contrasts {
        return contrasts(&api, args).await;
    }
    let (state, applied) = api.shown(&args.rollout).await?;
    if args.over_time {
        let series = api.verdicts(state.id.as_str()).await?;
        let metric = args.metric.as_ref().map(|metric| meant(metric, &state.spec)).transpose()?;
        match args.remote.output {
            Output::Json => output::json(&series)?,
            Output::Text => {
                let lines = over_time::plots(&series, &state.spec, metric, Terminal::stdout());
                lines.into_iter().for_each(output::line);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut verdict = match api.verdict(state.id.as_str()).await {
        Err(ApiError::NotFound(_)) if args.remote.output == Output::Text => {
            return Ok(nothing_yet(&state, applied.as_ref()));
        }
        verdict => verdict?,
    };
    // Of all metrics, even with --metric: the bound on wrong names holds for the whole list.
    let suspects: Vec<MetricVerdict> = evidence::suspects(&verdict).into_iter().cloned().collect();
    if let Some(metric) = &args.metric {
        let meant = meant(metric, &state.spec)?;
        verdict.metrics.retain(|known| known.metric == meant);
    }
    if args.remote.output == Output::Json {
        output::json(&with_suspects(&verdict, &suspects)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = Terminal::stdout();
    for line in lines(&state, applied.as_ref(), &verdict, &suspects, terminal) {
        output::line(line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a verdict there is no evidence yet, which is not a failure.
fn nothing_yet(state: &RolloutState, applied: Option<&Applied>) -> ExitCode {
    let terminal = Terminal::stdout();
    let (tone, first) = headline(state, applied);
    output::line(terminal.paint(&first, tone));
    output::line(terminal.wrap(&state.sentence, 0));
    output::line(
        terminal.wrap("no evidence yet: the first verdict is written when the first window with calls has closed", 0),
    );
    ExitCode::SUCCESS
}

/// The explanation as lines: headline, decision, then all the evidence.
fn lines(
    state: &RolloutState,
    applied: Option<&Applied>,
    verdict: &Verdict,
    suspects: &[MetricVerdict],
    terminal: Terminal,
) -> Vec<String> {
    let (tone, first) = headline(state, applied);
    let mut lines: Vec<String> = terminal.wrap(&first, 0).lines().map(|line| terminal.paint(line, tone)).collect();
    let mut add = |text: String| lines.extend(terminal.wrap(&text, 2).split('\n').map(str::to_owned));
    add(decided(state, verdict));
    for reason in &verdict.reasons {
        add(format!("  because {} ({}): {}", reason.metric, reason.segment, reason.sentence));
    }
    by_people(state).into_iter().for_each(&mut add);
    add(String::new());
    if let Some(learned) = verdict.warmup_events {
        let stable = state.spec.stable.version.in_words();
        add(format!("warm-up: learned from {learned} good answers of {stable}; nothing is compared yet"));
        for seen in &verdict.seen {
            add(format!("  {}: {} of {} answers had a value", seen.metric, seen.values, seen.answers));
        }
    } else {
        evidence::table(verdict, &state.spec, Rows::All, terminal).into_iter().for_each(&mut add);
        add(String::new());
        for metric in &verdict.metrics {
            add(explanation(metric, &state.spec, verdict.as_of));
        }
    }
    if !suspects.is_empty() {
        add("suspected segments (on average at most 5 % of these names are wrong; only a failed check is proof):"
            .to_owned());
    }
    for suspect in suspects {
        add(format!("  {}", evidence::suspicion(suspect)));
    }
    for group in &verdict.groups {
        add(format!(
            "group {}: {} (ln e against it {:.2}, budget share {:.4}, weight {} in the score)",
            group.group,
            name_of(group.result),
            group.ln_e_fail,
            group.weight,
            group.score_weight
        ));
    }
    if verdict.stable_is_out_of_date {
        add("stable is out of date: the canary is better in at least half of the judged metrics".to_owned());
    }
    // In warm-up no arm is compared. Later, stable's own answers appear only if some were left out.
    let has_any = |arm: &ArmSummary| arm.predictions + arm.excluded + arm.late + arm.lost > 0;
    let compared = |arm: &&ArmSummary| has_any(arm) || (arm.arm != Arm::Stable && verdict.warmup_events.is_none());
    for arm in verdict.arms.iter().filter(compared) {
        add(format!(
            "{} ({}): {} answers compared ({}), {} left out, {} late, {} lost",
            arm.arm.as_str(),
            arm.version.in_words(),
            arm.predictions,
            evidence::outcomes(arm),
            arm.excluded,
            arm.late,
            arm.lost
        ));
    }
    for issue in &verdict.health {
        add(format!("health: {} (policy: {})", issue.sentence, issue.policy));
    }
    if verdict.warmup_events.is_none() {
        add(format!(
            "\nAll gates together: ln e = {:.2} against a rollback at ln(1/false_rollback); score {:.0} .. {:.0}",
            verdict.ln_e_rollback, verdict.score_low, verdict.score_high
        ));
    }
    if is_in_doubt(state, Some(verdict)) {
        add(format!(
            "Where the arms differ most: serin explain {0} --contrasts; calls: serin explain {0} --examples",
            state.id
        ));
    }
    let step = if verdict.step < 0 { "warm-up".to_owned() } else { format!("step {}", verdict.step + 1) };
    add(format!(
        "Verdict {} of {} UTC on rollout {} ({step}, generation {})",
        verdict.id,
        to_the_second(verdict.as_of),
        verdict.rollout,
        verdict.generation
    ));
    lines
}

/// The decision of the verdict, and what an allowed next step still waits for.
fn decided(state: &RolloutState, verdict: &Verdict) -> String {
    let waits = Missing::of(state, Some(verdict)).parts.join("; ");
    if verdict.decision == Decision::Promote && !waits.is_empty() {
        return format!(
            "Decision: the evidence allows the next step, which still waits for {waits}. {}",
            verdict.sentence
        );
    }
    format!("Decision: {}. {}", name_of(verdict.decision), verdict.sentence)
}

/// A verdict with its list of suspects, as JSON.
fn with_suspects(verdict: &Verdict, suspects: &[MetricVerdict]) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(verdict)?;
    let one = |suspect: &MetricVerdict| json!({"metric": suspect.metric, "segment": suspect.segment, "ln_e_fail": suspect.ln_e_fail});
    value["suspects"] = suspects.iter().map(one).collect();
    Ok(value)
}

/// The name of a variant on the wire.
fn name_of(variant: impl serde::Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The evidence of one metric: its sentence and its numbers.
fn explanation(metric: &MetricVerdict, spec: &RolloutSpec, as_of: EventTime) -> String {
    let mut text = format!("{} ({}): {}", metric.metric, metric.segment, metric.sentence);
    let corrected = match metric.correction {
        Correction::WeightedHolm => format!("{} after weighted Holm", probability(metric.p_fail)),
        Correction::None => "not corrected, because it is only watched".to_owned(),
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
        let new = if metric.culprit_is_new { ", which control never had" } else { "" };
        let _ = write!(text, ", most evidence is on {culprit}{new}");
    }
    if let Some(harm) = &metric.harm {
        let number = |value: Option<f64>| evidence::value(&metric.metric, spec, value);
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

/// A probability in short form.
fn probability(p: f64) -> String {
    match p {
        p if p >= 0.001 => format!("{p:.3}"),
        p if p > 0.0 => format!("{p:.1e}"),
        _ => "0".to_owned(),
    }
}
