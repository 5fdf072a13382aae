//! A summary of any kind, and its encoding: version, type, body.

use crate::kind::{FORMAT_VERSION, SummaryKind};
use crate::varint::Reader;
use crate::{
    Buckets, ByUnit, CappedHist, ClassCounts, DecodeError, Events, LinHist, LogHist, MergeError, Moments, Pairs, Rate,
};

/// What one arm did, for one metric, segment and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// Events among trials.
    Rate(Rate),
    /// Non-negative values: quantiles, exceedances.
    Log(LogHist),
    /// Values in [0, 1]: means.
    Lin(LinHist),
    /// Non-negative values winsorized at a cap: means.
    Capped(CappedHist),
    /// Counts per class.
    Classes(ClassCounts),
    /// Number, sum, sum of squares.
    Moments(Moments),
    /// Sums per hash bucket of the unit.
    Buckets(Buckets),
    /// Events per exposure.
    Events(Events),
    /// Both versions' answers to the same requests.
    Pairs(Pairs),
    /// A summary per group of units.
    ByUnit(ByUnit),
}

impl Summary {
    /// The kind of this summary.
    pub fn kind(&self) -> SummaryKind {
        match self {
            Self::Rate(_) => SummaryKind::Rate,
            Self::Log(_) => SummaryKind::Log,
            Self::Lin(_) => SummaryKind::Lin,
            Self::Capped(_) => SummaryKind::Capped,
            Self::Classes(_) => SummaryKind::Classes,
            Self::Moments(_) => SummaryKind::Moments,
            Self::Buckets(_) => SummaryKind::Buckets,
            Self::Events(_) => SummaryKind::Events,
            Self::Pairs(_) => SummaryKind::Pairs,
            Self::ByUnit(_) => SummaryKind::ByUnit,
        }
    }

    /// Number of observations; the exposure of [`Events`].
    pub fn n(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.n(),
            Self::Log(hist) => hist.total(),
            Self::Lin(hist) => hist.total(),
            Self::Capped(hist) => hist.total(),
            Self::Classes(counts) => counts.total(),
            Self::Moments(moments) => moments.n(),
            Self::Buckets(buckets) => buckets.n(),
            Self::Events(events) => events.exposure(),
            Self::Pairs(pairs) => pairs.n(),
            Self::ByUnit(by_unit) => by_unit.n(),
        }
    }

    /// Estimated bytes of heap memory.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Rate(_) | Self::Moments(_) | Self::Events(_) => 0,
            Self::Log(hist) => hist.heap_bytes(),
            Self::Lin(hist) => hist.heap_bytes(),
            Self::Capped(hist) => hist.heap_bytes(),
            Self::Classes(counts) => counts.heap_bytes(),
            Self::Buckets(buckets) => buckets.heap_bytes(),
            Self::Pairs(pairs) => pairs.heap_bytes(),
            Self::ByUnit(by_unit) => by_unit.heap_bytes(),
        }
    }

    /// Adds the observations of `other`. On an error `self` is unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        let expected = self.kind();
        match (self, other) {
            (Self::Rate(one), Self::Rate(two)) => one.merge(two),
            (Self::Log(one), Self::Log(two)) => one.merge(two),
            (Self::Lin(one), Self::Lin(two)) => one.merge(two),
            (Self::Capped(one), Self::Capped(two)) => one.merge(two),
            (Self::Classes(one), Self::Classes(two)) => one.merge(two),
            (Self::Moments(one), Self::Moments(two)) => one.merge(two),
            (Self::Buckets(one), Self::Buckets(two)) => one.merge(two),
            (Self::Events(one), Self::Events(two)) => one.merge(two),
            (Self::Pairs(one), Self::Pairs(two)) => one.merge(two),
            (Self::ByUnit(one), Self::ByUnit(two)) => one.merge(two),
            (_, other) => Err(MergeError::Kind { expected, found: other.kind() }),
        }
    }

    /// Encodes the summary: version, type, body. Equal summaries have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT_VERSION, self.kind() as u8];
        match self {
            Self::Rate(rate) => rate.encode_body(&mut out),
            Self::Log(hist) => hist.encode_body(&mut out),
            Self::Lin(hist) => hist.encode_body(&mut out),
            Self::Capped(hist) => hist.encode_body(&mut out),
            Self::Classes(counts) => counts.encode_body(&mut out),
            Self::Moments(moments) => moments.encode_body(&mut out),
            Self::Buckets(buckets) => buckets.encode_body(&mut out),
            Self::Events(events) => events.encode_body(&mut out),
            Self::Pairs(pairs) => pairs.encode_body(&mut out),
            Self::ByUnit(by_unit) => by_unit.encode_body(&mut out),
        }
        out
    }

    /// Decodes a summary. Accepts only the canonical form that [`Self::encode`] writes, without trailing bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let summary = match reader.version_and_type()? {
            1 => Self::Rate(Rate::decode_body(&mut reader)?),
            2 => Self::Log(LogHist::decode_body(&mut reader)?),
            3 => Self::Lin(LinHist::decode_body(&mut reader)?),
            4 => Self::Capped(CappedHist::decode_body(&mut reader)?),
            5 => Self::Classes(ClassCounts::decode_body(&mut reader)?),
            6 => Self::Moments(Moments::decode_body(&mut reader)?),
            7 => Self::Buckets(Buckets::decode_body(&mut reader)?),
            8 => Self::Events(Events::decode_body(&mut reader)?),
            9 => Self::Pairs(Pairs::decode_body(&mut reader)?),
            10 => Self::ByUnit(ByUnit::decode_body(&mut reader)?),
            other => return Err(DecodeError::Type(other)),
        };
        reader.finish()?;
        Ok(summary)
    }
}

/// Within persisted state a summary is serialized as its bytes, so that it is validated like any other input.
macro_rules! serde_as_bytes {
    ($($type:ident: $variant:ident, $error:literal;)*) => {$(
        impl From<$type> for Vec<u8> {
            fn from(summary: $type) -> Self {
                Summary::$variant(summary).encode()
            }
        }

        impl TryFrom<Vec<u8>> for $type {
            type Error = DecodeError;

            fn try_from(bytes: Vec<u8>) -> Result<Self, DecodeError> {
                match Summary::decode(&bytes)? {
                    Summary::$variant(summary) => Ok(summary),
                    _ => Err(DecodeError::Malformed($error)),
                }
            }
        }
    )*};
}

serde_as_bytes! {
    LogHist: Log, "not a log histogram";
    LinHist: Lin, "not a linear histogram";
    CappedHist: Capped, "not a capped histogram";
    ClassCounts: Classes, "not class counts";
    Moments: Moments, "not moments";
    Buckets: Buckets, "not bucket sums";
    Events: Events, "not events";
    Pairs: Pairs, "not pairs";
    ByUnit: ByUnit, "not a per-unit summary";
}
