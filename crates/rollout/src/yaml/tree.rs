//! Parses YAML text into a tree with positions. Size and depth are limited. Aliases are refused, because they can expand a small text
//! without limit.

use std::{borrow::Cow, fmt::Write as _};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::problem;
use serin_spec::Problem;

/// Maximum size of a string, in bytes.
const TEXT_MAX: usize = 1 << 20;
/// Maximum depth of the tree.
const DEPTH_MAX: usize = 32;

/// Line and column, both from 1.
pub(super) type At = (usize, usize);

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// Content of a node.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A scalar as it is written. A `plain` scalar has no quotes, so it may be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// Keys in the order of the text, including repeated ones.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: At,
    pub(super) text: String,
}

/// A string in which each pair of escapes for one character, such as `\\ud83d\\udc24`, is one escape. JSON has such pairs, but YAML does not, so
/// a string that is not JSON is unchanged.
///
/// # Errors
/// Half of a pair.
pub fn with_whole_escapes(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.trim_start().starts_with('{') || !text.contains("\\u") {
        return Ok(Cow::Borrowed(text));
    }
    let unit = |rest: &str| {
        let digits = rest.strip_prefix("\\u").and_then(|rest| rest.get(..4))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut whole, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let second = escape.get(6..).and_then(unit);
        let length = match (unit(escape), second) {
            (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) => {
                let _ = write!(whole, "\\U{:08X}", 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                rest = &escape[12..];
                continue;
            }
            (Some(0xd800..0xe000), _) => {
                let read = &text[..text.len() - escape.len()];
                let place = (
                    1 + read.matches('\n').count(),
                    1 + read.rsplit('\n').next().map_or(0, |line| line.chars().count()),
                );
                let message = format!("{} is only half of a character", &escape[..6]);
                return Err(problem(
                    "",
                    place,
                    message,
                    "write both halves, as in \\ud83d\\udc24, or the character itself",
                ));
            }
            // The escaped character may be a backslash.
            _ => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        whole.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    whole.push_str(rest);
    Ok(Cow::Owned(whole))
}

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > TEXT_MAX {
        return Err(problem(
            "",
            (1, 1),
            "the text is longer than 1 MiB",
            "a rollout spec has a few hundred lines at most",
        ));
    }
    let text = with_whole_escapes(text)?;
    let mut reader = Reader { parser: Parser::new_from_str(&text) };
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => {
                return Err(problem("", (1, 1), "the text is empty", "see docs/rollout-spec.md for an example"));
            }
            (Event::DocumentStart(_), _) => break,
            _ => {}
        }
    }
    let first = reader.next()?;
    let root = reader.node(first, 0)?;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), span) => {
                return Err(problem("", at(span), "there is a second document", "put each rollout into its own file"));
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(cause)) => {
                let at = (cause.marker().line(), cause.marker().col() + 1);
                let message = format!("this is not YAML: {}", cause.info());
                Err(problem("", at, message, "check indentation, colons and quotes around here"))
            }
            None => Err(problem("", (1, 1), "the text ends unexpectedly", "check the end of the file")),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Problem> {
        if depth > DEPTH_MAX {
            return Err(problem("", at(span), "this is nested too deeply", "a rollout spec has only a few levels"));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(items),
                        item => items.push(self.node(item, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(entries),
                        (Event::Scalar(text, ..), key) => {
                            let value = self.next()?;
                            let value = self.node(value, depth + 1)?;
                            entries.push((Key { at: at(key), text: text.into_owned() }, value));
                        }
                        (_, key) => {
                            return Err(problem("", at(key), "a key is not a plain word", "write `key: value`"));
                        }
                    }
                }
            }
            Event::Alias(_) => {
                return Err(problem("", at(span), "aliases (*name) are not supported", "write the value in full"));
            }
            _ => return Err(problem("", at(span), "a value is missing here", "add it")),
        };
        Ok(Node { at: at(span), value })
    }
}

fn at(span: Span) -> At {
    (span.start.line(), span.start.col() + 1)
}
