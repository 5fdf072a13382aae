//! Whether an answer conforms to its request: calls of existing tools with the required arguments, and JSON if it was requested.

use std::collections::BTreeMap;

use memchr::memmem;
use serde_json::{Map, Value};

use crate::protocol::json;

/// The data of a tool call received so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    name: String,
    arguments: String,
}

impl Call {
    /// Adds a further part, as long as the call has at most `most` bytes.
    pub(super) fn add(&mut self, name: &str, arguments: &str, most: usize) {
        if self.name.len() + self.arguments.len() + name.len() + arguments.len() <= most {
            self.name.push_str(name);
            self.arguments.push_str(arguments);
        }
    }
}

/// Whether a request may ask for JSON text.
pub(super) fn may_ask_for_json(request: Option<&[u8]>) -> bool {
    // `/v1/responses` has `text.format` instead of `response_format`.
    let keys = [&b"\"response_format\""[..], b"\"format\""];
    request.is_some_and(|body| keys.iter().any(|key| memmem::find(body, key).is_some()))
}

/// The required arguments of a function.
fn required(function: &Value) -> Vec<String> {
    let names = function.pointer("/parameters/required").and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a request expects of its answer.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The required arguments of each tool; `None` if the tools are unknown.
    tools: Option<BTreeMap<String, Vec<String>>>,
    /// Whether the text must be JSON.
    pub(super) json: bool,
}

impl Expected {
    /// Reads a request's body, which is not compressed.
    pub(super) fn of(request: Option<&[u8]>) -> Self {
        let Some(request) = request.and_then(json::read) else { return Self::default() };
        // `/v1/responses` has the fields of a function in the tool itself. `functions` is the older form of `tools`.
        let tools = super::list(&request, "tools");
        let tools = tools.map(|tool| tool.get("function").filter(|function| function.is_object()).unwrap_or(tool));
        let tools = tools.chain(super::list(&request, "functions"));
        let named = tools.filter_map(|tool| Some((tool.get("name")?.as_str()?.to_owned(), required(tool))));
        let formats = ["/response_format/type", "/text/format/type"];
        let format = formats.iter().find_map(|pointer| request.pointer(pointer)?.as_str());
        Self { tools: Some(named.collect()), json: matches!(format, Some("json_object" | "json_schema")) }
    }

    /// Whether a call names an existing tool, with arguments that are an object and include the required ones.
    pub(super) fn is_valid(&self, call: &Call) -> bool {
        let Ok(arguments) = serde_json::from_str::<Map<String, Value>>(&call.arguments) else { return false };
        match &self.tools {
            None => !call.name.is_empty(),
            Some(tools) => {
                tools.get(&call.name).is_some_and(|needs| needs.iter().all(|need| arguments.contains_key(need)))
            }
        }
    }
}
