//! Rows of one file: delimited text with a header, JSON lines, or a JSON array.

use std::collections::HashMap;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::error::Problem;
use crate::cli::Compare;

/// One prediction as in the file. Empty strings mean missing values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) prediction: String,
    pub(super) label: String,
    /// Segment values, in the order of `--segment`; `None` if the file does not have the column.
    pub(super) segments: Vec<Option<String>>,
}

/// The rows of a file.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) file: String,
    /// Ids in the order of the file.
    pub(super) order: Vec<String>,
    pub(super) by_id: HashMap<String, Row>,
    /// Number of rows that repeat an earlier row.
    pub(super) duplicates: u64,
    pub(super) problems: Vec<Problem>,
    /// How the file was read, if this does not follow from its name.
    pub(super) note: Option<String>,
    /// Whether the file uses decimal commas.
    decimal_comma: bool,
}

impl Rows {
    pub(super) fn problem(&mut self, line: u64, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file.clone(), line, message: message.into() });
    }

    /// Adds a row. `get` returns its fields, or `None` if the row (or the file) does not have the field.
    fn push(&mut self, line: u64, args: &Compare, get: impl Fn(&str) -> Option<String>) {
        let Some(id) = get(&args.id).filter(|id| !id.is_empty()) else {
            return self.problem(line, format!("no id: `{}` is missing or empty", args.id));
        };
        let Some(prediction) = get(&args.prediction).filter(|text| !text.is_empty()) else {
            return self.problem(line, format!("no prediction: `{}` is missing or empty", args.prediction));
        };
        let label = args.label.as_deref().and_then(&get).unwrap_or_default();
        let segments = args.segment.iter().map(|name| get(name)).collect();
        let row = Row { line, prediction: self.plain(prediction), label: self.plain(label), segments };
        let Some(before) = self.by_id.get(&id) else {
            self.order.push(id.clone());
            self.by_id.insert(id, row);
            return;
        };
        let differing = [("predicted", &before.prediction, &row.prediction), ("labelled", &before.label, &row.label)]
            .into_iter()
            .find(|(_, first, now)| canonical(first) != canonical(now));
        match differing {
            Some((verb, first, now)) => {
                let message = format!("the id {id} is {verb} {now:?}, but {first:?} in line {}", before.line);
                self.problem(line, message);
            }
            None if before.segments != row.segments => {
                let message = format!("the id {id} is in other segments than in line {}", before.line);
                self.problem(line, message);
            }
            None => self.duplicates += 1,
        }
    }

    /// A number with a decimal point, if the file uses decimal commas.
    fn plain(&self, text: String) -> String {
        let is_number = || {
            let digits = text.trim_start_matches(['+', '-']);
            digits.split_once(',').is_some_and(|(whole, part)| {
                [whole, part]
                    .iter()
                    .all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            })
        };
        if self.decimal_comma && is_number() { text.replacen(',', ".", 1) } else { text }
    }
}

/// Reads the content of a file. A row that cannot be used becomes a problem of its line.
pub(super) fn rows(file: &str, content: &[u8], args: &Compare) -> Rows {
    let mut rows = Rows { file: file.to_owned(), ..Rows::default() };
    if let Some(other) = other_format(content) {
        rows.problem(1, format!("this is {other}; write it as CSV or as JSON lines"));
        return rows;
    }
    // A byte order mark is not part of the first column's name.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let json = [".jsonl", ".ndjson", ".json"].iter().any(|end| file.ends_with(end));
    match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') if json => json_array(&mut rows, content, args),
        _ if json => json_lines(&mut rows, content, args),
        _ => delimited(&mut rows, content, args),
    }
    rows
}

/// The format of a file that is not text.
fn other_format(content: &[u8]) -> Option<&'static str> {
    let signatures: [(&[u8], &str); 10] = [
        (b"PAR1", "Parquet"),
        (b"ARROW1", "an Arrow file (Feather)"),
        (b"FEA1", "an Arrow file (Feather)"),
        (b"ORC", "ORC"),
        (b"Obj\x01", "Avro"),
        (b"PK\x03\x04", "a ZIP archive, or an Excel file"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ];
    signatures.into_iter().find(|(signature, _)| content.starts_with(signature)).map(|(_, name)| name)
}

/// Field delimiters and their names.
const DELIMITERS: [(u8, &str); 4] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs"), (b'|', "bars")];

