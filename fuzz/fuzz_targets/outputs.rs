//! Any bytes as the body of a request and of an answer, under rules of every kind.
#![no_main]

use std::sync::LazyLock;

use serin_router::untrusted::{self, Rules};

/// Rules of every kind; the first byte of an input chooses the sticky key.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    segments: json(
        r#"[{"name":"a","source":{"header":"x-a"}},{"name":"b","source":{"json":"/inputs/0/data"}},
            {"name":"c","source":{"input":"x"}},{"name":"d","source":{"parameter":"p"}}]"#,
    ),
    sticky: None,
    targets: json(
        r#"[{"name":"t","when":{"json":"/user/id"},"is":["1","x"]},{"name":"u","when":{"cookie":"c"}},
            {"name":"v","when":{"input":"x"},"arm":"stable"}]"#,
    ),
    features: json(
        r#"[{"name":"f","source":{"input":"x"},"computedAt":{"parameter":"p"}},
            {"name":"g","kind":"class","source":{"json":"/a/0/b"},"computedAt":{"json":"/t"}}]"#,
    ),
    outputs: json(
        r#"[{"name":"p","source":{"tensor":"p"},"min":0,"max":1},{"name":"l","kind":"class","source":{"json":"/predictions/0/label"}},
            {"name":"q","source":{"json":"/choices/0/score"},"required":false},{"name":"h","source":{"header":"x-h"}}]"#,
    ),
    capture: Some(json(r#"{"maxBytes":64,"redact":["email","x","/user/id","/inputs/0"]}"#)),
});

fn json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("the rules above are good")
}

const KEYS: [&str; 6] = [
    r#"{"header":"x-a"}"#,
    r#"{"cookie":"c"}"#,
    r#"{"json":"/user"}"#,
    r#"{"parameter":"p"}"#,
    r#""session""#,
    r#""sequence""#,
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let rules = Rules { sticky: Some(json(KEYS[usize::from(choice) % KEYS.len()])), ..RULES.clone() };
    let mut headers = http::HeaderMap::new();
    for name in ["x-a", "x-h", "cookie"] {
        if let Ok(value) = http::HeaderValue::from_bytes(&body[..body.len().min(40)]) {
            headers.insert(name, value);
        }
    }
    untrusted::read(&rules, &headers, body);
});
