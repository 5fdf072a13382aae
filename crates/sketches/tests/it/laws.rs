//! Laws of all summaries: merging is exact in any order, bytes round-trip and are pinned, hostile bytes are refused.

use proptest::prelude::*;
use serin_sketches::hash::{Salt, bucket, hash64};
use serin_sketches::{
    Buckets, CappedHist, DecodeError, Digest, Events, LinHist, LogHist, MAX_COUNT, MergeError, Moments, Pair, Pairs,
    Rate, Summary, SummaryKind,
};

use crate::support::{KINDS, digest, empty, filled};

fn value() -> impl Strategy<Value = f64> {
    // The span is wider than the bin cap, so that the test covers collapsing.
    prop_oneof![Just(0.0), (-60.0..60.0_f64).prop_map(f64::exp), (0.0..200.0_f64)]
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(value(), 0..300)
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
    fn any_number_is_accepted_or_refused(
        bits: u64, hash: u64, n in prop_oneof![0..3_u64, any::<u64>()], cap in -9.0..9.0_f64,
    ) {
        let value = f64::from_bits(bits);
        let amount = value.is_finite() && value >= 0.0;
        let mut log = LogHist::new();
        prop_assert_eq!(log.insert(value).is_ok(), amount);
        prop_assert_eq!(log.total(), u64::from(amount));
        let mut lin = LinHist::new();
        prop_assert_eq!(lin.insert(value, hash).is_ok(), (0.0..=1.0).contains(&value));
        let mut capped = CappedHist::new(10.0_f64.powf(cap)).unwrap();
        prop_assert_eq!(capped.insert(value, hash).is_ok(), amount);
        let small = value.is_finite() && value.abs() < 9e9;
        let mut moments = Moments::default();
        prop_assert!(moments.insert(value).is_ok() || !small);
        let mut buckets = Buckets::new();
        prop_assert_eq!(buckets.insert(hash, value, n).is_ok(), n > 0 && n <= MAX_COUNT && moments.n() == 1);
        let mut pairs = Pairs::new();
        let inserted = pairs.insert(Pair::Number { differs: true, difference: value, hash });
        prop_assert!(inserted.is_ok() == (-1.0..=1.0).contains(&value) || (value.abs() - 1.0).abs() < 1e-12);
        prop_assert_eq!(pairs.n(), u64::from(inserted.is_ok()));
        let mut digest = Digest::new();
        prop_assert_eq!(digest.insert(&[value]).is_ok(), value.is_finite());
        prop_assert!(Events::default().insert(n, hash).is_ok() == (n <= MAX_COUNT && hash <= MAX_COUNT));
        let _ = (CappedHist::new(value), Rate::new(n, hash), log.quantile(value), digest.quantile(value));
    }

    #[test]
    fn full_summaries_refuse_more(
        kind in 0..KINDS, values in prop::collection::vec(value(), 101..300), n in (MAX_COUNT - 100)..=MAX_COUNT,
    ) {
        let full = match empty(kind) {
            Summary::Rate(_) => Summary::Rate(Rate::new(n, 5).unwrap()),
            Summary::Events(_) => Summary::Events(Events::new(n, n).unwrap()),
            Summary::Buckets(mut buckets) => {
                buckets.insert(1, 0.5, n).unwrap();
                Summary::Buckets(buckets)
            }
            // The other kinds cannot be filled directly, so they are doubled until full.
            _ => {
                let mut full = filled(kind, &values);
                let mut doubled = Ok(());
                while doubled.is_ok() {
                    let copy = full.clone();
                    doubled = full.merge(&copy);
                }
                full
            }
        };
        let mut twice = full.clone();
        prop_assert_eq!(twice.merge(&full), Err(MergeError::Overflow));
        prop_assert_eq!(&twice, &full);
        prop_assert_eq!(Summary::decode(&full.encode()), Ok(full));
    }

    #[test]
    fn the_unit_of_values_does_not_matter(values in values(), scale in -9.0..9.0_f64, level in 0.0..=1.0_f64) {
        let scale = 10.0_f64.powf(scale);
        let of = |scale: f64| {
            let mut hist = LogHist::new();
            values.iter().filter(|&&value| value > 1e-3).for_each(|value| hist.insert(value * scale).unwrap());
            hist.quantile(level)
        };
        match (of(1.0), of(scale)) {
            // Each is within 1 % of the value of that rank.
            (Some(one), Some(scaled)) => prop_assert!((scaled / (one * scale) - 1.0).abs() < 0.0203, "{one} {scaled}"),
            (one, scaled) => prop_assert_eq!(one, scaled),
        }
    }

    #[test]
    fn digests_keep_their_count(values in values(), other in values()) {
        let mut one = digest(&values);
        one.merge(&digest(&other)).unwrap();
        prop_assert_eq!(one.total(), (values.len() + other.len()) as u64);
        prop_assert_eq!(Digest::decode(&one.encode()).unwrap().encode(), one.encode());
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
    fn hostile_bytes_never_panic(kind in 1..12_u8, mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        bytes.splice(0..0, [1, kind]);
        if let Ok(summary) = Summary::decode(&bytes) {
            // Accepted bytes are canonical and bounded.
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
    assert_eq!(Digest::decode(&[2, 65, 0]).unwrap_err(), DecodeError::Version(2));
    // A digest does not decode as a summary, nor a summary as a digest. Type 64 was a counter of distinct values; it is not reused.
    assert_eq!(Summary::decode(&[1, 64]), Err(DecodeError::Type(64)));
    assert_eq!(Summary::decode(&digest(&[1.0]).encode()), Err(DecodeError::Type(65)));
    assert_eq!(Digest::decode(&[1, 64]).unwrap_err(), DecodeError::Type(64));
    assert_eq!(Summary::decode(&[1, 1, 0, 0, 0]), Err(DecodeError::TrailingBytes(1)));
    assert_eq!(Summary::decode(&[1, 1, 1, 2]), Err(DecodeError::Malformed("more events than trials")));
    // A claim of 2^60 bins allocates nothing.
    let huge = [1, 2, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(Summary::decode(&huge), Err(DecodeError::Malformed("too many bins")));
}

#[test]
fn golden_hashes() {
    // Computed by an independent implementation (Python), so that clients in other languages can check their implementation.
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

/// Serializes the value to JSON and back.
fn by_serde<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value);
    assert!(serde_json::from_str::<T>("[1,99,0,0]").is_err());
    assert!(serde_json::from_str::<T>("[1,2]").is_err());
}

#[test]
fn summaries_survive_serde() {
    for kind in 0..KINDS {
        match filled(kind, &[0.0, 1.0, 55.0]) {
            Summary::Rate(rate) => by_serde(&rate),
            Summary::Log(hist) => by_serde(&hist),
            Summary::Lin(hist) => by_serde(&hist),
            Summary::Capped(hist) => by_serde(&hist),
            Summary::Classes(counts) => by_serde(&counts),
            Summary::Moments(moments) => by_serde(&moments),
            Summary::Buckets(buckets) => by_serde(&buckets),
            Summary::Events(events) => by_serde(&events),
            Summary::Pairs(pairs) => by_serde(&pairs),
            Summary::ByUnit(by_unit) => by_serde(&by_unit),
        }
    }
    // The bytes of another kind are refused.
    assert!(serde_json::from_str::<LogHist>("[1,1,0,0]").is_err());
}
