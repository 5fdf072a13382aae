//! Encodes and decodes the Avro bodies of records.
//!
//! A body is one bare Avro datum. The headers name the record and its version ([`crate::envelope`]). Every version that this build
//! can read has its schema in `schemas/avro/<name>.v<version>.avsc`. The newest version is read and written by the fast serde path;
//! older versions go through Avro schema resolution.
//!
//! For any bytes, decoding returns a value or a [`DecodeError`]. It never panics, and no single allocation is larger than
//! [`MAX_RECORD_BYTES`].

use crate::Code;
use std::io::Read;

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use serde::{Serialize, de::DeserializeOwned};

use self::in_order::InOrder;
use crate::{
    event_type::{EnvelopeError, record_type, type_of},
    headers::Headers,
};

pub mod avro_bytes;
#[cfg(test)]
mod evolution;
mod in_order;

/// Maximum size of a body: 8 MiB. `max.message.bytes` of the topics with large records (`serin_topology`) leaves room for it.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Initial capacity for a body. Most predictions and feedback fit, so encoding them allocates once.
const TYPICAL_BYTES: usize = 256;

/// Maximum length of the cause in a [`DecodeError`], in bytes. The Avro library prints whole schemas.
const MAX_CAUSE_BYTES: usize = 300;

/// A record that is written to topics.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the record in headers and messages, such as `prediction`.
    const NAME: &'static str;
    /// The version that this build writes.
    const VERSION: u32;

    /// The codec of this record, with all its schemas.
    fn codec() -> &'static Codec;

    /// The schema that this build writes.
    fn schema() -> &'static Schema {
        Self::codec().current
    }
}

/// A record could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The value does not fit its schema: the Rust type and the schema file differ.
    #[error("{record} does not fit its schema: {cause}")]
    Schema {
        /// Name of the record.
        record: &'static str,
        /// The error of the Avro library.
        cause: String,
    },
    /// The body would be larger than [`MAX_RECORD_BYTES`].
    #[error("{record} has {bytes} bytes, more than the {MAX_RECORD_BYTES} a record may have; split it or send less")]
    TooLarge {
        /// Name of the record.
        record: &'static str,
        /// Size of the body.
        bytes: usize,
    },
}

/// A record could not be read. It becomes a dead letter with the code [`code`](Self::code).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not one datum of the schema that the headers name.
    #[error("not a {record} of version {version}: {cause}")]
    Garbage {
        /// Name of the record.
        record: &'static str,
        /// The version that the headers name.
        version: u32,
        /// What is wrong.
        cause: String,
    },
    /// This build has no schema of that version.
    #[error("{record} version {version} is unknown here (known: {known:?}); upgrade the reader before the writers")]
    UnknownVersion {
        /// Name of the record.
        record: &'static str,
        /// The version that the headers name.
        version: u32,
        /// The versions that this build can read.
        known: Vec<u32>,
    },
    /// The headers do not name a record, or name one that does not belong on this topic.
    #[error("{cause}; expected {expected}")]
    UnknownType {
        /// What is wrong with the headers.
        cause: String,
        /// The records that are expected.
        expected: &'static str,
    },
    /// The body is larger than [`MAX_RECORD_BYTES`].
    #[error("the body has {bytes} bytes, more than the {MAX_RECORD_BYTES} a record may have")]
    TooLarge {
        /// Size of the body.
        bytes: usize,
    },
}

impl DecodeError {
    /// Stable code for dead letters and metrics.
    pub fn code(&self) -> Code {
        match self {
            Self::Garbage { .. } => Code::Garbage,
            Self::UnknownVersion { .. } => Code::UnknownSchemaVersion,
            Self::UnknownType { .. } => Code::UnknownType,
            Self::TooLarge { .. } => Code::TooLarge,
        }
    }

    pub(crate) fn from_envelope(error: &EnvelopeError, expected: &'static str) -> Self {
        Self::UnknownType { cause: error.to_string(), expected }
    }
}

/// The schemas of one record: the current one with its fast reader and writer, and the older ones that can still be read.
pub struct Codec {
    current: &'static Schema,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    versions: Vec<(u32, &'static Schema)>,
    pub(crate) ce_type: String,
}

