//! The report as one HTML page: pictures and tables, without a script and without any other file.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{
    ActKind, Report,
    markdown::{ACT, act_row, fact_rows},
    plot::plots,
    words::{self, utc},
};

const STYLE: &str = include_str!("report.css");

/// The content security policy of the page: nothing but its own style, which is named by its hash.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
    )
});

/// The report as one HTML page.
pub(crate) fn html(report: &Report) -> String {
    let title = format!("{}: {} to {}", report.model, report.stable, report.canary);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>Rollout report, {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         <p class=\"{}\"><strong>{}.</strong> {}</p>\n",
        words::tone(report),
        words::outcome(report),
        escaped(&report.sentence),
        title = escaped(&title),
    );
    let mut part = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    part(facts(report));
    part(evidence(report));
    part(pictures(report));
    let steps = report
        .steps
        .iter()
        .map(|step| [utc(step.when.at), words::share(step.canary_share), step.when.by.clone(), step.sentence.clone()]);
    part(section("Steps", &table(&["event time (UTC)", "canary's share", "by", "what happened"], steps)));
    for (kind, name, none) in [
        (ActKind::Approval, "Approvals", "No approval was given or refused."),
        (ActKind::Override, "Overrides", "No one stepped in."),
    ] {
        let mut acts = report.people.iter().filter(|act| act.kind == kind).map(act_row).peekable();
        let body = if acts.peek().is_none() { format!("<p>{none}</p>") } else { table(&ACT, acts) };
        part(section(name, &body));
    }
    part(section("Blast radius", &calls(report)));
    part(section("Record", &record(report)));
    let events = report.events.iter().map(|linked| {
        let event = &linked.event;
        let kind = event.kind.as_str().to_owned();
        let link = linked.link[..12].to_owned();
        [linked.number.to_string(), utc(event.recorded_at), kind, event.actor.clone(), event.sentence.clone(), link]
    });
    part(section("Events", &table(&["number", "recorded (UTC)", "event", "by", "what happened", "link"], events)));
    let spec = serde_json::to_string_pretty(&report.spec).unwrap_or_default();
    part(section(
        "Rollout file",
        &format!("<details><summary>Show, normalized, as JSON</summary><pre>{}</pre></details>", escaped(&spec)),
    ));
    let notes: String = report
        .notes
        .iter()
        .map(|note| format!("Note: {note}"))
        .map(|note| element("p class=\"note\"", &note))
        .collect();
    part(notes);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn facts(report: &Report) -> String {
    let rows = fact_rows(report).into_iter();
    let rows: String = rows.map(|[name, value]| element("dt", &name) + &element("dd", &value)).collect();
    format!("<dl>{rows}</dl>")
}

fn evidence(report: &Report) -> String {
    let Some(evidence) = &report.evidence else {
        return section("Evidence", "<p>There is no verdict on this rollout on the log.</p>");
    };
    let title = if evidence.decided { "The evidence that decided" } else { "The newest evidence" };
    let mut body = format!(
        "<p>Verdict {} through {} UTC: {}</p>",
        escaped(&evidence.id),
        utc(evidence.as_of),
        escaped(&evidence.sentence)
    );
    if !evidence.further_reasons().is_empty() {
        let one = |reason: &serin_schemas::records::Reason| {
            let place = format!("{} ({})", reason.metric, reason.segment);
            element("li", &format!("{place}: {}", reason.sentence))
        };
        let list: String = evidence.further_reasons().iter().map(one).collect();
        let _ = write!(body, "<ul>{list}</ul>");
    }
    let rows = words::shown(&evidence.metrics).into_iter().map(|metric| words::row(metric, &report.spec));
    body += &table(&words::ROW, rows);
    body += &element("p", words::EFFECT);
    section(title, &body)
}

fn pictures(report: &Report) -> String {
    let series = &report.series;
    let shown = if series.every > 1 { format!("one of {}", series.every) } else { "each".to_owned() };
    let mut body = format!(
        "<p>The band is the interval of the difference, which is valid at every look; the line is the estimate. {} verdicts, of which \
         the pictures show {shown}. Numbers at the top are the canary's share from there on.</p><div class=\"plots\">",
        series.seen
    );
    let plots = plots(report);
    for plot in &plots {
        let _ = write!(body, "<figure><figcaption>{}</figcaption>{}</figure>", escaped(&plot.title), plot.svg);
    }
    body += "</div>";
    if plots.is_empty() {
        "<p>There is no verdict with an interval.</p>".clone_into(&mut body);
    }
    section("Verdicts over time", &body)
}

fn calls(report: &Report) -> String {
    let Some(calls) = &report.calls else { return "<p>The canary answered no call that was compared.</p>".to_owned() };
    let mut lines = vec![format!("{}, canary: {}", calls.canary.version, words::outcomes(&calls.canary))];
    lines.extend(calls.control.iter().map(|arm| format!("{}, control: {}", arm.version, words::outcomes(arm))));
    lines.extend(words::harmed(report));
    format!("<ul>{}</ul>", lines.iter().map(|line| element("li", line)).collect::<String>())
}

fn record(report: &Report) -> String {
    format!(
        "<p>To judge the recorded windows again, by the recorded rollout file or by another one:</p><pre>{}</pre><p>{} To compare this \
         file with the log: <code>serin report --verify FILE</code>.</p><pre>{}</pre>",
        escaped(&report.replay.join("\n")),
        words::CHAIN,
        escaped(&words::chain_line(report))
    )
}

fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n{body}\n</section>", escaped(title))
}

/// A table. The cells are escaped.
fn table<const N: usize>(head: &[&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|cell| element(tag, &cell)).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut text =
        format!("<div class=\"table\"><table>\n{}", cells("th", &mut head.iter().map(|name| (*name).to_owned())));
    for row in rows {
        let failed = if row.last().is_some_and(|cell| cell == "FAIL") { " class=\"failed\"" } else { "" };
        text += &cells("td", &mut row.into_iter()).replacen("<tr>", &format!("<tr{failed}>"), 1);
    }
    text + "</table></div>"
}

/// An element with this text. `tag` may have attributes.
fn element(tag: &str, text: &str) -> String {
    let name = tag.split(' ').next().unwrap_or(tag);
    format!("<{tag}>{}</{name}>", escaped(text))
}

/// A text without characters that mean something in HTML. Reasons and names are written by people.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}
