//! The content of an answer with a 2xx status for its prediction event: its outputs, and whether a caller can use it. Pure.
//!
//! Bodies are untrusted: no body may cause a panic, and the memory is bounded.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::Value;
use serin_schemas::records::Batch;
use serin_spec::{MAX_RANKED, OutputKind, OutputRule, OutputSource};

use crate::{
    content::{
        census::Census,
        llm::Reply,
        messages::ReadMessages,
        outcome::{Content, Unread},
        ranking,
        rows::{AllRows, Sample},
        values::{number, scalar_text},
    },
    protocol::{Promise, decode::Encoding, json, written::Written},
};

/// The result of reading an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outputs {
    /// Values found by the output rules. Of several rows, they are those of the drawn row.
    pub(crate) numbers: BTreeMap<String, f64>,
    pub(crate) classes: BTreeMap<String, String>,
    /// The rows of the answer, if a rule found several.
    pub(crate) batch: Option<Batch>,
    /// The content: the worst finding. Of equal findings it is the first in the order of the rules.
    pub(crate) content: Content,
    /// Share of the answer's missing values, if it could be read and has values.
    pub(crate) missing_share: Option<f64>,
    /// Data of a language model's answer.
    pub(crate) reply: Option<Reply>,
    /// Names in the answer, if a rule found nothing: one of them may be the intended one.
    pub(crate) names: Vec<String>,
}

/// Maximum number of names that are collected from one answer.
const NAMES: usize = crate::content::seen::MOST;
/// Maximum depth at which names are collected.
const DEPTH: usize = 4;

/// Reads a whole body and applies output rules to it. `ok` is whether its status is 200 or another one that requires content.
pub(crate) fn read(
    rules: &[OutputRule],
    headers: &HeaderMap,
    body: &[u8],
    written: Written,
    promise: Promise,
    ok: bool,
    sample: Sample<'_>,
) -> Outputs {
    let looks_in = rules.iter().any(|rule| !in_header(rule));
    if body.trim_ascii().is_empty() {
        let content = if ok || looks_in || promise.is_some() {
            Content::Unusable("empty")
        } else {
            Content::Unread(Unread::NoContent)
        };
        return of_headers(rules, headers, content);
    }
    let chats = matches!(promise, Promise::Choices | Promise::Response);
    let has_reply = chats || promise == Promise::Embeddings;
    let may_be_json = matches!(written, Written::Json | Written::Text | Written::Html | Written::Bytes);
    if may_be_json
        && !looks_in
        && !has_reply
        && let Some(census) = Census::of_json(body, promise)
    {
        return Outputs { missing_share: census.missing_share(), ..of_headers(rules, headers, census.content()) };
    }
    let encoding = match written {
        Written::Binary(length) => length.map(Encoding::Binary),
        _ => may_be_json.then_some(Encoding::Json),
    };
    let Some(answer) = encoding.and_then(|encoding| encoding.read(body)) else {
        // Some servers do not declare their streams.
        if may_be_json
            && promise.ends()
            && let Some(reply) = Reply::of_stream(body, promise)
        {
            let content = reply.content();
            return of_events(rules, headers, reply, content);
        }
        let expected = looks_in || promise.is_some();
        return of_headers(rules, headers, unreadable(body, written, expected));
    };
    let mut outputs = of_value(rules, headers, &answer, promise, sample);
    if has_reply && !matches!(outputs.content, Content::Failed(_)) {
        let reply = Reply::of_json(&answer);
        if chats {
            outputs.content = outputs.content.or_worse(reply.content());
        }
        outputs.reply = Some(reply);
    }
    outputs
}

/// Applies output rules to an answer whose body is not read and whose content so far is `content`.
pub(crate) fn of_headers(rules: &[OutputRule], headers: &HeaderMap, content: Content) -> Outputs {
    let mut outputs = Outputs::default();
    for rule in rules.iter().filter(|rule| in_header(rule)) {
        // A header has one value.
        outputs.apply(rule, headers, &[Value::Null], Promise::Nothing, Sample::of("", 1));
    }
    outputs.content = outputs.content.or_worse(content);
    outputs
}

/// Applies output rules to a stream of events with this content. The values in its events are not read.
pub(crate) fn of_events(rules: &[OutputRule], headers: &HeaderMap, reply: Reply, content: Content) -> Outputs {
    let needs_body = rules.iter().any(|rule| rule.required && !in_header(rule));
    let values = if needs_body { Content::Unread(Unread::ContentType) } else { Content::Good };
    Outputs { reply: Some(reply), ..of_headers(rules, headers, content.or_worse(values)) }
}

