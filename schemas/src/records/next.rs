//! A possible future `window_closed`: version 6, with one additional optional field. For the test of a rolling upgrade.
//!
//! Invariant: version 6 is version 5 plus a field with a default, as docs/records.md requires for a change.

use std::sync::LazyLock;

use super::WindowClosed;
use crate::codec::{Codec, Record};

const V1: &str = include_str!("../../avro/window_closed.v1.avsc");
const V2: &str = include_str!("../../avro/window_closed.v2.avsc");

const V3: &str = include_str!("../../avro/window_closed.v3.avsc");
const V4: &str = include_str!("../../avro/window_closed.v4.avsc");
const V5: &str = include_str!("../../avro/window_closed.v5.avsc");

static V6: LazyLock<String> = LazyLock::new(|| {
    let mut schema: serde_json::Value = serde_json::from_str(V5).expect("schema files are checked by the tests");
    let added = serde_json::json!({"name": "closed_by", "type": ["null", "string"], "default": null});
    schema["fields"].as_array_mut().expect("a record has fields").push(added);
    schema.to_string()
});

impl Record for WindowClosed {
    const NAME: &'static str = "window_closed";
    const VERSION: u32 = 6;

    fn codec() -> &'static Codec {
        static CODEC: LazyLock<Codec> = LazyLock::new(|| {
            Codec::new("window_closed", &[(1, V1), (2, V2), (3, V3), (4, V4), (5, V5), (6, V6.as_str())])
        });
        &CODEC
    }
}
