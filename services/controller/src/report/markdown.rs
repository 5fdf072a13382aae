//! The report as Markdown.

use std::fmt::Write as _;

use super::{Act, ActKind, Report, words};
use words::utc;

/// Verdicts of one check that are listed.
const MOMENTS: usize = 8;

/// The report as one Markdown page.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let (stable, canary) = (safe(report.stable.as_str()), safe(report.canary.as_str()));
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("# Rollout report: {}, {stable} to {canary}\n", safe(report.model.as_str())));
    line(format!("**{}.** {}\n", words::outcome(report), safe(&report.sentence)));
    line(facts(report));
    if let Some(evidence) = &report.evidence {
        let title = if evidence.decided { "The evidence that decided" } else { "The newest evidence" };
        line(format!(
            "\n## {title}\n\nVerdict {} through {} UTC: {}\n",
            evidence.id,
            utc(evidence.as_of),
            safe(&evidence.sentence)
        ));
        for reason in evidence.further_reasons() {
            line(format!(
                "- {} ({}): {}",
                safe(&reason.metric),
                safe(&reason.segment.to_string()),
                safe(&reason.sentence)
            ));
        }
        if !evidence.further_reasons().is_empty() {
            line(String::new());
        }
        let rows = words::shown(&evidence.metrics).into_iter().map(|metric| words::row(metric, &report.spec));
        line(format!("{}\n\n{}", table(&words::ROW, rows), words::EFFECT));
    }
    line("\n## Steps\n".to_owned());
    let rows = report
        .steps
        .iter()
        .map(|step| [utc(step.when.at), words::share(step.canary_share), step.when.by.clone(), step.sentence.clone()]);
    line(table(&["event time (UTC)", "canary's share", "by", "what happened"], rows));
    line(people(report));
    line(over_time(report));
    line(calls(report));
    line(record(report));
    line("\n## Events\n".to_owned());
    let rows = report.events.iter().map(|linked| {
        let event = &linked.event;
        [
            linked.number.to_string(),
            utc(event.recorded_at),
            event.kind.as_str().to_owned(),
            event.actor.clone(),
            event.sentence.clone(),
            linked.link[..12].to_owned(),
        ]
    });
    line(table(&["number", "recorded (UTC)", "event", "by", "what happened", "link"], rows));
    for note in &report.notes {
        line(format!("\nNote: {}", safe(note)));
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// The facts of a report: who, what, when.
pub(super) fn fact_rows(report: &Report) -> Vec<[String; 2]> {
    let moment = |moment: &super::Moment| {
        format!("{} UTC by {} (event time {} UTC)", utc(moment.recorded_at), moment.by, utc(moment.at))
    };
    let unknown = || "not on the log any more".to_owned();
    let mut rows = vec![
        ["Model".to_owned(), report.model.to_string()],
        ["Versions".to_owned(), format!("stable {}, canary {}", report.stable, report.canary)],
        ["Rollout".to_owned(), report.rollout.to_string()],
        ["Started".to_owned(), report.started.as_ref().map_or_else(unknown, moment)],
        ["Ended".to_owned(), report.ended.as_ref().map_or_else(|| "not yet".to_owned(), moment)],
        ["Rollout file".to_owned(), format!("SHA-256 {}", report.revision)],
        ["Report made".to_owned(), format!("{} UTC by Serin {}", utc(report.made_at), report.build)],
    ];
    if report.attempt > 1 {
        rows.push(["Attempt".to_owned(), report.attempt.to_string()]);
    }
    rows
}

fn facts(report: &Report) -> String {
    table(&["", ""], fact_rows(report))
}

/// A person's action in the cells of a table: when, by whom, what, reason, what happened.
pub(super) fn act_row(act: &Act) -> [String; 5] {
    let action = act.action.and_then(|action| serde_json::to_value(action).ok());
    let action = action.as_ref().and_then(serde_json::Value::as_str).map(|action| action.replace('_', "-"));
    let mut what = action.unwrap_or_else(|| "?".to_owned());
    if act.force {
        what += ", forced";
    }
    if act.refused {
        what += ", refused";
    }
    let reason = act.reason.clone().unwrap_or_else(|| "-".to_owned());
    [utc(act.when.recorded_at), act.when.by.clone(), what, reason, act.sentence.clone()]
}

/// The head of the table of [`act_row`].
pub(super) const ACT: [&str; 5] = ["recorded (UTC)", "by", "action", "reason", "what happened"];

fn people(report: &Report) -> String {
    let of = |kind: ActKind| report.people.iter().filter(move |act| act.kind == kind);
    let mut text = "\n## Approvals\n\n".to_owned();
    if of(ActKind::Approval).next().is_none() {
        text += "No approval was given or refused.\n";
    } else {
        text += &table(&ACT, of(ActKind::Approval).map(act_row));
    }
    text.truncate(text.trim_end().len());
    text += "\n\n## Overrides\n\n";
    if of(ActKind::Override).next().is_none() {
        text += "No one stepped in.";
    } else {
        text += table(&ACT, of(ActKind::Override).map(act_row)).trim_end();
    }
    text
}

fn over_time(report: &Report) -> String {
    let series = &report.series;
    let mut text = format!(
        "\n## Verdicts over time\n\n{} verdicts. The table has a part of them; the report as JSON has {}.\n",
        series.seen,
        if series.every > 1 { format!("one of {}", series.every) } else { "all".to_owned() }
    );
    let step = series.points.len().div_ceil(MOMENTS).max(1);
    let last = series.points.len().saturating_sub(1);
    let kept = series.points.iter().enumerate().filter(|(place, _)| place % step == 0 || *place == last);
    let mut rows = Vec::new();
    for (_, judged) in kept {
        for metric in
            judged.point.metrics.iter().filter(|metric| metric.effect_low.is_some() || metric.effect_high.is_some())
        {
            let (_, unit) = words::units(&metric.metric, &report.spec);
            rows.push([
                metric.metric.clone(),
                metric.segment.to_string(),
                utc(judged.point.as_of),
                words::share(judged.canary_share),
                unit.interval(metric.effect_low, metric.effect_high),
                words::result(metric.result, metric.no_data),
            ]);
        }
    }
    // By check, and in time within each.
    rows.sort_by(|one, other| (&one[0], &one[1]).cmp(&(&other[0], &other[1])));
    if !rows.is_empty() {
        text.push('\n');
        text += table(&["metric", "segment", "through (UTC)", "share", "interval of the effect", "result"], rows)
            .trim_end();
    }
    text
}

fn calls(report: &Report) -> String {
    let mut text = "\n## Blast radius\n\n".to_owned();
    let Some(calls) = &report.calls else { return text + "The canary answered no call that was compared." };
    let _ = writeln!(text, "- {}, canary: {}", safe(calls.canary.version.as_str()), words::outcomes(&calls.canary));
    if let Some(control) = &calls.control {
        let _ = writeln!(text, "- {}, control: {}", safe(control.version.as_str()), words::outcomes(control));
    }
    for harmed in words::harmed(report) {
        let _ = writeln!(text, "- {}", safe(&harmed));
    }
    text.trim_end().to_owned()
}

fn record(report: &Report) -> String {
    let replay: String = report.replay.iter().fold(String::new(), |text, command| text + "    " + command + "\n");
    format!(
        "\n## Record\n\nTo judge the recorded windows again, by the recorded rollout file or by another one:\n\n{replay}\n{} To compare \
         this file with the log: `serin report --verify FILE`.\n\n    {}",
        words::CHAIN,
        words::chain_line(report)
    )
}

/// A table. The cells are escaped.
fn table<const N: usize>(head: &[&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|name| (*name).to_owned()).collect());
    // Writing to a string does not fail.
    let _ = writeln!(text, "|{}", "---|".repeat(N));
    for row in rows {
        text += &line(row.iter().map(|cell| safe(cell)).collect());
    }
    text.truncate(text.trim_end().len());
    text
}

/// A text that has no meaning in Markdown beyond its words. Reasons and names are written by people.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '[' | ']' | '`' | '*' | '\\' => safe.extend(['\\', c]),
            '<' => safe += "&lt;",
            '&' => safe += "&amp;",
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
