//! Rows of one file: CSV with a header, or JSON lines.

use std::collections::HashMap;

use serde_json::Value;

use super::Problem;
use crate::cli::Compare;

/// One prediction as it stands in the file; a text that is empty is missing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) prediction: String,
    pub(super) label: String,
    /// In the order of `--segment`; `None` for a column that the file does not have.
    pub(super) segments: Vec<Option<String>>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) file: String,
    /// Ids in the order of the file.
    pub(super) order: Vec<String>,
    pub(super) by_id: HashMap<String, Row>,
    /// Rows whose id was there before; the first one counts.
    pub(super) duplicates: u64,
    pub(super) problems: Vec<Problem>,
}

impl Rows {
    pub(super) fn problem(&mut self, line: u64, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file.clone(), line, message: message.into() });
    }

    /// Takes a row whose fields `get` finds: `None` where the row (or the file) has no such field.
    fn push(&mut self, line: u64, args: &Compare, get: impl Fn(&str) -> Option<String>) {
        let Some(id) = get(&args.id).filter(|id| !id.is_empty()) else {
            return self.problem(line, format!("no id: `{}` is missing or empty", args.id));
        };
        let Some(prediction) = get(&args.prediction).filter(|text| !text.is_empty()) else {
            return self.problem(line, format!("no prediction: `{}` is missing or empty", args.prediction));
        };
        if self.by_id.contains_key(&id) {
            self.duplicates += 1;
            return;
        }
        let label = args.label.as_deref().and_then(&get).unwrap_or_default();
        let segments = args.segment.iter().map(|name| get(name)).collect();
        self.order.push(id.clone());
        self.by_id.insert(id, Row { line, prediction, label, segments });
    }
}

/// Reads a file's content; what cannot be used becomes a problem of its line.
pub(super) fn rows(file: &str, content: &[u8], args: &Compare) -> Rows {
    let mut rows = Rows { file: file.to_owned(), ..Rows::default() };
    let json = [".jsonl", ".ndjson", ".json"].iter().any(|end| file.ends_with(end));
    if json {
        json_lines(&mut rows, content, args);
    } else {
        csv(&mut rows, content, args);
    }
    rows
}

fn csv(rows: &mut Rows, content: &[u8], args: &Compare) {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content);
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return rows.problem(1, format!("the header is no CSV: {error}")),
    };
    let place = |name: &str| header.iter().position(|column| column == name);
    for (what, name) in [("--id", &args.id), ("--prediction", &args.prediction)] {
        if place(name).is_none() {
            let known = header.iter().collect::<Vec<_>>().join(", ");
            return rows.problem(1, format!("there is no column `{name}` ({what}); there are: {known}"));
        }
    }
    for (number, record) in (2..).zip(reader.records()) {
        match record {
            Ok(record) => {
                let line = record.position().map_or(number, csv::Position::line);
                rows.push(line, args, |name| Some(record.get(place(name)?)?.to_owned()));
            }
            Err(error) => {
                let line = error.position().map_or(number, csv::Position::line);
                rows.problem(line, csv_error(&error));
            }
        }
    }
}

/// The library's message without its own place, which is ours already.
fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

fn json_lines(rows: &mut Rows, content: &[u8], args: &Compare) {
    for (line, text) in (1..).zip(content.split(|&byte| byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(object)) => {
                let wanted = [Some(&args.id), Some(&args.prediction), args.label.as_ref()];
                let wanted = wanted.into_iter().flatten().chain(&args.segment);
                let nested =
                    wanted.clone().find(|name| object.get(*name).is_some_and(|v| v.is_object() || v.is_array()));
                match nested {
                    Some(name) => rows.problem(line, format!("`{name}` is not one value")),
                    None => rows.push(line, args, |name| object.get(name).map(as_text)),
                }
            }
            Ok(_) => rows.problem(line, "the line is no JSON object"),
            Err(error) => rows.problem(line, format!("the line is no JSON: {error}")),
        }
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}
