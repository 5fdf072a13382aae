//! Everything that reads bytes of strangers, in one call: what a fuzzer feeds.

use http::HeaderMap;
use serin_rollout::{CaptureSpec, FeatureSpec, OutputRule, SegmentSpec, StickyKey, TargetSpec};
use serin_schemas::ids::EventTime;

use crate::{
    examples,
    outputs::{self, Promised},
    protocol::decode::Encoding,
    request::Seen,
};

/// Rules to read with, as a routing table carries them.
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
    /// What of an example is kept.
    pub capture: Option<CaptureSpec>,
}

/// Reads a body as a request and as an answer. It must not panic, whatever the body and the rules are.
///
/// # Panics
/// When what was read breaks a promise: a number that is not finite, a text that is too long, an example that is larger than allowed.
pub fn read(rules: &Rules, headers: &HeaderMap, body: &[u8]) {
    let parsed = Encoding::Json.read(body);
    let seen = Seen { headers, body: parsed.as_ref() };
    let segments = seen.segments(&rules.segments);
    assert!(segments.values().all(|value| value.len() <= crate::values::LONGEST));
    let _ = rules.sticky.as_ref().and_then(|key| seen.sticky_key(key));
    let _ = seen.target(&rules.targets);
    let features = seen.features(&rules.features, EventTime(1_800_000_000_000_000));
    assert!(features.numbers.values().all(|number| number.is_finite()));
    for list in [None, Some("outputs"), Some("predictions")] {
        let read = outputs::read(&rules.outputs, headers, Some(body), Promised { json: true, list });
        assert!(read.numbers.values().all(|number| number.is_finite()));
        assert!(read.missing_share.is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(read.classes.values().all(|class| class.len() <= crate::values::LONGEST));
    }
    if let Some(capture) = &rules.capture {
        let most = capture.max_bytes as usize;
        let kept = examples::keep(body, &capture.redact, most);
        assert!(kept.is_none_or(|kept| kept.len() <= most + '…'.len_utf8()));
    }
}
