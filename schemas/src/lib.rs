//! The wire contract of Serin: records, their Avro codecs, and `CloudEvents` headers.
//!
//! Every body is one Avro datum. The headers name the record and its version ([`envelope`]). Schemas are in `schemas/avro/`, golden
//! bytes in `schemas/tests/golden/`.

mod code;
pub mod codec;
pub mod envelope;
pub mod event;
mod event_type;
pub mod foreign;
pub mod headers;
pub mod ids;
pub mod pattern;
pub mod records;
mod time;
pub mod view;

pub use code::Code;
