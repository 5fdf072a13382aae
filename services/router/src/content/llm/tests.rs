#![expect(clippy::float_cmp, reason = "counts and whole milliseconds")]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Feeds events 10 ms apart and returns the reply.
fn stream(events: &[&str]) -> Reply {
    let mut tap = Tap::new(Promise::Choices, Some(br#"{"response_format":{}}"#));
    for (n, event) in events.iter().enumerate() {
        tap.feed(format!("data: {event}\n\n").as_bytes(), MS * 10 * (n as u32 + 1));
    }
    tap.into_reply()
}

fn outputs(reply: &Reply, request: &str) -> (BTreeMap<&'static str, f64>, Option<String>) {
    let (mut numbers, mut reason) = (BTreeMap::new(), None);
    reply.outputs(
        Some(request.as_bytes()),
        |name, value| {
            numbers.insert(name, value);
        },
        |name, value| {
            assert_eq!(name, "llm.finish_reason");
            reason = Some(value.to_owned());
        },
    );
    (numbers, reason)
}

#[test]
fn a_chat_stream_is_timed_and_counted() {
    let reply = stream(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"Hé"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"llo"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"!"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#,
        "[DONE]",
    ]);
    assert_eq!(reply.content(), Content::Good);
    let (numbers, reason) = outputs(&reply, "{}");
    assert_eq!(reason.as_deref(), Some("length"));
    let expected = [
        ("llm.time_to_first_chunk", 20.0),
        ("llm.time_per_chunk", 10.0),
        ("llm.chunks", 3.0),
        ("llm.input_tokens", 7.0),
        ("llm.output_tokens", 5.0),
        ("llm.characters", 6.0),
        ("llm.refusal", 0.0),
        ("llm.tool_calls", 0.0),
    ];
    assert_eq!(numbers, expected.into());
}

#[test]
fn tokens_without_usage_are_chunks() {
    let reply = stream(&[
        r#"{"choices":[{"text":"a","finish_reason":null}]}"#,
        r#"{"choices":[{"text":"b","finish_reason":"stop"}]}"#,
    ]);
    assert_eq!((reply.content(), outputs(&reply, "").0["llm.output_tokens"]), (Content::Good, 2.0));
}

#[test]
fn incomplete_streams() {
    let chunk = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    assert_eq!(stream(&[chunk]).content(), Content::Failed("truncated"));
    assert_eq!(stream(&[]).content(), Content::Failed("truncated"));
    assert_eq!(stream(&[chunk, "[DONE]"]).content(), Content::Good);
    let error = r#"{"error":{"message":"CUDA out of memory","type":"server_error","code":500}}"#;
    assert_eq!(stream(&[chunk, error, "[DONE]"]).content(), Content::Failed("error_frame"));
    assert_eq!(
        stream(&[chunk, r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"error":null}"#]).content(),
        Content::Good
    );
    let mut foreign = Tap::new(Promise::Json, None);
    foreign.feed(b"data: {\"text_output\":\"a\"}\n\n", MS);
    assert_eq!(foreign.into_reply().content(), Content::Good, "only OpenAI-compatible streams report how they end");
}

#[test]
fn refusals() {
    for chunk in [
        r#"{"choices":[{"delta":{"refusal":"I can't"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#,
    ] {
        assert_eq!(outputs(&stream(&[chunk]), "").0["llm.refusal"], 1.0, "{chunk}");
    }
}

const TOOLS: &str = r#"{"tools":[{"type":"function","function":{"name":"weather",
    "parameters":{"type":"object","required":["city"],"properties":{"city":{"type":"string"}}}}}]}"#;

fn tool_call(name: &str, arguments: &[&str]) -> f64 {
    let mut events = vec![
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": name, "arguments": ""}}]}}]}),
    ];
    for part in arguments {
        events.push(json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}}]}));
    }
    events.push(json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}));
    let events: Vec<String> = events.iter().map(Value::to_string).collect();
    let reply = stream(&events.iter().map(String::as_str).collect::<Vec<_>>());
    let (numbers, reason) = outputs(&reply, TOOLS);
    assert_eq!((numbers["llm.tool_calls"], reason.as_deref()), (1.0, Some("tool_calls")));
    assert_eq!(numbers["llm.chunks"], 1.0 + arguments.len() as f64);
    numbers["llm.tool_calls_valid"]
}