/// Applies output rules to the answers in the messages of a gRPC answer. Their rows follow each other.
pub(crate) fn of_messages(
    rules: &[OutputRule],
    headers: &HeaderMap,
    messages: &ReadMessages,
    sample: Sample<'_>,
) -> Outputs {
    if messages.answers.is_empty() {
        return of_headers(rules, headers, messages.content());
    }
    let mut outputs = Outputs::default();
    for rule in rules {
        outputs.apply(rule, headers, &messages.answers, Promise::Tensors, sample);
    }
    outputs.content = outputs.content.or_worse(messages.content());
    if messages.has_more && !rules.iter().all(in_header) {
        outputs.content = outputs.content.or_worse(Content::Unread(Unread::TooLarge));
    }
    outputs.missing_share = messages.census.missing_share();
    outputs
}

fn of_value(
    rules: &[OutputRule],
    headers: &HeaderMap,
    answer: &Value,
    promise: Promise,
    sample: Sample<'_>,
) -> Outputs {
    let census = Census::of(answer, promise);
    let mut outputs = Outputs::default();
    for rule in rules {
        outputs.apply(rule, headers, std::slice::from_ref(answer), promise, sample);
    }
    outputs.content = outputs.content.or_worse(census.content());
    outputs.missing_share = census.missing_share();
    outputs
}

/// The content of a body that cannot be parsed; `expected` if rules or the protocol require its content.
fn unreadable(body: &[u8], written: Written, expected: bool) -> Content {
    match written {
        Written::Html => Content::Unusable("html"),
        Written::Json | Written::Text if is_page(body) => Content::Unusable("html"),
        Written::Json | Written::Binary(_) | Written::Grpc => Content::Unusable("unparsable"),
        Written::Text if expected => Content::Unusable("unparsable"),
        Written::Text | Written::Bytes | Written::Events | Written::Other => Content::Unread(Unread::ContentType),
    }
}

/// Whether a string starts like an HTML page.
fn is_page(body: &[u8]) -> bool {
    let text = json::without_mark(body.trim_ascii_start()).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"]
        .iter()
        .any(|tag| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

fn in_header(rule: &OutputRule) -> bool {
    matches!(rule.source, OutputSource::Header(_))
}

impl Outputs {
    /// Applies one rule to the answers of a call. Only a gRPC stream has several.
    fn apply(
        &mut self,
        rule: &OutputRule,
        headers: &HeaderMap,
        answers: &[Value],
        promise: Promise,
        sample: Sample<'_>,
    ) {
        let kept = self.keep(rule, &AllRows::find(rule, headers, answers, promise), sample);
        if kept == Err(MISSING) && self.names.is_empty() {
            self.names = answers.first().map(|answer| names_in(answer, &rule.source)).unwrap_or_default();
        }
        let problem = kept.err().filter(|problem| rule.required || *problem != MISSING);
        self.content = self.content.or_worse(problem.map_or(Content::Good, Content::Unusable));
    }

    /// Stores the output of the drawn row and the mean over the rows, or returns why one of the rows is unusable. An output that is not
    /// required is missing only if no row has it.
    fn keep(&mut self, rule: &OutputRule, rows: &AllRows<'_>, sample: Sample<'_>) -> Result<(), &'static str> {
        if rule.kind == OutputKind::Ranking {
            return self.keep_ranking(rule, rows, sample);
        }
        let drawn = sample.drawn(rows.len());
        let (mut any, mut mean) = (false, Mean::default());
        for row in sample.rows(rows.len()) {
            match rows.get(row).map(|value| valid(rule, value)).transpose()? {
                Some(value) => {
                    any = true;
                    if let Valid::Number(number) = value {
                        mean.add(number);
                    }
                }
                None if rule.required => return Err(MISSING),
                None => {}
            }
        }
        match rows.get(drawn).map(|value| valid(rule, value)).transpose()? {
            Some(Valid::Number(number)) => {
                self.numbers.insert(rule.name.clone(), number);
            }
            Some(Valid::Class(class)) => {
                let class = scalar_text(class).ok_or("unparsable")?;
                self.classes.insert(rule.name.clone(), class);
            }
            None if rule.required => return Err(MISSING),
            None => {}
        }
        if rows.len() > 1 {
            self.note_rows(rule, rows.len(), drawn, mean.value());
        }
        if any { Ok(()) } else { Err(MISSING) }
    }

    /// Stores the ranking of the drawn row: its ids, one a line. Returns why one of the rows is unusable.
    fn keep_ranking(&mut self, rule: &OutputRule, rows: &AllRows<'_>, sample: Sample<'_>) -> Result<(), &'static str> {
        let drawn = sample.drawn(rows.len());
        let mut any = false;
        for row in sample.rows(rows.len()) {
            match rows.list(row, MAX_RANKED) {
                Some(ids) => {
                    ranking::lines(&ids)?;
                    any = true;
                }
                None if rule.required => return Err(MISSING),
                None => {}
            }
        }
        if let Some(ids) = rows.list(drawn, MAX_RANKED) {
            self.classes.insert(rule.name.clone(), ranking::lines(&ids)?);
        }
        if rows.len() > 1 {
            self.note_rows(rule, rows.len(), drawn, None);
        }
        if any { Ok(()) } else { Err(MISSING) }
    }

    /// Stores the rows of an output. If outputs have different numbers of rows, those with most rows are the call's.
    fn note_rows(&mut self, rule: &OutputRule, rows: usize, drawn: usize, mean: Option<f64>) {
        let (rows, row) = (i32::try_from(rows).unwrap_or(i32::MAX), i32::try_from(drawn).unwrap_or(i32::MAX));
        let batch = self.batch.get_or_insert_with(|| Batch { rows, row, means: BTreeMap::new() });
        if batch.rows < rows {
            (batch.rows, batch.row) = (rows, row);
        }
        batch.means.extend(mean.map(|mean| (rule.name.clone(), mean)));
    }
}

