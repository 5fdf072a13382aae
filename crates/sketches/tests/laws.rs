//! Laws of all summaries: merging is exact in any order, bytes round-trip and are pinned, hostile bytes are refused.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;

use proptest::prelude::*;
use serin_sketches::hash::{Salt, bucket, hash64};
use serin_sketches::{
    CappedHist, ClassCounts, DecodeError, LinHist, LogHist, MAX_COUNT, MergeError, Moments, Rate, Summary, SummaryKind,
};

const KINDS: usize = 6;

fn empty(kind: usize) -> Summary {
    match kind {
        0 => Summary::Rate(Rate::default()),
        1 => Summary::Log(LogHist::new()),
        2 => Summary::Lin(LinHist::new()),
        3 => Summary::Capped(CappedHist::new(50.0).unwrap()),
        4 => Summary::Classes(ClassCounts::default()),
        _ => Summary::Moments(Moments::default()),
    }
}

/// Adds one observation derived from `value` (any non-negative number).
fn insert(summary: &mut Summary, value: f64) {
    let hash = hash64(b"test", &value.to_le_bytes());
    match summary {
        Summary::Rate(rate) => rate.insert(value > 1.0).unwrap(),
        Summary::Log(hist) => hist.insert(value).unwrap(),
        Summary::Lin(hist) => hist.insert(value / (1.0 + value), hash).unwrap(),
        Summary::Capped(hist) => hist.insert(value, hash).unwrap(),
        Summary::Classes(counts) => counts.insert(&format!("c{}", bucket(hash) / 10)).unwrap(),
        Summary::Moments(moments) => moments.insert(value.min(1e9)).unwrap(),
    }
}

