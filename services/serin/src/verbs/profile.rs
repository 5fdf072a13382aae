//! `serin profile`: the distribution of each metric's values per arm.

use std::{fmt::Write as _, process::ExitCode};

use jiff::Timestamp;
use serde_json::Value;
use serin_insight::profile::{Distribution, MetricProfile, Profile, Profiles};
use serin_kinds::Unit;

use crate::{
    cli::{Output, Profile as Args},
    client::{Api, read},
    output,
    terminal::{Cell, Column, Table, Terminal},
    time::{range, to_the_second},
};

static COLUMNS: [Column; 8] = [
    Column::text("metric", 0),
    Column::text("segment", 1),
    Column::number("n", 2),
    Column::number("mean or share", 0),
    Column::number("p5", 5),
    Column::number("p50", 3),
    Column::number("p95", 3),
    Column::number("p99", 4),
];

/// `serin profile`.
pub(crate) async fn profile(args: &Args) -> anyhow::Result<ExitCode> {
    let (from, to) = range(args.from.as_deref(), args.to.as_deref(), Timestamp::now())?;
    let mut query = format!("segments={}&per={}", args.segments, if args.per_window { "window" } else { "range" });
    for (name, time) in [("from", from), ("to", to)] {
        if let Some(time) = time {
            // Writing to a `String` cannot fail.
            let _ = write!(query, "&{name}={}", time.0);
        }
    }
    let document = Api::new(&args.remote)?.profile(&args.rollout, &query).await?;
    match args.remote.output {
        Output::Json => output::json(&document)?,
        Output::Text => lines(&document, Terminal::stdout())?.into_iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(document: &Value, terminal: Terminal) -> anyhow::Result<Vec<String>> {
    let profiles: Profiles = read(document.clone())?;
    let mut lines = Vec::new();
    if profiles.profiles.is_empty() {
        lines.push(terminal.wrap("no profile: no window of the rollout in this range of time is on the log", 0));
    }
    for profile in &profiles.profiles {
        lines.push(terminal.wrap(&headline(profile), 2));
        let in_segments = profile.metrics.iter().any(|metric| metric.segment.is_some());
        let columns: Vec<Column> = COLUMNS
            .iter()
            .enumerate()
            .filter(|(place, _)| in_segments || *place != 1)
            .map(|(_, one)| one.clone())
            .collect();
        let mut table = Table::new(&columns);
        for metric in &profile.metrics {
            let mut cells = row(metric);
            if !in_segments {
                cells.remove(1);
            }
            table.row(cells);
        }
        if !profile.metrics.is_empty() {
            lines.extend(table.lines(terminal));
        }
        lines.push(String::new());
    }
    if !profiles.not_profiled.is_empty() {
        lines.push(terminal.wrap(
            "Without a profile, because no metric reads them. Add to `metrics` in the file of the next rollout:",
            0,
        ));
        lines.extend(profiles.not_profiled.iter().map(|missing| format!("  {}", missing.add)));
    }
    if profiles.left_out > 0 {
        let note =
            format!("note: {} distributions are not included; choose a shorter range of time", profiles.left_out);
        lines.push(terminal.wrap(&note, 2));
    }
    if let Some(note) = document["read"]["note"].as_str() {
        lines.push(terminal.wrap(&format!("note: {note}"), 2));
    }
    Ok(lines)
}

fn headline(profile: &Profile) -> String {
    format!(
        "{} ({}): {} windows from {} to {} UTC, {} answers compared, {} left out",
        profile.arm.as_str(),
        profile.version.in_words(),
        profile.windows,
        to_the_second(profile.from),
        to_the_second(profile.to),
        profile.calls.compared,
        profile.calls.excluded
    )
}

fn row(metric: &MetricProfile) -> Vec<Cell> {
    let unit = Unit::of(&metric.kind, &metric.source);
    let dash = || "-".to_owned();
    let text = |value: Option<f64>| value.map_or_else(dash, |value| unit.value(value));
    let (middle, quantiles) = match &metric.distribution {
        Distribution::Histogram { mean, quantiles, .. } | Distribution::Points { mean, quantiles, .. } => {
            (text(*mean), Some(quantiles))
        }
        Distribution::Share { share, .. } | Distribution::Pairs { share, .. } => {
            (share.map_or_else(dash, |share| Unit::Percent.value(share)), None)
        }
        Distribution::Events { per_answer, .. } => (text(*per_answer), None),
        Distribution::Moments { mean, .. } => (text(*mean), None),
        Distribution::Classes { classes, .. } => (most_frequent(classes, metric.count), None),
    };
    let at = |level: &str| text(quantiles.and_then(|quantiles| quantiles.get(level).copied()));
    vec![
        metric.metric.as_str().into(),
        metric.segment.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string).into(),
        metric.count.to_string().into(),
        middle.into(),
        at("0.05").into(),
        at("0.5").into(),
        at("0.95").into(),
        at("0.99").into(),
    ]
}

/// The most frequent class with its share.
fn most_frequent(classes: &std::collections::BTreeMap<String, u64>, total: u64) -> String {
    let most = classes.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(
        || "-".to_owned(),
        |(class, count)| format!("{class} {}", Unit::Percent.value(*count as f64 / total.max(1) as f64)),
    )
}
