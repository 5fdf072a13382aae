//! Reads predictions and feedback in place, without allocation: strings and maps stay in the body.
//!
//! Most events are only counted. The Avro library's allocations (a `String` per text, a tree per map) would be most of the cost of an
//! event. [`EventView`] reads the current version itself, and everything else with the library. A view has the same content as the
//! library's record, and both refuse the same bytes. `schemas/tests/view.rs` checks this for any bytes.

mod avro;

use self::avro::{Cursor, Malformed, Read};
pub use self::avro::{Entries, MapView};
use crate::{
    codec::{DecodeError, Record as _},
    envelope,
    event::EventRecord,
    headers::Headers,
    ids::{EventTime, Generation},
    records::{Arm, Assignment, Batch, Credential, Feedback, Origin, Outcome, Prediction, Writer},
};

/// A record of `events`.
#[derive(Clone, Debug, PartialEq)]
pub enum EventView<'a> {
    /// A prediction in the current version.
    Prediction(PredictionView<'a>),
    /// Feedback in the current version.
    Feedback(FeedbackView<'a>),
    /// Any other record, or an older version.
    Other(Box<EventRecord>),
}

impl<'a> EventView<'a> {
    /// Reads the record that the headers name.
    pub fn decode(headers: &Headers, body: &'a [u8]) -> Result<Self, DecodeError> {
        // A view is only used if the body is valid. The library reports what is wrong with the rest.
        let view = match envelope::record_type(headers) {
            Ok((Prediction::NAME, Prediction::VERSION)) => PredictionView::read(body).map(Self::Prediction),
            Ok((Feedback::NAME, Feedback::VERSION)) => FeedbackView::read(body).map(Self::Feedback),
            _ => None,
        };
        match view {
            Some(view) => Ok(view),
            None => EventRecord::decode(headers, body).map(Box::new).map(Self::Other),
        }
    }
}

/// A [`Writer`] that is read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterView<'a> {
    /// See [`Writer::name`].
    pub name: &'a str,
    /// See [`Writer::incarnation`].
    pub incarnation: i64,
    /// See [`Writer::seq`].
    pub seq: i64,
}

impl<'a> From<&'a Writer> for WriterView<'a> {
    fn from(writer: &'a Writer) -> Self {
        Self { name: &writer.name, incarnation: writer.incarnation, seq: writer.seq }
    }
}

impl WriterView<'_> {
    /// Converts the view to a record.
    pub fn to_record(self) -> Writer {
        Writer { name: self.name.to_owned(), incarnation: self.incarnation, seq: self.seq }
    }
}

/// A [`Prediction`] that is read in place, with the same fields.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the record has them")]
pub struct PredictionView<'a> {
    pub request_id: &'a str,
    pub model: &'a str,
    pub version: &'a str,
    pub arm: Arm,
    pub assignment: Assignment,
    pub origin: Origin,
    pub rollout: Option<&'a str>,
    pub generation: Generation,
    pub completed_at: EventTime,
    pub latency_us: Option<i64>,
    pub status: Option<i32>,
    pub error: Option<&'a str>,
    pub invalid_output: Option<&'a str>,
    pub unit: Option<i64>,
    pub outputs: MapView<'a, f64>,
    pub classes: MapView<'a, &'a str>,
    pub segments: MapView<'a, &'a str>,
    pub writer: WriterView<'a>,
    pub outcome: Option<Outcome>,
    pub unread: Option<&'a str>,
    pub batch: Option<BatchView<'a>>,
}

impl<'a> PredictionView<'a> {
    /// The outcome of the call: the one in the record or, if there is none, the [derived](Outcome::derived) one.
    pub fn outcome(&self) -> Outcome {
        self.outcome.unwrap_or_else(|| Outcome::derived(self.origin, self.status, self.error, self.invalid_output))
    }

    /// Reads a body of the current version. Returns `None` if the body is invalid.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        Self::parse(body).ok()
    }

    fn parse(body: &'a [u8]) -> Read<Self> {
        let mut from = Cursor::new(body)?;
        let view = Self {
            request_id: from.text()?,
            model: from.text()?,
            version: from.text()?,
            arm: symbol(&ARMS, &mut from)?,
            assignment: symbol(&ASSIGNMENTS, &mut from)?,
            origin: symbol(&ORIGINS, &mut from)?,
            rollout: from.option(Cursor::text)?,
            generation: Generation(from.long()?),
            completed_at: EventTime(from.long()?),
            latency_us: from.option(Cursor::long)?,
            status: from.option(Cursor::int)?,
            error: from.option(Cursor::text)?,
            invalid_output: from.option(Cursor::text)?,
            unit: from.option(Cursor::long)?,
            outputs: from.map()?,
            classes: from.map()?,
            segments: from.map()?,
            writer: writer(&mut from)?,
            outcome: from.option(|from| symbol(&Outcome::ALL, from))?,
            unread: from.option(Cursor::text)?,
            batch: from.option(batch)?,
        };
        if from.is_at_end() { Ok(view) } else { Err(Malformed) }
    }

    /// Converts the view to a record.
    pub fn to_record(&self) -> Prediction {
        Prediction {
            request_id: self.request_id.into(),
            model: self.model.into(),
            version: self.version.into(),
            arm: self.arm,
            assignment: self.assignment,
            origin: self.origin,
            rollout: self.rollout.map(Into::into),
            generation: self.generation,
            completed_at: self.completed_at,
            latency_us: self.latency_us,
            status: self.status,
            error: self.error.map(Into::into),
            invalid_output: self.invalid_output.map(Into::into),
            unit: self.unit,
            outputs: self.outputs.entries().map(|(name, value)| (name.to_owned(), value)).collect(),
            classes: self.classes.entries().map(|(name, class)| (name.to_owned(), class.to_owned())).collect(),
            segments: self.segments.entries().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            writer: self.writer.to_record(),
            outcome: self.outcome,
            unread: self.unread.map(Into::into),
            batch: self.batch.as_ref().map(BatchView::to_record),
        }
    }
}