impl Codec {
    /// Parses the schema files of one record, newest last. The schemas are never freed.
    ///
    /// # Panics
    /// If a schema file is not valid Avro. `cargo test -p serin-schemas` parses all of them.
    pub(crate) fn new(name: &str, sources: &[(u32, &str)]) -> Self {
        // This takes effect once per process. Every reader of records creates a codec first.
        apache_avro::util::max_allocation_bytes(MAX_RECORD_BYTES);
        let versions: Vec<(u32, &'static Schema)> = sources
            .iter()
            .map(|(version, json)| {
                let schema = Schema::parse_str(json).expect("schema files are checked by the tests of this crate");
                (*version, &*Box::leak(Box::new(schema)))
            })
            .collect();
        let &(version, current) = versions.last().expect("every record has a version");
        let writer = GenericDatumWriter::builder(current).human_readable(false).build();
        let reader = GenericDatumReader::builder(current).human_readable(false).build();
        Self {
            current,
            writer: writer.expect("a schema file names all it refers to"),
            reader: reader.expect("a schema file names all it refers to"),
            versions,
            ce_type: type_of(name, version),
        }
    }

    /// The versions that can be read, with their schemas, oldest first.
    pub fn versions(&self) -> &[(u32, &'static Schema)] {
        &self.versions
    }
}

/// Encodes the body of a record in the current version.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>, EncodeError> {
    let mut body = Vec::with_capacity(TYPICAL_BYTES);
    R::codec()
        .writer
        .write_ser(&mut body, &InOrder(record))
        .map_err(|error| EncodeError::Schema { record: R::NAME, cause: short(&error.to_string()) })?;
    if body.len() > MAX_RECORD_BYTES {
        return Err(EncodeError::TooLarge { record: R::NAME, bytes: body.len() });
    }
    Ok(body)
}

/// Decodes a body that was written in `version`.
pub fn decode<R: Record>(version: u32, body: &[u8]) -> Result<R, DecodeError> {
    let codec = R::codec();
    if version != R::VERSION {
        let Some((_, writer)) = codec.versions.iter().find(|(known, _)| *known == version) else {
            let known = codec.versions.iter().map(|(known, _)| *known).collect();
            return Err(DecodeError::UnknownVersion { record: R::NAME, version, known });
        };
        return decode_written_by(version, writer, body);
    }
    check_size(body)?;
    let mut rest = body;
    let record = codec.reader.read_deser(&mut rest).map_err(|error| garbage::<R>(version, &error.to_string()))?;
    check_end::<R>(version, rest)?;
    Ok(record)
}

/// Decodes a body that was written with another schema of the same record, by Avro schema resolution. Fields that are missing in
/// the writer's schema get their default, and fields that are missing in the reader's schema are dropped.
///
/// This is about ten times slower than [`decode`] for the current version.
pub fn decode_written_by<R: Record>(version: u32, writer: &Schema, body: &[u8]) -> Result<R, DecodeError> {
    check_size(body)?;
    let mut rest = Strict { rest: body, read_past_end: false };
    let resolved = GenericDatumReader::builder(writer)
        .reader_schema(R::schema())
        .human_readable(false)
        .build()
        .and_then(|reader| reader.read_value(&mut rest))
        .and_then(|value| apache_avro::from_value(&value))
        .map_err(|error| garbage::<R>(version, &error.to_string()))?;
    if rest.read_past_end {
        return Err(garbage::<R>(version, "the body ends too early"));
    }
    check_end::<R>(version, rest.rest)?;
    Ok(resolved)
}

/// Reads a record from a topic with only this type of record: checks the type in the headers, then [`decode`]s the body.
pub fn read<R: Record>(headers: &Headers, body: &[u8]) -> Result<R, DecodeError> {
    let (name, version) = record_type(headers).map_err(|error| DecodeError::from_envelope(&error, R::NAME))?;
    if name != R::NAME {
        return Err(DecodeError::UnknownType { cause: format!("a {name:?} does not belong here"), expected: R::NAME });
    }
    decode(version, body)
}

fn check_size(body: &[u8]) -> Result<(), DecodeError> {
    if body.len() > MAX_RECORD_BYTES { Err(DecodeError::TooLarge { bytes: body.len() }) } else { Ok(()) }
}

fn check_end<R: Record>(version: u32, rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() { Ok(()) } else { Err(garbage::<R>(version, &format!("{} bytes too many", rest.len()))) }
}

fn garbage<R: Record>(version: u32, cause: &str) -> DecodeError {
    DecodeError::Garbage { record: R::NAME, version, cause: short(cause) }
}

fn short(cause: &str) -> String {
    if cause.len() <= MAX_CAUSE_BYTES {
        return cause.to_owned();
    }
    format!("{} ...", &cause[..cause.floor_char_boundary(MAX_CAUSE_BYTES)])
}

/// A reader that records attempts to read past the end. The Avro library reads an early end inside a string, a boolean or a union as
/// null.
struct Strict<'a> {
    rest: &'a [u8],
    read_past_end: bool,
}

impl Read for Strict<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(into)?;
        self.read_past_end |= read < into.len();
        Ok(read)
    }
}