fn delimited(rows: &mut Rows, content: &[u8], args: &Compare) {
    let (delimiter, name) = delimiter(content, args);
    if delimiter != b',' {
        rows.note = Some(format!("{}: fields are separated by {name}", rows.file));
        rows.decimal_comma = true;
    }
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(content);
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return rows.problem(1, format!("the header is not valid CSV: {}", csv_error(&error))),
    };
    let place = |name: &str| header.iter().position(|column| column == name);
    let used = [("--id", Some(&args.id)), ("--prediction", Some(&args.prediction)), ("--label", args.label.as_ref())];
    let used = used.into_iter().filter_map(|(what, name)| Some((what, name?)));
    for (what, name) in used.chain(args.segment.iter().map(|name| ("--segment", name))) {
        if header.iter().filter(|column| column == name).count() > 1 {
            return rows.problem(1, format!("there is more than one column `{name}` ({what}); rename the others"));
        }
    }
    for (what, name) in [("--id", &args.id), ("--prediction", &args.prediction)] {
        if place(name).is_none() {
            let known = header.iter().collect::<Vec<_>>().join(", ");
            return rows.problem(1, format!("there is no column `{name}` ({what}); the columns are: {known}"));
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

/// The delimiter of the header: the first one that gives the required columns, else commas.
fn delimiter(content: &[u8], args: &Compare) -> (u8, &'static str) {
    let header = content.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let header = String::from_utf8_lossy(header);
    let fits = |(delimiter, _): &(u8, &str)| {
        let columns: Vec<&str> =
            header.split(char::from(*delimiter)).map(|column| column.trim().trim_matches('"')).collect();
        [&args.id, &args.prediction].iter().all(|name| columns.contains(&name.as_str()))
    };
    DELIMITERS.into_iter().find(fits).unwrap_or(DELIMITERS[0])
}

/// The library's message without its position, which is reported separately.
fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

/// An object with unique keys. A duplicate key is an error.
struct Object(HashMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
                let mut fields = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.contains_key(&name) {
                        return Err(M::Error::custom(format_args!("`{name}` appears twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn json_lines(rows: &mut Rows, content: &[u8], args: &Compare) {
    for (line, text) in (1..).zip(content.split(|&byte| byte == b'\n')) {
        if !text.trim_ascii().is_empty() {
            json_row(rows, line, serde_json::from_slice(text), text, args);
        }
    }
}

/// The elements of an array are counted from 1, and their number is used as the line.
fn json_array(rows: &mut Rows, content: &[u8], args: &Compare) {
    match serde_json::from_slice::<Vec<Object>>(content) {
        Ok(elements) => {
            rows.note = Some(format!("{}: a JSON array; line numbers count its elements", rows.file));
            for (number, element) in (1..).zip(elements) {
                json_row(rows, number, Ok(element), &[], args);
            }
        }
        Err(error) => {
            let message =
                format!("the file starts like a JSON array of rows, but is not one: {error}{}", no_nan(content));
            rows.problem(error.line() as u64, message);
        }
    }
}

fn json_row(rows: &mut Rows, line: u64, object: serde_json::Result<Object>, text: &[u8], args: &Compare) {
    let Object(object) = match object {
        Ok(object) => object,
        Err(error) if error.is_data() => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            return rows.problem(line, format!("this is not a row: {message}"));
        }
        Err(error) => return rows.problem(line, format!("the line is not JSON: {error}{}", no_nan(text))),
    };
    let wanted = [Some(&args.id), Some(&args.prediction), args.label.as_ref()];
    let mut wanted = wanted.into_iter().flatten().chain(&args.segment);
    if let Some(name) = wanted.find(|name| object.get(*name).is_some_and(|value| value.get().starts_with(['{', '[']))) {
        return rows.problem(line, format!("`{name}` is not a single value"));
    }
    let broken = object.iter().filter(|(_, value)| as_text(value).is_none()).map(|(name, _)| name).min();
    match broken {
        Some(name) => rows.problem(line, format!("`{name}` is not a valid text: half of a character")),
        None => rows.push(line, args, |name| as_text(object.get(name)?)),
    }
}

/// What an error about JSON adds where a writer has used words that JSON does not have.
fn no_nan(text: &[u8]) -> &'static str {
    let has = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    if has(b"NaN") || has(b"Infinity") { " (JSON has no NaN or Infinity; write null for a missing value)" } else { "" }
}

/// A number is as the file has it, so that it keeps all its digits. `None`: a string with half of a character.
fn as_text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => Some(String::new()),
        text if text.starts_with('"') => serde_json::from_str::<String>(text).ok().map(|text| text.trim().to_owned()),
        text => Some(text.to_owned()),
    }
}

/// Parses a finite number. `true` is 1, `false` is 0, in any case; `50%` is 0.5.
pub(super) fn number(text: &str) -> Option<f64> {
    let found = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().ok().map(|number| number / 100.0),
        None if text.eq_ignore_ascii_case("true") => Some(1.0),
        None if text.eq_ignore_ascii_case("false") => Some(0.0),
        None => text.parse().ok(),
    };
    found.filter(|number: &f64| number.is_finite())
}

/// The canonical form of a class: 1, 1.0, 1e0 and True are equal. Whole numbers keep all their digits.
pub(super) fn canonical(text: &str) -> String {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_zeros = |part: &str| part.bytes().all(|byte| byte == b'0');
    let digits = digits.split_once('.').filter(|(_, part)| is_zeros(part)).map_or(digits, |(whole, _)| whole);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let sign = if text.starts_with('-') { "-" } else { "" };
        return match digits.trim_start_matches('0') {
            "" => "0".to_owned(),
            digits => format!("{sign}{digits}"),
        };
    }
    number(text).map_or_else(|| text.to_owned(), |number| (number + 0.0).to_string())
}
