//! Properties of the codec for every record: encoded records can be decoded, and invalid bytes are refused without a panic.

mod support;

use std::collections::BTreeSet;

use apache_avro::{Schema, schema::RecordSchema};
use proptest::{prelude::*, test_runner::TestRunner};
use serin_schemas::Code;
use serin_schemas::{
    codec::{self, DecodeError, MAX_RECORD_BYTES, Record},
    records::*,
};
use support::{Draw, Source};

/// Runs `$check::<R>` for every record type.
macro_rules! for_every_record {
    ($check:ident) => {
        $check::<Prediction>();
        $check::<Feedback>();
        $check::<Heartbeat>();
        $check::<Control>();
        $check::<WindowClosed>();
        $check::<ClosedThrough>();
        $check::<Verdict>();
        $check::<RoutingTable>();
        $check::<RouterStatus>();
        $check::<Command>();
        $check::<RolloutEvent>();
        $check::<DeadLetter>();
        $check::<Capture>();
    };
}

fn any_record<R: Draw + std::fmt::Debug>() -> impl Strategy<Value = R> {
    prop::collection::vec(any::<u8>(), 0..600).prop_map(|bytes| R::draw(&mut Source(&bytes)))
}

fn law<S: Strategy>(strategy: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    TestRunner::deterministic().run(strategy, check).expect("the law holds");
}

#[test]
fn encoded_records_can_be_decoded() {
    fn check<R: Record + Draw + PartialEq + std::fmt::Debug>() {
        law(&any_record::<R>(), |record| {
            let body = codec::encode(&record).unwrap();
            prop_assert_eq!(&codec::decode::<R>(R::VERSION, &body).unwrap(), &record);
            // The slow path for older writers reads the same value.
            let resolved = codec::decode_written_by::<R>(R::VERSION, R::schema(), &body).unwrap();
            prop_assert_eq!(resolved, record);
            Ok(())
        });
    }
    for_every_record!(check);
}

#[test]
fn the_generic_path_of_the_library_writes_the_same_bytes() {
    fn check<R: Record + Draw + std::fmt::Debug>() {
        law(&any_record::<R>(), |record| {
            let body = codec::encode(&record).unwrap();
            let reader = apache_avro::reader::datum::GenericDatumReader::builder(R::schema()).build().unwrap();
            let value = reader.read_value(&mut &body[..]).unwrap();
            let writer = apache_avro::writer::datum::GenericDatumWriter::builder(R::schema()).build().unwrap();
            let again = writer.write_value_to_vec(value).unwrap();
            // Maps have no order in the generic path, so the bytes are compared as a multiset.
            let sorted = |mut bytes: Vec<u8>| {
                bytes.sort_unstable();
                bytes
            };
            prop_assert_eq!(sorted(again), sorted(body));
            Ok(())
        });
    }
    for_every_record!(check);
}

#[test]
fn a_truncated_body_is_garbage() {
    fn check<R: Record + Draw + std::fmt::Debug>() {
        law(&any_record::<R>(), |record| {
            let body = codec::encode(&record).unwrap();
            for end in 0..body.len() {
                let error = codec::decode::<R>(R::VERSION, &body[..end]).err().map(|error| error.code());
                prop_assert_eq!(error, Some(Code::Garbage));
                let error = codec::decode_written_by::<R>(0, R::schema(), &body[..end]).err().map(|error| error.code());
                prop_assert_eq!(error, Some(Code::Garbage), "resolving path, {} of {} bytes", end, body.len());
            }
            Ok(())
        });
    }
    for_every_record!(check);
}

#[test]
fn a_body_with_trailing_bytes_is_garbage() {
    fn check<R: Record + Draw + std::fmt::Debug>() {
        law(&any_record::<R>(), |record| {
            let mut body = codec::encode(&record).unwrap();
            body.push(0);
            let error = codec::decode::<R>(R::VERSION, &body).err().map(|error| error.to_string());
            prop_assert!(error.is_some_and(|text| text.ends_with("1 bytes too many")));
            let error = codec::decode_written_by::<R>(0, R::schema(), &body).err().map(|error| error.code());
            prop_assert_eq!(error, Some(Code::Garbage));
            Ok(())
        });
    }
    for_every_record!(check);
}

#[test]
fn arbitrary_bytes_never_panic() {
    fn check<R: Record + Draw>() {
        law(&prop::collection::vec(any::<u8>(), 0..400), |bytes| {
            for outcome in
                [codec::decode::<R>(R::VERSION, &bytes), codec::decode_written_by::<R>(0, R::schema(), &bytes)]
            {
                if let Err(error) = outcome {
                    prop_assert_eq!(error.code(), Code::Garbage);
                    prop_assert!(error.to_string().len() < 500);
                }
            }
            Ok(())
        });
    }
    for_every_record!(check);
}

