//! The disk format of records, topics and numbers. All integers are big-endian, so that keys sort like numbers.
//!
//! | writer | reader | outcome |
//! |---|---|---|
//! | format 1 | format 1 | read |
//! | newer | format 1 | the log does not open and is left unchanged |

use bytes::{Buf, BufMut, Bytes};
use serin_topology::{Cleanup, TopicSpec};

use crate::{
    local::storage::{Place, StorageError, Stored},
    record::Headers,
};

/// Version of the disk format, stored in the meta family under [`FORMAT_KEY`].
pub(super) const FORMAT: u8 = 1;
/// Key of the format version.
pub(super) const FORMAT_KEY: &[u8] = b"format";

// First bytes of the keys in the meta family. They are never reused.
pub(super) const TOPIC: u8 = b't';
pub(super) const EPOCH: u8 = b'e';
pub(super) const POSITION: u8 = b'p';
pub(super) const START: u8 = b's';
pub(super) const END: u8 = b'n';

/// Key of a record: topic, partition, offset.
pub(super) fn record_key(place: Place, offset: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&place_bytes(place));
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The offset in a record's key.
pub(super) fn offset_of(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(8..)?.try_into().ok()?))
}

pub(super) fn place_bytes(place: Place) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&place.topic.to_be_bytes());
    bytes[4..].copy_from_slice(&place.partition.to_be_bytes());
    bytes
}

pub(super) fn place_of(bytes: &[u8]) -> Option<Place> {
    let (topic, partition) = bytes.split_first_chunk::<4>()?;
    let partition = i32::from_be_bytes(partition.try_into().ok()?);
    Some(Place { topic: u32::from_be_bytes(*topic), partition })
}

/// A key in the meta family.
pub(super) fn meta_key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

/// The key of a group's position.
pub(super) fn position_key(group: &str, place: Place) -> Vec<u8> {
    meta_key(POSITION, &[group.as_bytes(), b"\0", &place_bytes(place)].concat())
}

/// Encodes a record: timestamp `i64`, length of the key `u32`, key, 1 and length `u32` and value or 0, number of headers `u16`, then
/// their block as [`Headers`] stores it (its bytes are part of this format).
pub(super) fn encode(record: &Stored, into: &mut Vec<u8>) {
    into.put_i64(record.timestamp_ms);
    put_long(&record.key, into);
    into.put_u8(u8::from(record.value.is_some()));
    if let Some(value) = &record.value {
        put_long(value, into);
    }
    into.put_u16(record.headers.len() as u16);
    into.put_slice(record.headers.packed());
}

fn put_long(bytes: &[u8], into: &mut Vec<u8>) {
    into.put_u32(bytes.len() as u32);
    into.put_slice(bytes);
}

pub(super) fn decode(bytes: Bytes) -> Result<Stored, StorageError> {
    try_decode(bytes).ok_or_else(|| StorageError("a record on disk is damaged".into()))
}

fn try_decode(mut bytes: Bytes) -> Option<Stored> {
    let timestamp_ms = bytes.try_get_i64().ok()?;
    let key = take_long(&mut bytes)?;
    let value = if bytes.try_get_u8().ok()? == 1 { Some(take_long(&mut bytes)?) } else { None };
    let count = bytes.try_get_u16().ok()?;
    let headers = Headers::unpack(count, bytes)?;
    Some(Stored { timestamp_ms, key, value, headers })
}

fn take_long(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

/// Encodes a topic as JSON.
pub(super) fn encode_topic(spec: &TopicSpec) -> Vec<u8> {
    let retention_ms = match spec.cleanup {
        Cleanup::Delete { retention_ms } => Some(retention_ms),
        Cleanup::Compact => None,
    };
    let settings: Vec<_> = spec.settings.iter().map(|(name, value)| serde_json::json!([name, value])).collect();
    serde_json::json!({
        "name": spec.name, "partitions": spec.partitions, "replication": spec.replication,
        "retention_ms": retention_ms, "settings": settings,
    })
    .to_string()
    .into_bytes()
}

pub(super) fn decode_topic(bytes: &[u8]) -> Option<TopicSpec> {
    let json: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let number = |name: &str| json.get(name)?.as_i64().and_then(|number| i32::try_from(number).ok());
    let setting =
        |pair: &serde_json::Value| Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()));
    let retention = json.get("retention_ms").and_then(serde_json::Value::as_i64);
    Some(TopicSpec {
        name: json.get("name")?.as_str()?.to_owned(),
        partitions: number("partitions")?,
        replication: number("replication")?,
        cleanup: retention.map_or(Cleanup::Compact, |retention_ms| Cleanup::Delete { retention_ms }),
        settings: json.get("settings")?.as_array()?.iter().map(setting).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_a_record() {
        let record = Stored {
            timestamp_ms: 258,
            key: "k".into(),
            value: Some("vv".into()),
            headers: [("h", "x")].into_iter().collect(),
        };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        assert_eq!(bytes, b"\0\0\0\0\0\0\x01\x02\0\0\0\x01k\x01\0\0\0\x02vv\0\x01\0\x01h\0\0\0\x01x");
        assert_eq!(decode(bytes.clone().into()).unwrap(), record);
        for cut in 0..bytes.len() {
            assert!(decode(bytes[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
        let tombstone = Stored { value: None, headers: Headers::default(), ..record };
        let mut bytes = Vec::new();
        encode(&tombstone, &mut bytes);
        assert_eq!(bytes, b"\0\0\0\0\0\0\x01\x02\0\0\0\x01k\0\0\0");
        assert_eq!(decode(bytes.into()).unwrap(), tombstone);
    }

    #[test]
    fn golden_keys_and_topics() {
        let place = Place { topic: 2, partition: 3 };
        assert_eq!(record_key(place, 5), *b"\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x05");
        assert_eq!(offset_of(&record_key(place, 5)), Some(5));
        assert_eq!(place_of(&place_bytes(place)), Some(place));
        assert_eq!(position_key("g", place), b"pg\0\0\0\0\x02\0\0\0\x03");
        let mut spec = TopicSpec {
            name: "events".into(),
            partitions: 4,
            replication: 1,
            cleanup: Cleanup::Delete { retention_ms: 1000 },
            settings: vec![("a.b".into(), "c".into())],
        };
        let json = r#"{"name":"events","partitions":4,"replication":1,"retention_ms":1000,"settings":[["a.b","c"]]}"#;
        assert_eq!(String::from_utf8(encode_topic(&spec)).unwrap(), json);
        assert_eq!(decode_topic(json.as_bytes()), Some(spec.clone()));
        spec.cleanup = Cleanup::Compact;
        assert_eq!(decode_topic(&encode_topic(&spec)), Some(spec));
    }
}
