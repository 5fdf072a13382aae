//! Whether an answer conforms to its request: calls of existing tools with the required arguments, and JSON if it was requested.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

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
    let key = b"\"response_format\"";
    request.is_some_and(|body| body.windows(key.len()).any(|part| part == key))
}

/// What a request expects of its answer.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The required arguments of each tool; `None` if the tools are unknown.
    tools: Option<BTreeMap<String, Vec<String>>>,
    /// Whether the text must be JSON.
    pub(super) json: bool,
}

#[derive(Deserialize)]
struct Request {
    /// Some clients send null instead of an empty list.
    tools: Option<Vec<Tool>>,
    response_format: Option<Value>,
}

#[derive(Deserialize)]
struct Tool {
    /// The format of chat completions; `/v1/responses` has the fields in the tool itself.
    function: Option<Function>,
    #[serde(flatten)]
    itself: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

impl Expected {
    /// Reads a request's body.
    pub(super) fn of(request: Option<&[u8]>) -> Self {
        let Some(request) = request.and_then(|body| serde_json::from_slice::<Request>(body).ok()) else {
            return Self::default();
        };
        let needs = |function: &Function| {
            let required = function.parameters.get("required").and_then(Value::as_array).into_iter().flatten();
            required.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let functions =
            request.tools.iter().flatten().filter_map(|tool| tool.function.as_ref().or(tool.itself.as_ref()));
        let tools = functions.map(|function| (function.name.clone(), needs(function))).collect();
        let format = request.response_format.as_ref().and_then(|format| format.get("type")).and_then(Value::as_str);
        Self { tools: Some(tools), json: matches!(format, Some("json_object" | "json_schema")) }
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
