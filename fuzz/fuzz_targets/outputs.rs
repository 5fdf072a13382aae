//! Reads arbitrary bytes as the body of a request and of an answer, under rules of every kind; the first byte selects the sticky key.
#![no_main]

use serin_router::untrusted::{self, Rules};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let mut headers = http::HeaderMap::new();
    for name in ["x-a", "x-h", "cookie"] {
        if let Ok(value) = http::HeaderValue::from_bytes(&body[..body.len().min(40)]) {
            headers.insert(name, value);
        }
    }
    untrusted::read(&Rules::of_every_kind(choice), &headers, body);
});
