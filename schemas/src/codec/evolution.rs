//! Versions side by side: an old build reads what a new one wrote, and the reverse. The new version is made up here.

use std::sync::LazyLock;

use apache_avro::Schema;
use serde::{Deserialize, Serialize};

use super::{Codec, Record, decode, decode_written_by, encode};
use crate::{
    ids::EventTime,
    records::{ArmDrops, Heartbeat, Writer},
};

const V1: &str = include_str!("../../avro/heartbeat.v1.avsc");

/// Version 1 and one more field with a default.
static V2: LazyLock<String> = LazyLock::new(|| {
    let mut schema: serde_json::Value = serde_json::from_str(V1).unwrap();
    let added = serde_json::json!({"name": "zone", "type": "string", "doc": "Where it runs.", "default": "unknown"});
    schema["fields"].as_array_mut().unwrap().insert(1, added);
    schema.to_string()
});

/// A heartbeat as a newer build has it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Heartbeat")]
struct NewHeartbeat {
    writer: Writer,
    zone: String,
    low_watermark: EventTime,
    drops: Vec<ArmDrops>,
    leaving: bool,
}

impl Record for NewHeartbeat {
    const NAME: &'static str = "heartbeat";
    const VERSION: u32 = 2;

    fn codec() -> &'static Codec {
        static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new("heartbeat", &[(1, V1), (2, V2.as_str())]));
        &CODEC
    }
}

fn old() -> Heartbeat {
    Heartbeat {
        writer: Writer { name: "router-0".into(), incarnation: 5, seq: 9 },
        low_watermark: EventTime(77),
        drops: vec![ArmDrops { model: "flights".into(), arm: crate::records::Arm::Canary, dropped: 2 }],
        leaving: true,
    }
}

fn new(zone: &str) -> NewHeartbeat {
    let Heartbeat { writer, low_watermark, drops, leaving } = old();
    NewHeartbeat { writer, zone: zone.into(), low_watermark, drops, leaving }
}

#[test]
fn a_new_reader_fills_in_what_an_old_writer_did_not_know() {
    let body = encode(&old()).unwrap();
    assert_eq!(decode::<NewHeartbeat>(1, &body).unwrap(), new("unknown"));
}

#[test]
fn an_old_reader_drops_what_it_does_not_know() {
    let body = encode(&new("eu-west-1a")).unwrap();
    let schema = Schema::parse_str(&V2).unwrap();
    assert_eq!(decode_written_by::<Heartbeat>(2, &schema, &body).unwrap(), old());
}

#[test]
fn an_old_reader_without_the_new_schema_refuses() {
    let body = encode(&new("eu-west-1a")).unwrap();
    assert_eq!(decode::<Heartbeat>(2, &body).unwrap_err().code(), "unknown_schema_version");
}

#[test]
fn a_symbol_that_the_reader_does_not_know_is_garbage_and_the_others_are_read() {
    let schema = Schema::parse_str(&V1.replace(r#""symbols": ["#, r#""symbols": ["ghost", "#)).unwrap();
    let read = |bytes: &[u8]| decode_written_by::<Heartbeat>(2, &schema, bytes);
    // writer "", 0, 0; watermark 0; one drop of model "" by the arm of this index; not leaving.
    let body = |arm: u8| [0, 0, 0, 0, 2, 0, arm << 1, 0, 0, 0];
    assert_eq!(read(&body(0)).unwrap_err().code(), "garbage");
    assert_eq!(read(&body(1)).unwrap().drops[0].arm, crate::records::Arm::Stable);
}