/// A [`Batch`] that is read in place, with the same fields.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the record has them")]
pub struct BatchView<'a> {
    pub rows: i32,
    pub row: i32,
    pub means: MapView<'a, f64>,
}

impl BatchView<'_> {
    /// Converts the view to a record.
    pub fn to_record(&self) -> Batch {
        let means = self.means.entries().map(|(name, mean)| (name.to_owned(), mean)).collect();
        Batch { rows: self.rows, row: self.row, means }
    }
}

fn batch<'a>(from: &mut Cursor<'a>) -> Read<BatchView<'a>> {
    Ok(BatchView { rows: from.int()?, row: from.int()?, means: from.map()? })
}

/// A [`Credential`] that is read in place. Only the list of its patterns is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialView<'a> {
    /// See [`Credential::writer`].
    pub writer: &'a str,
    /// See [`Credential::models`].
    pub models: Vec<&'a str>,
}

impl CredentialView<'_> {
    /// Converts the view to a record.
    pub fn to_record(&self) -> Credential {
        Credential {
            writer: self.writer.to_owned(),
            models: self.models.iter().map(|&pattern| pattern.to_owned()).collect(),
        }
    }
}

/// A [`Feedback`] that is read in place, with the same fields.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the record has them")]
pub struct FeedbackView<'a> {
    pub request_id: &'a str,
    pub observed_at: EventTime,
    pub revision: i64,
    pub values: MapView<'a, f64>,
    pub classes: MapView<'a, &'a str>,
    pub writer: WriterView<'a>,
    pub credential: Option<CredentialView<'a>>,
}

impl<'a> FeedbackView<'a> {
    /// Reads a body of the current version. Returns `None` if the body is invalid.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        Self::parse(body).ok()
    }

    fn parse(body: &'a [u8]) -> Read<Self> {
        let mut from = Cursor::new(body)?;
        let view = Self {
            request_id: from.text()?,
            observed_at: EventTime(from.long()?),
            revision: from.long()?,
            values: from.map()?,
            classes: from.map()?,
            writer: writer(&mut from)?,
            credential: from.option(credential)?,
        };
        if from.is_at_end() { Ok(view) } else { Err(Malformed) }
    }

    /// Converts the view to a record.
    pub fn to_record(&self) -> Feedback {
        Feedback {
            request_id: self.request_id.into(),
            observed_at: self.observed_at,
            revision: self.revision,
            values: self.values.entries().map(|(name, value)| (name.to_owned(), value)).collect(),
            classes: self.classes.entries().map(|(name, class)| (name.to_owned(), class.to_owned())).collect(),
            writer: self.writer.to_record(),
            credential: self.credential.as_ref().map(CredentialView::to_record),
        }
    }
}

fn credential<'a>(from: &mut Cursor<'a>) -> Read<CredentialView<'a>> {
    Ok(CredentialView { writer: from.text()?, models: from.texts()? })
}

fn writer<'a>(from: &mut Cursor<'a>) -> Read<WriterView<'a>> {
    Ok(WriterView { name: from.text()?, incarnation: from.long()?, seq: from.long()? })
}

fn symbol<T: Copy>(symbols: &[T], from: &mut Cursor<'_>) -> Read<T> {
    symbols.get(from.index()?).copied().ok_or(Malformed)
}

/// Symbols in the order of the schema.
const ARMS: [Arm; 4] = [Arm::Stable, Arm::Control, Arm::Canary, Arm::Shadow];
const ASSIGNMENTS: [Assignment; 9] = [
    Assignment::Random,
    Assignment::Sticky,
    Assignment::Pinned,
    Assignment::Targeted,
    Assignment::Fallback,
    Assignment::LeaseExpired,
    Assignment::SwitchedOff,
    Assignment::External,
    Assignment::Unreadable,
];
const ORIGINS: [Origin; 2] = [Origin::Router, Origin::Intake];

// The views must be extended for a new version of these records.
const _: () = assert!(Prediction::VERSION == 3 && Feedback::VERSION == 2);
