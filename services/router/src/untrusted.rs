//! A single entry point to all code that reads untrusted bytes, for fuzzers.

use http::HeaderMap;
use serde_json::Value;
use serin_schemas::ids::EventTime;
use serin_spec::{CaptureSpec, FeatureSpec, OutputRule, SegmentSpec, StickyKey, TargetSpec};

use crate::{
    content::{
        examples,
        messages::Messages,
        outputs,
        request::{self, Seen},
        rows::Sample,
    },
    protocol::{
        Promise, Unread, grpc,
        reader::{self, Reader},
        rows::{self, RowList, RowLists},
        written::Written,
    },
};

/// Rules to read with, as in a routing table.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Segment dimensions.
    pub segments: Vec<SegmentSpec>,
    /// The sticky key.
    pub sticky: Option<StickyKey>,
    /// Targets.
    pub targets: Vec<TargetSpec>,
    /// Features.
    pub features: Vec<FeatureSpec>,
    /// Output rules.
    pub outputs: Vec<OutputRule>,
    /// Which parts of an example are kept.
    pub capture: Option<CaptureSpec>,
}

impl Rules {
    /// Rules of every kind, for fuzzers and tests; `choice` picks the sticky key.
    ///
    /// # Panics
    /// Never: the rules are valid.
    pub fn of_every_kind(choice: u8) -> Self {
        const KEYS: [&str; 6] = [
            r#"{"header":"x-a"}"#,
            r#"{"cookie":"c"}"#,
            r#"{"json":"/user"}"#,
            r#"{"parameter":"p"}"#,
            r#""session""#,
            r#""sequence""#,
        ];
        fn good<T: serde::de::DeserializeOwned>(text: &str) -> T {
            serde_json::from_str(text).expect("the rules of this function are valid")
        }
        Self {
            segments: good(
                r#"[{"name":"a","source":{"header":"x-a"}},{"name":"b","source":{"json":"/inputs/0/data"}},
                    {"name":"c","source":{"input":"x"}},{"name":"d","source":{"parameter":"p"}}]"#,
            ),
            sticky: Some(good(KEYS[usize::from(choice) % KEYS.len()])),
            targets: good(
                r#"[{"name":"t","when":{"json":"/user/id"},"is":["1","x"]},{"name":"u","when":{"cookie":"c"}},
                    {"name":"v","when":{"input":"x"},"arm":"stable"}]"#,
            ),
            features: good(
                r#"[{"name":"f","source":{"input":"x"},"computedAt":{"parameter":"p"}},
                    {"name":"g","kind":"class","source":{"json":"/a/0/b"},"computedAt":{"json":"/t"}}]"#,
            ),
            outputs: good(
                r#"[{"name":"p","source":{"tensor":"p"},"min":0,"max":1},
                    {"name":"l","kind":"class","source":{"json":"/predictions/0/label"}},
                    {"name":"q","source":{"json":"/choices/0/score"},"required":false},
                    {"name":"h","source":{"header":"x-h"}}]"#,
            ),
            capture: Some(good(r#"{"maxBytes":64,"redact":["email","x","/user/id","/inputs/0"]}"#)),
        }
    }
}

/// Reads the requested values, and the lists of rows, in small pieces.
fn scan(mut reader: Reader<'_>, body: &[u8]) -> Result<(Option<Value>, Vec<RowList>), Unread> {
    for piece in body.chunks(7) {
        reader.push(piece);
    }
    reader.end()
}

/// Reads a body as a request and as an answer. No body and no rules may cause a panic in the code under test.
///
/// # Panics
/// If the result violates a guarantee: a number that is not finite, a string that is too long, an example that is larger than allowed.
pub fn read(rules: &Rules, headers: &HeaderMap, body: &[u8]) {
    let asks = request::asks(rules.sticky.as_ref(), &rules.targets, &rules.segments, &rules.features);
    for promise in [Promise::Tensors, Promise::Predictions] {
        let lists = RowLists { instances: promise == Promise::Predictions, ..RowLists::default() };
        let reader = || Reader::new(headers, &asks, 1 << 20);
        let parsed = scan(reader().with_rows(lists), body).map(|(found, counted)| {
            let starts = found.as_ref().and_then(|found| rows::starts(found, &counted, lists.instances, "r"));
            let row = starts.and_then(|starts| {
                let lists = RowLists { starts: &starts, drawn: Some("r"), ..lists };
                scan(reader().with_rows(lists), body).ok()?.0
            });
            (found, row)
        });
        let body = parsed.as_ref().map(|(found, _)| found.as_ref()).map_err(|why| *why);
        let row = parsed.as_ref().ok().and_then(|(_, row)| row.as_ref());
        let seen = Seen { headers, body, row, promise };
        let (segments, _) = seen.segments(&rules.segments);
        assert!(segments.values().all(|value| value.len() <= crate::content::values::LONGEST));
        let _ = rules.sticky.as_ref().map(|key| seen.sticky_key(key));
        let _ = seen.target(&rules.targets);
        let features = seen.features(&rules.features, EventTime(1_800_000_000_000_000));
        assert!(features.numbers.values().all(|number| number.is_finite()));
    }
    // The first message of gRPC is read from the same bytes.
    let _ = reader::message(headers, body);
    let _ = reader::row_of_message(headers, body, &asks, "r");
    let sample = Sample::of("r", 8);
    for promise in [Promise::Nothing, Promise::Tensors, Promise::Predictions, Promise::Choices, Promise::Embeddings] {
        let read = outputs::read(&rules.outputs, headers, body, Written::of(headers), promise, true, sample);
        assert!(read.numbers.values().all(|number| number.is_finite()));
        assert!(read.missing_share.is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(read.classes.values().all(|class| class.len() <= crate::content::values::LONGEST));
    }
    for wrapped in [false, true] {
        let mut messages = Messages::new(wrapped, grpc::encoding(headers), body.len() / 2);
        messages.feed(body);
        let read = outputs::of_messages(&rules.outputs, headers, &messages.finish(), sample);
        assert!(read.numbers.values().all(|number| number.is_finite()));
    }
    if let Some(capture) = &rules.capture {
        let most = capture.max_bytes as usize;
        let kept = examples::keep(body, &capture.redact, most);
        assert!(kept.is_none_or(|kept| kept.len() <= most + '…'.len_utf8()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng as _},
    };

    /// The seeds of the fuzz target with random damage.
    #[test]
    fn reading_damaged_bodies_does_not_panic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/outputs");
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let seeds: Vec<Vec<u8>> = paths.map(|path| std::fs::read(path).unwrap()).collect();
        assert!(seeds.len() >= 5);
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut below = |most: usize| random.next_u64() as usize % most.max(1);
        for seed in &seeds {
            for round in 0..2000 {
                let mut body = seed[1..].to_vec();
                for _ in 0..round % 4 {
                    let (at, from) = (below(body.len()), below(seeds.len()));
                    match below(4) {
                        0 if !body.is_empty() => body[at] ^= 1 << below(8),
                        1 => body.truncate(at),
                        2 => body.splice(at..at, seeds[from].iter().copied()).for_each(drop),
                        _ => body.splice(at..at, *b"[[{\"a\":").for_each(drop),
                    }
                }
                let mut headers = HeaderMap::new();
                if let Ok(value) = http::HeaderValue::from_bytes(&body[..body.len().min(20)]) {
                    headers.insert("x-a", value.clone());
                    headers.insert("cookie", value);
                }
                read(&Rules::of_every_kind(seed[0]), &headers, &body);
            }
        }
    }
}
