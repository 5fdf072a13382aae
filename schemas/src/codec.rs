//! Avro bodies: encode and decode each record.
//!
//! A body is one bare Avro datum; which record and which version it is stands in the headers ([`crate::envelope`]). Every
//! version that this build can read has its schema in `schemas/avro/<name>.v<version>.avsc`. The newest is read and written by
//! the fast serde path; older ones go through Avro schema resolution.
//!
//! Whatever the bytes are, decoding ends in a value or a [`DecodeError`]: it never panics, and no single allocation is larger
//! than [`MAX_RECORD_BYTES`].

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

/// The largest body that is written or read: 8 MiB. `max.message.bytes` of the topics that carry large records
/// (`serin_topology`) leaves room for it.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Room for most predictions and feedback, so that encoding them allocates once.
const TYPICAL_BYTES: usize = 256;

/// Longest cause kept in a [`DecodeError`], in bytes: the library prints whole schemas.
const MAX_CAUSE_BYTES: usize = 300;

/// A record that travels over topics.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name in headers and texts, such as `prediction`.
    const NAME: &'static str;
    /// The version that this build writes.
    const VERSION: u32;

    /// The schemas of this record and the codec made from them.
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
        /// What Avro said.
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

/// A record could not be read. It belongs in `dead-letters`, under [`code`](Self::code).
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
    /// The headers name no record, or one that does not belong here.
    #[error("{cause}; expected {expected}")]
    UnknownType {
        /// What the headers say.
        cause: String,
        /// What may stand here.
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
    /// Parses the schema files of one record, newest last. The schemas live as long as the process.
    ///
    /// # Panics
    /// When a schema file is not valid Avro; `cargo test -p serin-schemas` opens all of them.
    pub(crate) fn new(name: &str, sources: &[(u32, &str)]) -> Self {
        // Once per process; whoever decodes first sets it, and every reader of records comes through here.
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

    /// The versions that can be read, and their schemas, oldest first.
    pub fn versions(&self) -> &[(u32, &'static Schema)] {
        &self.versions
    }
}

/// The body of a record, in the current version.
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

/// Reads a body that was written in `version`.
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

/// Reads a body that was written with another schema of the same record, by Avro schema resolution: fields that the writer did not
/// know get their default, fields that the reader does not know are dropped.
///
/// Slower than [`decode`] for the current version by about a factor of ten.
pub fn decode_written_by<R: Record>(version: u32, writer: &Schema, body: &[u8]) -> Result<R, DecodeError> {
    check_size(body)?;
    let mut rest = Strict { rest: body, starved: false };
    let resolved = GenericDatumReader::builder(writer)
        .reader_schema(R::schema())
        .human_readable(false)
        .build()
        .and_then(|reader| reader.read_value(&mut rest))
        .and_then(|value| apache_avro::from_value(&value))
        .map_err(|error| garbage::<R>(version, &error.to_string()))?;
    if rest.starved {
        return Err(garbage::<R>(version, "the body ends too early"));
    }
    check_end::<R>(version, rest.rest)?;
    Ok(resolved)
}

/// Reads a record of a topic that carries only this one: checks the type in the headers, then [`decode`]s.
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

/// Notes when more was asked for than there was: the library reads an early end inside a text, a boolean or a union as null.
struct Strict<'a> {
    rest: &'a [u8],
    starved: bool,
}

impl Read for Strict<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(into)?;
        self.starved |= read < into.len();
        Ok(read)
    }
}