#[test]
fn a_body_with_one_byte_changed_never_panics() {
    fn check<R: Record + Draw + std::fmt::Debug>() {
        law(&(any_record::<R>(), any::<prop::sample::Index>(), any::<u8>()), |(record, at, byte)| {
            let mut body = codec::encode(&record).unwrap();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = codec::decode::<R>(R::VERSION, &body);
            let _ = codec::decode_written_by::<R>(0, R::schema(), &body);
            Ok(())
        });
    }
    for_every_record!(check);
}

/// The length prefix of the first text is 2^62.
#[test]
fn a_huge_length_is_garbage() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let error = codec::decode::<Prediction>(Prediction::VERSION, &huge).unwrap_err();
    assert!(matches!(&error, DecodeError::Garbage { cause, .. } if cause.contains("maximum allowed")), "{error}");
    assert_eq!(apache_avro::util::max_allocation_bytes(usize::MAX), MAX_RECORD_BYTES, "the limit was set elsewhere");
    // Lengths just below the limit, without data after them, in an array, a map and bytes.
    for prefix in [0x7f_ff_ff_i64, i64::MAX, i64::MIN] {
        let mut body = Vec::new();
        let mut rest = ((prefix << 1) ^ (prefix >> 63)) as u64;
        while rest > 0x7f {
            body.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        body.push(rest as u8);
        assert_eq!(codec::decode::<DeadLetter>(1, &body).unwrap_err().code(), Code::Garbage);
        let router = [0, 0, 0].into_iter().chain(body).collect::<Vec<u8>>();
        assert_eq!(codec::decode::<RouterStatus>(1, &router).unwrap_err().code(), Code::Garbage);
        let error = codec::decode_written_by::<RouterStatus>(1, RouterStatus::schema(), &router).unwrap_err();
        assert_eq!(error.code(), Code::Garbage);
    }
}

#[test]
fn a_record_of_ten_megabytes_is_neither_written_nor_read() {
    let letter = DeadLetter {
        stage: "aggregator".into(),
        topic: "events".into(),
        partition: 0,
        offset: 7,
        code: "garbage".into(),
        message: String::new(),
        key: Vec::new(),
        value: vec![0; 10_000_000],
    };
    let error = codec::encode(&letter).unwrap_err();
    assert!(error.to_string().starts_with("dead_letter has 10000"), "{error}");
    let error = codec::decode::<DeadLetter>(1, &vec![0; 10_000_000]).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
}

#[test]
fn nan_survives() {
    let mut prediction = Prediction::draw(&mut Source(&[]));
    prediction.outputs.insert("p_late".into(), f64::NAN);
    let body = codec::encode(&prediction).unwrap();
    assert!(codec::decode::<Prediction>(Prediction::VERSION, &body).unwrap().outputs["p_late"].is_nan());
}

/// The schema has exactly the fields of the Rust type. Other tests do not notice a field with a default that only the schema has.
#[test]
fn schemas_and_types_have_the_same_fields() {
    fn check<R: Record + Draw + std::fmt::Debug>() {
        // 255 draws the longest lists and a value for every option.
        let record = R::draw(&mut Source(&vec![255; 100_000]));
        let json = serde_json::to_value(&record).unwrap();
        let Schema::Record(schema) = R::schema() else { panic!("{} is not a record", R::NAME) };
        assert_eq!(schema.name.namespace(), Some("dev.serin"));
        assert_fields(schema, &json);
    }
    for_every_record!(check);
}

fn assert_fields(schema: &RecordSchema, json: &serde_json::Value) {
    let json = json.as_object().unwrap_or_else(|| panic!("{} is not an object", schema.name));
    let found: BTreeSet<&str> = json.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(expected, found, "{}", schema.name);
    for field in &schema.fields {
        assert!(field.doc.as_ref().is_some_and(|doc| !doc.is_empty()), "{}.{} has no doc", schema.name, field.name);
        match (&field.schema, &json[&field.name]) {
            (Schema::Record(inner), value) => assert_fields(inner, value),
            (Schema::Array(array), serde_json::Value::Array(values)) => {
                if let (Schema::Record(inner), Some(value)) = (&*array.items, values.first()) {
                    assert_fields(inner, value);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn error_messages_are_readable() {
    let error = codec::decode::<ClosedThrough>(1, &[1]).unwrap_err();
    insta::assert_snapshot!(error, @"not a closed_through of version 1: Failed to read bytes for decoding variable length integer: failed to fill whole buffer");
    let error = codec::decode::<ClosedThrough>(7, &[1]).unwrap_err();
    insta::assert_snapshot!(error, @"closed_through version 7 is unknown here (known: [1, 2]); upgrade the reader before the writers");
}