/// The mean of numbers, which is always within their range.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    count: u32,
    sum: f64,
    /// The sum in units of [`Self::UNIT`], in case that the sum overflows.
    units: f64,
    lowest: f64,
    highest: f64,
}

impl Mean {
    /// More than the number of rows that are read.
    const UNIT: f64 = (1_u64 << 40) as f64;

    fn add(&mut self, number: f64) {
        let none = self.count == 0;
        self.lowest = if none { number } else { self.lowest.min(number) };
        self.highest = if none { number } else { self.highest.max(number) };
        self.count += 1;
        self.sum += number;
        self.units += number / Self::UNIT;
    }

    /// The mean; `None` without numbers.
    fn value(self) -> Option<f64> {
        let count = f64::from(self.count);
        let mean = if self.sum.is_finite() { self.sum / count } else { self.units / count * Self::UNIT };
        (self.count > 0).then(|| mean.clamp(self.lowest, self.highest))
    }
}

/// An answer without a required output.
const MISSING: &str = "missing";

/// A usable value of an output.
enum Valid<'a> {
    Number(f64),
    Class(&'a Value),
}

/// The value as the rule's kind, or why it is unusable.
fn valid<'a>(rule: &OutputRule, value: &'a Value) -> Result<Valid<'a>, &'static str> {
    match value {
        Value::Null => return Err("null"),
        Value::Array(_) => return Err("empty"),
        Value::String(text) if text.is_empty() => return Err("empty"),
        _ => {}
    }
    match rule.kind {
        OutputKind::Number => {
            let number = number(value)?;
            if rule.min.is_some_and(|min| number < min) || rule.max.is_some_and(|max| number > max) {
                return Err("out_of_range");
            }
            Ok(Valid::Number(number))
        }
        OutputKind::Class | OutputKind::Ranking if value.is_object() => Err("unparsable"),
        OutputKind::Class | OutputKind::Ranking => Ok(Valid::Class(value)),
    }
}

/// Names in an answer under which a rule of this kind could find a value.
fn names_in(answer: &Value, source: &OutputSource) -> Vec<String> {
    let mut names = Vec::new();
    match source {
        OutputSource::Tensor(_) => {
            let tensors = answer.get("outputs").and_then(Value::as_array).into_iter().flatten();
            let named = tensors.filter_map(|tensor| tensor.get("name")?.as_str());
            names.extend(named.take(NAMES).map(str::to_owned));
        }
        OutputSource::Json(_) => pointers(answer, &mut String::new(), DEPTH, &mut names),
        OutputSource::Header(_) => {}
    }
    names
}

/// Adds the pointers to the scalars of an answer to `into`, for lists only to the first item.
fn pointers(value: &Value, at: &mut String, depth: usize, into: &mut Vec<String>) {
    let length = at.len();
    match value {
        _ if into.len() >= NAMES => {}
        Value::Object(members) if depth > 0 => {
            for (name, member) in members.iter().take(NAMES) {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                pointers(member, at, depth - 1, into);
                at.truncate(length);
            }
        }
        Value::Array(list) if depth > 0 => {
            if let Some(first) = list.first() {
                at.push_str("/0");
                pointers(first, at, depth - 1, into);
                at.truncate(length);
            }
        }
        Value::Object(_) | Value::Array(_) => {}
        _ => into.push(at.clone()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
