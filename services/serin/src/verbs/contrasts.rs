//! `serin explain --contrasts`: where the arms differ most. A lead, never a verdict.

use std::process::ExitCode;

use serde_json::Value;
use serin_insight::contrast::{Both, Contrast, LEVEL, ReadFrom, Search};
use serin_kinds::Unit;
use serin_rollout::{Outcome, RolloutState};
use serin_schemas::records::{MetricResult, Verdict};
use serin_spec::RolloutSpec;

use super::meant::meant;
use crate::{
    cli::{Explain, Output},
    client::{Api, ApiError, read},
    evidence, output,
};

/// Most contrasts that are shown if none is a lead.
const SHOWN: usize = 3;

/// `serin explain --contrasts`.
pub(super) async fn contrasts(api: &Api, args: &Explain) -> anyhow::Result<ExitCode> {
    let (state, _) = api.shown(&args.rollout).await?;
    let verdict = match api.verdict(state.id.as_str()).await {
        Err(ApiError::NotFound(_)) => None,
        verdict => Some(verdict?),
    };
    let metric = args.metric.as_deref().map(|metric| meant(metric, &state.spec)).transpose()?;
    let mut document = api.contrasts(state.id.as_str()).await?;
    if let (Some(metric), Some(strongest)) = (metric, document["strongest"].as_array_mut()) {
        strongest.retain(|contrast| contrast["metric"] == metric);
    }
    if args.remote.output == Output::Json {
        output::json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    lines(&state, verdict.as_ref(), &document)?.into_iter().for_each(output::text);
    Ok(ExitCode::SUCCESS)
}

fn lines(state: &RolloutState, verdict: Option<&Verdict>, document: &Value) -> anyhow::Result<Vec<String>> {
    let search: Search = read(document.clone())?;
    let mut lines = vec![looked(&search)];
    if !is_in_doubt(state, verdict) {
        lines.push("Nothing is held and nothing has failed: what a search finds now is most likely chance.".to_owned());
    }
    let (leads, others): (Vec<_>, Vec<_>) = search.strongest.iter().partition(|contrast| contrast.lead);
    if leads.is_empty() {
        lines.push("No lead: no part of the calls stands out.".to_owned());
        if !others.is_empty() {
            lines.push("Strongest, and within what chance gives:".to_owned());
        }
        lines.extend(others.iter().take(SHOWN).map(|contrast| line(contrast, &state.spec)));
    } else {
        lines.push("Leads, strongest first. A lead is where to look next. It is not a verdict:".to_owned());
        lines.extend(leads.iter().map(|contrast| line(contrast, &state.spec)));
    }
    let notes = document["read"].as_array().into_iter().flatten().map(|read| &read["note"]);
    let notes = notes.chain(document["notes"].as_array().into_iter().flatten());
    lines.extend(notes.filter_map(Value::as_str).map(|note| format!("note: {note}")));
    Ok(lines)
}

/// How many contrasts were looked at, and what that means for the level.
fn looked(search: &Search) -> String {
    let few = match search.too_few {
        0 => String::new(),
        few => format!(" {few} more have too few answers to look at."),
    };
    format!(
        "Looked at {} contrasts, once.{few} A lead is one whose p times {} is at most {LEVEL} (Bonferroni); repeated searches \
         find leads by chance.",
        search.looked,
        search.looked.max(1)
    )
}

/// Whether a search is about something: a hold, a failed check, or an end without a promotion.
pub(super) fn is_in_doubt(state: &RolloutState, verdict: Option<&Verdict>) -> bool {
    let failed =
        || verdict.is_some_and(|verdict| verdict.metrics.iter().any(|metric| metric.result == MetricResult::Fail));
    let ended = || state.ending.as_ref().is_some_and(|ending| ending.outcome != Outcome::Promoted);
    state.hold.is_some() || ended() || failed()
}

fn line(contrast: &Contrast, spec: &RolloutSpec) -> String {
    let place: Vec<String> = contrast.place.iter().map(ToString::to_string).collect();
    let value = |value: f64| match contrast.measure {
        Some(_) => Unit::Percent.value(value),
        None => evidence::value(&contrast.metric, spec, Some(value)),
    };
    let both = |both: &Both| match &both.control {
        Some(control) => format!("{} against {}", value(both.canary.value), value(control.value)),
        None => value(both.canary.value),
    };
    let measure = contrast.measure.as_ref().map_or(String::new(), |measure| format!(", {measure}"));
    let answers = match &contrast.here.control {
        Some(control) => format!("{}/{} answers", contrast.here.canary.n, control.n),
        None => format!("{} captured pairs", contrast.here.canary.n),
    };
    let from = match contrast.from {
        ReadFrom::Windows => "windows",
        ReadFrom::Events => "events",
        ReadFrom::Captures => "captures",
    };
    format!(
        "  {}{measure}, where {}: {} here, {} elsewhere ({answers} from `{from}`; z {:.1}, p {}, corrected {})",
        contrast.metric,
        place.join(" and "),
        both(&contrast.here),
        both(&contrast.elsewhere),
        contrast.z,
        probability(contrast.p),
        probability(contrast.p_corrected),
    )
}

fn probability(p: f64) -> String {
    match p {
        p if p >= 0.001 => format!("{p:.3}"),
        p if p > 0.0 => format!("{p:.0e}"),
        _ => "< 1e-300".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples::{Sample, failing};

    fn contrast(p: f64, lead: bool) -> Value {
        let both = |canary: f64, control: f64| json!({"canary": {"n": 812.0, "value": canary}, "control": {"n": 8095.0, "value": control}});
        json!({
            "metric": "wrong", "measure": null, "from": "events", "z": 6.2, "p": p, "p_corrected": p * 40.0, "lead": lead,
            "place": [{"dimension": "origin", "value": "LGA"}, {"dimension": "carrier", "value": "UA"}],
            "here": both(0.3125, 0.156), "elsewhere": both(0.15, 0.151),
        })
    }

    fn text(sample: &Sample, strongest: &Value) -> String {
        let document = json!({
            "looked": 40, "too_few": 3, "strongest": strongest,
            "read": [{"topic": "windows", "note": null}, {"topic": "events", "note": "read: the newest 5 records"}],
            "notes": ["not searched: set `capture`"],
        });
        lines(&sample.state(), sample.verdict.as_ref(), &document).unwrap().join("\n")
    }

    #[test]
    fn leads_are_shown_with_their_multiplicity() {
        let failed = Sample::started().at_step(1).verdict(2000, failing);
        insta::assert_snapshot!(text(&failed, &json!([contrast(5e-10, true)])), @r"
        Looked at 40 contrasts, once. 3 more have too few answers to look at. A lead is one whose p times 40 is at most 0.05 (Bonferroni); repeated searches find leads by chance.
        Leads, strongest first. A lead is where to look next. It is not a verdict:
          wrong, where origin=LGA and carrier=UA: 31.2 % against 15.6 % here, 15.0 % against 15.1 % elsewhere (812/8095 answers from `events`; z 6.2, p 5e-10, corrected 2e-8)
        note: read: the newest 5 records
        note: not searched: set `capture`
        ");
        let healthy = Sample::started().at_step(1);
        insta::assert_snapshot!(text(&healthy, &json!([contrast(0.02, false)])), @r"
        Looked at 40 contrasts, once. 3 more have too few answers to look at. A lead is one whose p times 40 is at most 0.05 (Bonferroni); repeated searches find leads by chance.
        Nothing is held and nothing has failed: what a search finds now is most likely chance.
        No lead: no part of the calls stands out.
        Strongest, and within what chance gives:
          wrong, where origin=LGA and carrier=UA: 31.2 % against 15.6 % here, 15.0 % against 15.1 % elsewhere (812/8095 answers from `events`; z 6.2, p 0.020, corrected 0.800)
        note: read: the newest 5 records
        note: not searched: set `capture`
        ");
    }
}
