//! Schema evolution: an old build reads records of a new build, and vice versa. The new version only exists in this test.

use std::sync::LazyLock;

use apache_avro::Schema;
use serde::{Deserialize, Serialize};

use super::{Codec, Record, decode, decode_written_by, encode};
use crate::{
    ids::EventTime,
    records::{ArmDrops, Heartbeat, Writer},
};

const NOW: &str = include_str!("../../avro/heartbeat.v2.avsc");

/// The current version with one additional field that has a default.
static NEXT: LazyLock<String> = LazyLock::new(|| {
    let mut schema: serde_json::Value = serde_json::from_str(NOW).unwrap();
    let added = serde_json::json!({"name": "zone", "type": "string", "doc": "Where it runs.", "default": "unknown"});
    schema["fields"].as_array_mut().unwrap().insert(1, added);
    schema.to_string()
});

/// A heartbeat of a newer build.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Heartbeat")]
struct NewHeartbeat {
    writer: Writer,
    zone: String,
    low_watermark: EventTime,
    drops: Vec<ArmDrops>,
    leaving: bool,
    sent_at: Option<EventTime>,
    relay: bool,
}

impl Record for NewHeartbeat {
    const NAME: &'static str = "heartbeat";
    const VERSION: u32 = 3;

    fn codec() -> &'static Codec {
        static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new("heartbeat", &[(2, NOW), (3, NEXT.as_str())]));
        &CODEC
    }
}

fn old() -> Heartbeat {
    Heartbeat {
        writer: Writer { name: "router-0".into(), incarnation: 5, seq: 9 },
        low_watermark: EventTime(77),
        drops: vec![ArmDrops { model: "flights".into(), arm: crate::records::Arm::Canary, dropped: 2 }],
        leaving: true,
        sent_at: Some(EventTime(78)),
        relay: false,
    }
}

fn new(zone: &str) -> NewHeartbeat {
    let Heartbeat { writer, low_watermark, drops, leaving, sent_at, relay } = old();
    NewHeartbeat { writer, zone: zone.into(), low_watermark, drops, leaving, sent_at, relay }
}

#[test]
fn a_new_reader_uses_defaults_for_fields_of_an_old_writer() {
    let body = encode(&old()).unwrap();
    assert_eq!(decode::<NewHeartbeat>(2, &body).unwrap(), new("unknown"));
}

#[test]
fn an_old_reader_drops_unknown_fields() {
    let body = encode(&new("eu-west-1a")).unwrap();
    let schema = Schema::parse_str(&NEXT).unwrap();
    assert_eq!(decode_written_by::<Heartbeat>(3, &schema, &body).unwrap(), old());
}

#[test]
fn an_old_reader_without_the_new_schema_refuses() {
    let body = encode(&new("eu-west-1a")).unwrap();
    assert_eq!(decode::<Heartbeat>(3, &body).unwrap_err().code().as_str(), "unknown_schema_version");
}

#[test]
fn an_unknown_symbol_is_garbage_and_known_symbols_are_read() {
    let schema = Schema::parse_str(&NOW.replace(r#""symbols": ["#, r#""symbols": ["ghost", "#)).unwrap();
    let read = |bytes: &[u8]| decode_written_by::<Heartbeat>(3, &schema, bytes);
    // writer "", 0, 0; watermark 0; one drop of model "" and the arm with this index; not leaving, no time, no relay.
    let body = |arm: u8| [0, 0, 0, 0, 2, 0, arm << 1, 0, 0, 0, 0, 0];
    assert_eq!(read(&body(0)).unwrap_err().code().as_str(), "garbage");
    assert_eq!(read(&body(1)).unwrap().drops[0].arm, crate::records::Arm::Stable);
}