fn filled(kind: usize, values: &[f64]) -> Summary {
    let mut summary = empty(kind);
    for &value in values {
        insert(&mut summary, value);
    }
    summary
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    // A span wider than the bin cap, so that collapsing is part of the law.
    let value = prop_oneof![Just(0.0), (-60.0..60.0_f64).prop_map(f64::exp), (0.0..200.0_f64)];
    prop::collection::vec(value, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_exact_in_any_order(kind in 0..KINDS, values in values(), cuts in (0.0..1.0_f64, 0.0..1.0_f64)) {
        let whole = filled(kind, &values);
        let mut at = [(cuts.0 * values.len() as f64) as usize, (cuts.1 * values.len() as f64) as usize];
        at.sort_unstable();
        let parts = [filled(kind, &values[..at[0]]), filled(kind, &values[at[0]..at[1]]), filled(kind, &values[at[1]..])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut left = empty(kind);
            for part in order {
                left.merge(&parts[part]).unwrap();
            }
            prop_assert_eq!(&left, &whole);
            prop_assert_eq!(left.encode(), whole.encode());
            let mut right = parts[order[1]].clone();
            right.merge(&parts[order[2]]).unwrap();
            let mut nested = parts[order[0]].clone();
            nested.merge(&right).unwrap();
            prop_assert_eq!(&nested, &whole);
        }
        prop_assert_eq!(whole.n(), values.len() as u64);
    }

    #[test]
    fn bytes_round_trip(kind in 0..KINDS, values in values()) {
        let summary = filled(kind, &values);
        let bytes = summary.encode();
        prop_assert_eq!(Summary::decode(&bytes), Ok(summary));
        for len in 0..bytes.len() {
            prop_assert!(Summary::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn hostile_bytes_never_panic(kind in 1..8_u8, mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        bytes.splice(0..0, [1, kind]);
        if let Ok(summary) = Summary::decode(&bytes) {
            // What is accepted is canonical and bounded.
            prop_assert_eq!(summary.encode(), bytes);
            prop_assert!(summary.n() <= MAX_COUNT);
        }
    }

    #[test]
    fn flipped_bytes_never_panic(kind in 0..KINDS, values in values(), at in 0.0..1.0_f64, byte: u8) {
        let mut bytes = filled(kind, &values).encode();
        let index = (at * bytes.len() as f64) as usize;
        bytes[index] = byte;
        if let Ok(mut summary) = Summary::decode(&bytes) {
            prop_assert_eq!(summary.encode(), bytes);
            let other = filled(kind, &values);
            let _ = summary.merge(&other);
        }
    }
}

#[test]
fn kinds_do_not_mix_and_counts_do_not_overflow() {
    let mut rate = Summary::Rate(Rate::new(5, 2).unwrap());
    let before = rate.clone();
    let error = rate.merge(&Summary::Log(LogHist::new())).unwrap_err();
    assert_eq!(error, MergeError::Kind { expected: SummaryKind::Rate, found: SummaryKind::Log });
    assert_eq!(error.to_string(), "cannot merge a log histogram summary into a rate summary");
    let full = Summary::Rate(Rate::new(MAX_COUNT, 0).unwrap());
    assert_eq!(rate.merge(&full), Err(MergeError::Overflow));
    assert_eq!(rate, before);
    assert_eq!(Rate::new(3, 4), None);
    assert_eq!(Rate::new(MAX_COUNT + 1, 4), None);
}

#[test]
fn unknown_versions_and_types_are_named() {
    assert_eq!(Summary::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(Summary::decode(&[2, 1, 0, 0]), Err(DecodeError::Version(2)));
    assert_eq!(Summary::decode(&[1, 99]), Err(DecodeError::Type(99)));
    assert_eq!(Summary::decode(&[1, 1, 0, 0, 0]), Err(DecodeError::TrailingBytes(1)));
    assert_eq!(Summary::decode(&[1, 1, 1, 2]), Err(DecodeError::Malformed("more events than trials")));
    // A claim of 2^60 bins allocates nothing.
    let huge = [1, 2, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(Summary::decode(&huge), Err(DecodeError::Malformed("too many bins")));
}

#[test]
fn golden_bytes() {
    let sample = [0.0, 0.004, 1.0, 1.0, 1.005, 12.5, 14.0, 900.0];
    let golden = [
        "01010804",
        "010201a704ea04010093020201007d0100040100d00101",
        "01030081040100010100fd01020100d90101000201002101",
        "0104880301a704d903010093020201007d01000401003f01",
        "0105000704633334360104633532310104633634360103633833010363343301046336353502046333363401",
        "01060890bab9f606c0e8f3c48cbabd9f0b",
    ];
    for (kind, expected) in golden.into_iter().enumerate() {
        let bytes = filled(kind, &sample).encode();
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        assert_eq!(hex, expected, "kind {kind}");
    }
}

#[test]
fn golden_hashes() {
    // Computed by an independent implementation (Python), so that clients in other languages can check theirs.
    let vectors: [(&str, &str, u64, u16); 4] = [
        ("", "", 0x0c67_4da6_90f5_fbb8, 484),
        ("split", "request-1", 0xe915_daa2_23c8_91e1, 9104),
        ("split", "request-2", 0xad18_c88b_a2ce_2be2, 6761),
        ("control", "request-1", 0x6408_b45e_460f_9ef5, 3907),
    ];
    for (salt, key, hash, bucket_of) in vectors {
        let got = hash64(salt.as_bytes(), key.as_bytes());
        assert_eq!((got, bucket(got)), (hash, bucket_of), "{salt} {key}");
        assert_eq!(Salt::new(salt.as_bytes()).hash(key.as_bytes()), got);
    }
}

#[test]
fn histograms_survive_serde() {
    let Summary::Log(hist) = filled(1, &[0.0, 1.0, 55.0]) else { unreachable!("kind 1 is a log histogram") };
    let json = serde_json::to_string(&hist).unwrap();
    assert_eq!(serde_json::from_str::<LogHist>(&json).unwrap(), hist);
    assert!(serde_json::from_str::<LogHist>("[1,1,0,0]").is_err());
    assert!(serde_json::from_str::<Rate>("[1,2]").is_err());
}