#[test]
fn tool_calls_are_checked() {
    assert_eq!(tool_call("weather", &["{\"city\":", "\"Oslo\"}"]), 1.0);
    assert_eq!(tool_call("weather", &["{\"city\":"]), 0.0, "not JSON");
    assert_eq!(tool_call("weather", &["{\"town\":\"Oslo\"}"]), 0.0, "a required argument is missing");
    assert_eq!(tool_call("wether", &["{\"city\":\"Oslo\"}"]), 0.0, "no such tool");
    assert_eq!(tool_call("weather", &["[]"]), 0.0, "not an object");
}

#[test]
fn requested_json_is_checked() {
    let request = r#"{"response_format":{"type":"json_object"}}"#;
    let say = |text: &str| {
        let chunk = json!({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}).to_string();
        outputs(&stream(&[&chunk]), request).0["llm.json_valid"]
    };
    assert_eq!((say(r#"{"a":1}"#), say("Sure! {")), (1.0, 0.0));
}

#[test]
fn a_whole_answer() {
    let reply = Reply::of_json(&json!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Hello", "refusal": null}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}));
    let (numbers, reason) = outputs(&reply, "{}");
    assert_eq!((reply.content(), reason.as_deref()), (Content::Good, Some("stop")));
    assert_eq!((numbers["llm.output_tokens"], numbers["llm.characters"]), (1.0, 5.0));
    assert!(!numbers.contains_key("llm.time_to_first_chunk") && !numbers.contains_key("llm.chunks"));
    let embedding =
        Reply::of_json(&json!({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}));
    assert_eq!(outputs(&embedding, "{}").0, [("llm.input_tokens", 4.0)].into());
}

#[test]
fn streams_of_responses() {
    let end = r#"{"type":"response.completed","response":{"object":"response","status":"completed","usage":{"input_tokens":2,"output_tokens":9},
        "output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]},
                  {"type":"function_call","name":"weather","arguments":"{\"city\":\"Oslo\"}"}]}}"#;
    let end = end.replace('\n', " ");
    let reply = stream(&[r#"{"type":"response.output_text.delta","delta":"Hi"}"#, &end]);
    let request = r#"{"tools":[{"type":"function","name":"weather","parameters":{"required":["city"]}}]}"#;
    let (numbers, reason) = outputs(&reply, request);
    assert_eq!((reply.content(), reason.as_deref()), (Content::Good, Some("stop")));
    assert_eq!(
        (numbers["llm.characters"], numbers["llm.output_tokens"], numbers["llm.tool_calls_valid"]),
        (2.0, 9.0, 1.0)
    );
    assert_eq!(stream(&[r#"{"type":"response.failed","response":{}}"#]).content(), Content::Failed("error_frame"));
    assert_eq!(stream(&[r#"{"type":"response.created","response":{}}"#]).content(), Content::Failed("truncated"));
    let whole = Reply::of_json(
        &json!({"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}], "usage": {"output_tokens": 1}}),
    );
    let (numbers, reason) = outputs(&whole, "{}");
    assert_eq!((numbers["llm.refusal"], reason.as_deref()), (1.0, Some("length")));
}

#[test]
fn memory_of_an_endless_answer_is_bounded() {
    let mut tap = Tap::new(Promise::Choices, Some(br#"{"response_format":{}}"#));
    let calls: Vec<Value> =
        (0..100).map(|n| json!({"index": n, "function": {"arguments": "y".repeat(1000)}})).collect();
    let chunk = json!({"choices": [{"delta": {"content": "x".repeat(10_000), "tool_calls": calls}}]});
    let event = format!("data: {chunk}\n\n");
    for _ in 0..100 {
        tap.feed(event.as_bytes(), MS);
    }
    let reply = tap.into_reply();
    assert!(reply.text.unwrap().len() <= LONGEST_TEXT && reply.calls.len() <= MOST_CALLS);
    let mut plain = Tap::new(Promise::Choices, Some(b"{}"));
    plain.feed(event.as_bytes(), MS);
    assert_eq!(plain.into_reply().text, None, "the text is kept only if the request asked for JSON");
}

/// The content of a stream with this promise.
fn content_of(promise: Promise, events: &str) -> Content {
    let mut tap = Tap::new(promise, None);
    events.as_bytes().chunks(7).for_each(|piece| tap.feed(piece, MS));
    tap.into_reply().content()
}

const CHUNK: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_stream_in_place_of_one_object_is_unusable() {
    for promise in [Promise::Tensors, Promise::Predictions, Promise::Embeddings] {
        for events in ["data: hello\n\n", "data: {\"predictions\":[0.5]}\n\n", DONE, ""] {
            assert_eq!(content_of(promise, events), Content::Unusable("schema"), "{promise:?} {events:?}");
        }
        let error = "data: {\"error\":\"boom\"}\n\n";
        assert_eq!(content_of(promise, error), Content::Failed("error_frame"), "{promise:?}");
    }
    assert_eq!(content_of(Promise::Nothing, "data: hello\n\n"), Content::Good, "plain HTTP promises nothing");
}

#[test]
fn events_that_should_be_json_are_parsed() {
    for (promise, events, content) in [
        (Promise::Json, "data: oops\n\n".to_owned(), Content::Unusable("unparsable")),
        (Promise::Json, "data: {\"text_output\":\"a\"}\n\ndata: oops\n\n".to_owned(), Content::Unusable("unparsable")),
        (Promise::Json, "data: {\"text_output\":\"a\",\"score\":NaN}\n\n".to_owned(), Content::Good),
        (Promise::Json, "event: ping\ndata: 12:00\n\ndata: {\"text_output\":\"a\"}\n\n".to_owned(), Content::Good),
        (Promise::Json, "data: {\"error\":{\"loss\":NaN}}\n\n".to_owned(), Content::Failed("error_frame")),
        (Promise::Json, "data: {\"\\u0065rror\":\"x\"}\n\n".to_owned(), Content::Failed("error_frame")),
        (
            Promise::Choices,
            format!("{CHUNK}data: Error: CUDA out of memory\n\n{DONE}"),
            Content::Unusable("unparsable"),
        ),
        (Promise::Choices, format!("{CHUNK}data:\n\nevent: keepalive\ndata: x\n\n{DONE}"), Content::Good),
        (Promise::Response, format!("data: oops\n\n{DONE}"), Content::Unusable("unparsable")),
    ] {
        assert_eq!(content_of(promise, &events), content, "{events}");
    }
}

#[test]
fn events_may_have_marks_and_numbers_that_are_not_finite() {
    let error = "data: {\"error\":{\"message\":\"x\",\"loss\":NaN}}\n\n";
    assert_eq!(content_of(Promise::Choices, &format!("{CHUNK}{error}{DONE}")), Content::Failed("error_frame"));
    let marked = "\u{feff}data: {\"error\":{\"message\":\"x\"}}\n\n";
    assert_eq!(content_of(Promise::Choices, &format!("{marked}{DONE}")), Content::Failed("error_frame"));
    let inner = "data: \u{feff}{\"error\":{\"message\":\"x\"}}\n\n";
    assert_eq!(content_of(Promise::Choices, &format!("{inner}{DONE}")), Content::Failed("error_frame"));
    for number in ["NaN", "-Infinity", "1e999", "-inf"] {
        let chunk = format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}},\"logprob\":{number},\"finish_reason\":\"stop\"}}]}}\n\n"
        );
        assert_eq!(content_of(Promise::Choices, &chunk), Content::Good, "{number}");
    }
}

#[test]
fn errors_within_choices_fail_the_answer() {
    let inner = r#"{"index":0,"delta":{"content":"par"},"finish_reason":"stop","error":{"code":502,"message":"x"}}"#;
    let reason = r#"{"index":0,"delta":{"content":"par"},"finish_reason":"error"}"#;
    let good = r#"{"index":1,"delta":{"content":"par"},"finish_reason":"stop"}"#;
    for choices in [inner.to_owned(), reason.to_owned(), format!("{good},{inner}"), format!("{reason},{good}")] {
        let chunk = format!(r#"{{"choices":[{choices}]}}"#);
        assert_eq!(stream(&[&chunk, "[DONE]"]).content(), Content::Failed("error_frame"), "{chunk}");
        let whole: Value = serde_json::from_str(&chunk.replace("delta", "message")).unwrap();
        assert_eq!(Reply::of_json(&whole).content(), Content::Failed("error_object"), "{chunk}");
    }
    let harmless = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop","error":null}]}"#;
    assert_eq!(stream(&[harmless]).content(), Content::Good);
}

#[test]
fn a_stream_ends_when_all_of_its_choices_have_ended() {
    let part = |index: u64, end: Value| {
        json!({"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": end}]}).to_string()
    };
    let (open, ended) = (|index| part(index, Value::Null), |index| part(index, json!("stop")));
    let blank = part(0, json!(""));
    let truncated = Content::Failed("truncated");
    assert_eq!(stream(&[&open(0), &open(1), &ended(0)]).content(), truncated);
    assert_eq!(stream(&[&open(0), &open(1), &ended(1), &ended(0)]).content(), Content::Good);
    assert_eq!(stream(&[&open(0), &open(1), &ended(0), "[DONE]"]).content(), Content::Good);
    assert_eq!(stream(&[&ended(0), &open(0)]).content(), Content::Good, "a later chunk with usage");
    assert_eq!(stream(&[&blank]).content(), truncated, "some servers write an empty reason until the end");
}

#[test]
fn the_last_event_needs_no_blank_line() {
    for end in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r"] {
        assert_eq!(content_of(Promise::Choices, &format!("{CHUNK}{end}")), Content::Good, "{end:?}");
    }
    let half = "data: {\"choices\":[{\"del";
    assert_eq!(content_of(Promise::Choices, &format!("{CHUNK}{half}")), Content::Failed("truncated"));
    let error = "data: {\"error\":\"boom\"}";
    assert_eq!(content_of(Promise::Choices, &format!("{CHUNK}{error}")), Content::Failed("error_frame"));
}

#[test]
fn errors_that_are_too_long_to_read_are_recognized_by_their_start() {
    let text = "x".repeat(300 << 10);
    for (start, is_error) in [
        ("{\"error\":{\"message\":\"", true),
        ("{\"error\": {\"message\": \"", true),
        ("\u{feff} { \"error\" : [ {\"message\": \"", true),
        ("{\"error\": \"", true),
        ("{\"object\": \"error\", \"message\": \"", true),
        ("{\"error\": \"\", \"text\": \"", false),
        ("{\"error\": null, \"text\": \"", false),
        ("{\"error\": {}, \"text\": \"", false),
        ("{\"errors\": \"", false),
        ("{\"text\": \"{\\\"error\\\":", false),
    ] {
        let events = format!("data: {start}{text}\"}}\n\n{DONE}");
        let content = if is_error { Content::Failed("error_frame") } else { Content::Good };
        assert_eq!(content_of(Promise::Choices, &events), content, "{start}");
    }
}

#[test]
fn contents_of_parts_and_of_responses() {
    let whole = |content: Value| {
        Reply::of_json(&json!({"choices": [{"message": {"role": "assistant", "content": content}}]})).content()
    };
    assert_eq!(whole(json!([{"type": "text", "text": ""}])), Content::Unusable("empty"));
    assert_eq!(whole(json!([{"type": "text", "text": "a"}])), Content::Good);
    assert_eq!(whole(json!([{"type": "image_url", "image_url": {"url": "x"}}])), Content::Good);
    let message = json!([{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]);
    let response = |body: Value| Reply::of_json(&body).content();
    assert_eq!(response(json!({"output": message})), Content::Good, "without `object`");
    let failed = json!({"object": "response", "status": "failed", "incomplete_details": {"reason": "max_output_tokens"},
        "output": message});
    assert_eq!(response(failed), Content::Failed("error_object"));
    for status in ["queued", "in_progress"] {
        let pending = json!({"object": "response", "status": status, "output": []});
        assert_eq!(response(pending), Content::Unread(Unread::NoContent), "{status}");
    }
    assert_eq!(
        response(json!({"object": "response", "status": "completed", "output": []})),
        Content::Unusable("empty")
    );
}

#[test]
fn requests_are_read_as_leniently_as_answers() {
    let answer = |name: &str| {
        let call = json!({"function": {"name": name, "arguments": "{}"}});
        Reply::of_json(&json!({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}))
    };
    for request in [
        r#"{"temperature":NaN,"tools":[{"type":"function","function":{"name":"weather"}}]}"#,
        "\u{feff}{\"tools\":[{\"function\":{\"name\":\"weather\"}}]}",
        r#"{"tools":[{"type":"web_search"},{"function":{"name":"weather","parameters":null}}]}"#,
        r#"{"functions":[{"name":"weather","parameters":{"required":[]}}]}"#,
        r#"{"tools":null,"functions":[{"name":"weather"}]}"#,
    ] {
        assert_eq!(outputs(&answer("weather"), request).0["llm.tool_calls_valid"], 1.0, "{request}");
        assert_eq!(outputs(&answer("other"), request).0["llm.tool_calls_valid"], 0.0, "{request}");
    }
    let text = Reply::of_json(&json!({"choices": [{"message": {"content": "no"}, "finish_reason": "stop"}]}));
    for request in [
        r#"{"top_p":NaN,"response_format":{"type":"json_object"}}"#,
        "\u{feff}{\"response_format\":{\"type\":\"json_schema\"}}",
        r#"{"text":{"format":{"type":"json_schema"}}}"#,
    ] {
        assert_eq!(outputs(&text, request).0["llm.json_valid"], 0.0, "{request}");
    }
}
