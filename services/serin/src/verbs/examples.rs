//! `serin explain --examples`: captured calls, those that show a finding first.

use std::{fmt::Write as _, process::ExitCode};

use serde_json::Value;
use serin_insight::examples::{Shows, shows, why_none};
use serin_schemas::records::{Capture, MetricResult, Segment, Verdict};

use super::meant::meant;
use crate::{
    cli::{Explain, Output},
    client::{Api, ApiError},
    output,
    time::to_the_second,
};

/// Number of captured pairs in which those behind a finding are searched. The API returns no more.
const SEARCHED: usize = 100;

/// A finding that examples may show.
struct Finding {
    metric: String,
    segment: Segment,
    sentence: String,
}

impl Finding {
    fn name(&self) -> String {
        format!("{} ({})", self.metric, self.segment)
    }
}

/// `serin explain --examples`.
pub(super) async fn examples(api: &Api, args: &Explain, limit: usize) -> anyhow::Result<ExitCode> {
    let (state, _) = api.shown(&args.rollout).await?;
    let verdict = match api.verdict(state.id.as_str()).await {
        Err(ApiError::NotFound(_)) => None,
        verdict => Some(verdict?),
    };
    let metric = args.metric.as_deref().map(|metric| meant(metric, &state.spec)).transpose()?;
    let findings = verdict.as_ref().map_or_else(Vec::new, |verdict| findings(verdict, metric));
    let found = api.examples(state.id.as_str(), SEARCHED.max(limit)).await?;
    let with_findings = |capture: Capture| -> (Capture, Vec<usize>) {
        let shown = findings.iter().enumerate();
        let shown = shown.filter(|(_, one)| shows(&capture, &state.spec, &one.metric, &one.segment) == Shows::Yes);
        let places = shown.map(|(place, _)| place).collect();
        (capture, places)
    };
    let any = !found.is_empty();
    let mut found: Vec<(Capture, Vec<usize>)> = found.into_iter().map(with_findings).collect();
    // The order of the API within both groups.
    found.sort_by_key(|(_, behind)| behind.is_empty());
    if metric.is_some() {
        found.retain(|(_, behind)| !behind.is_empty());
    }
    found.truncate(limit);
    if found.is_empty() {
        let why = match (why_none(&state.spec), any, metric) {
            (Some(why), ..) => format!("no examples: {why}"),
            (None, true, Some(metric)) if findings.is_empty() => {
                format!("no examples: {metric} has not failed, and no decision was made because of it")
            }
            (None, true, Some(metric)) => {
                format!("no examples: none of the newest {SEARCHED} captured pairs shows the finding on {metric}")
            }
            (None, true, None) => "no examples: --examples 0 shows none".to_owned(),
            (None, false, _) => {
                "no examples: no mirrored call was captured within the last two days. Pairs that agree are only \
                                 captured with `capture.share` above 0"
                    .to_owned()
            }
        };
        match args.remote.output {
            Output::Json => output::aside(why),
            Output::Text => output::text(why),
        }
    }
    if args.remote.output == Output::Json {
        let documents: anyhow::Result<Vec<Value>> =
            found.iter().map(|(capture, behind)| document(capture, behind, &findings)).collect();
        output::json(&documents?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown: Option<&[usize]> = None;
    for (capture, behind) in &found {
        if !findings.is_empty() && shown != Some(behind.as_slice()) {
            output::text(heading(behind, &findings));
            shown = Some(behind);
        }
        output::line(text_of(capture));
    }
    Ok(ExitCode::SUCCESS)
}

/// What failed, and the reasons of the decision, each once. `metric`: only findings on this one.
fn findings(verdict: &Verdict, metric: Option<&str>) -> Vec<Finding> {
    let failed = verdict.metrics.iter().filter(|known| known.result == MetricResult::Fail);
    let failed = failed.map(|known| (&known.metric, &known.segment, &known.sentence));
    let reasons = verdict.reasons.iter().map(|reason| (&reason.metric, &reason.segment, &reason.sentence));
    let mut findings: Vec<Finding> = Vec::new();
    for (name, segment, sentence) in failed.chain(reasons) {
        let known = findings.iter().any(|known| known.metric == *name && known.segment == *segment);
        if !known && metric.is_none_or(|metric| metric == name) {
            findings.push(Finding { metric: name.clone(), segment: segment.clone(), sentence: sentence.clone() });
        }
    }
    findings
}

fn heading(behind: &[usize], findings: &[Finding]) -> String {
    match behind {
        [] => "Captured, but not known to show a finding:".to_owned(),
        [one] => format!("Shows {}: {}", findings[*one].name(), findings[*one].sentence),
        several => {
            let names: Vec<String> = several.iter().map(|place| findings[*place].name()).collect();
            format!("Shows {}:", names.join(", "))
        }
    }
}

/// An example as JSON, with the findings that it shows.
fn document(capture: &Capture, behind: &[usize], findings: &[Finding]) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(capture)?;
    let shown = behind.iter().map(|place| &findings[*place]);
    document["shows"] = shown
        .map(|one| serde_json::json!({"metric": one.metric, "segment": one.segment, "sentence": one.sentence}))
        .collect();
    Ok(document)
}

/// One pair of answers as text.
fn text_of(example: &Capture) -> String {
    let mut text = format!("{} UTC  request {}  ({})", to_the_second(example.at), example.request_id, example.reason);
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
