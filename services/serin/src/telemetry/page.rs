//! The tables of docs/metrics.md, generated from the declarations of all metrics.

use std::{collections::BTreeMap, fmt::Write as _};

use serin_stream::metric::{Label, Metric, SHARED, Values};

/// All metrics, by the part of Serin that exports them.
const PARTS: [(&str, &[Metric]); 9] = [
    ("Every process", crate::process::METRICS),
    ("Ports with a certificate", serin_listener::tls::METRICS),
    ("Controller", serin_controller::metrics::METRICS),
    ("Connector", serin_connector::metrics::METRICS),
    ("Analyzer", serin_analyzer::metrics::METRICS),
    ("Aggregator", serin_aggregator::metrics::METRICS),
    ("Intake", serin_intake::metrics::METRICS),
    ("Router", serin_router::metrics::METRICS),
    ("Stages (intake, aggregator, analyzer, controller, connector)", serin_stream::metrics::METRICS),
];

fn tables() -> String {
    let mut page = String::from("\nLabels that several metrics share:\n\n| label | values |\n|---|---|\n");
    for Label { name, values } in SHARED {
        let values = match values {
            Values::Words(words) => quoted(words),
            Values::Bounded(text) => text.to_owned(),
        };
        let _ = writeln!(page, "| `{name}` | {values} |");
    }
    for (part, metrics) in PARTS {
        let _ = write!(page, "\n### {part}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        for metric in metrics {
            let labels: Vec<String> = metric.labels.iter().map(label).collect();
            let (name, kind, labels) = (metric.name, metric.kind.as_str(), labels.join("; "));
            let _ = writeln!(page, "| `{name}` | {kind} | {} | {labels} | {} |", unit(metric.unit), metric.help());
        }
    }
    page
}

fn label(label: &Label) -> String {
    let name = label.name;
    match label.values {
        Values::Words(words) if !is_shared(label) => format!("`{name}`: {}", quoted(words)),
        Values::Bounded(text) if !is_shared(label) => format!("`{name}` ({text})"),
        _ => format!("`{name}`"),
    }
}

/// Whether the table of shared labels contains this label with the same values.
fn is_shared(label: &Label) -> bool {
    SHARED.iter().any(|shared| match (shared.values, label.values) {
        (Values::Words(one), Values::Words(other)) => shared.name == label.name && one == other,
        (Values::Bounded(one), Values::Bounded(other)) => shared.name == label.name && one == other,
        _ => false,
    })
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The unit as the page shows it.
fn unit(ucum: &str) -> &str {
    match ucum {
        "s" => "seconds",
        "By" => "bytes",
        other => other.trim_matches(['{', '}']),
    }
}

/// With `SERIN_WRITE_DOCS=1` this test writes the tables into the page.
#[test]
fn the_page_of_metrics_is_current() {
    const BEGIN: &str = "<!-- generated from the declarations of metrics: begin -->\n";
    const END: &str = "<!-- generated from the declarations of metrics: end -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let (head, rest) = kept.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let now = format!("{head}{BEGIN}{}\n{END}{tail}", tables());
    if std::env::var_os("SERIN_WRITE_DOCS").is_some() {
        std::fs::write(path, &now).unwrap();
    } else {
        assert!(kept == now, "docs/metrics.md is out of date: run this test with SERIN_WRITE_DOCS=1");
    }
}

/// Roles of one process share instruments of the same name, so their declarations must be equal.
#[test]
fn metrics_of_the_same_name_are_equal_and_fit_into_a_table() {
    let mut known = BTreeMap::new();
    for metric in PARTS.iter().flat_map(|(_, metrics)| *metrics) {
        let now = (metric.kind, metric.unit, metric.help());
        assert_eq!(*known.entry(metric.name).or_insert(now), now, "{}", metric.name);
        for text in [metric.help()].into_iter().chain(metric.labels.iter().map(|label| match label.values {
            Values::Words(words) => words[0],
            Values::Bounded(text) => text,
        })) {
            assert!(!text.is_empty() && !text.contains(['|', ';', '\n']), "{}: {text}", metric.name);
        }
    }
    assert!(known.len() > 60, "{}", known.len());
}
