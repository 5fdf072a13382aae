//! Checks of the decoders for arbitrary bytes, shared by the fuzz targets (`fuzz/`) and the test of mutated golden bytes.
//!
//! A decoder returns a value or an error, and never panics. Accepted values can be encoded, used and merged. Bytes of sketches are
//! canonical: each value has one encoding.

use serin_schemas::{
    codec::{self, Record},
    records::{RecordVisitor, visit_all},
};
use serin_sketches::{Digest, MAX_COUNT, Summary};

/// Runs all decoders of sketches. At most one may accept the bytes.
pub(crate) fn sketches(bytes: &[u8]) -> bool {
    let summary = Summary::decode(bytes).map(|summary| check_summary(bytes, &summary)).is_ok();
    let digest = Digest::decode(bytes).map(|digest| check_digest(bytes, &digest)).is_ok();
    assert!(!(summary && digest), "bytes of two types");
    summary || digest
}

fn check_summary(bytes: &[u8], summary: &Summary) {
    assert_eq!(summary.encode(), bytes, "not canonical");
    assert!(summary.n() <= MAX_COUNT);
    let mut twice = summary.clone();
    match twice.merge(summary) {
        Ok(()) => assert_eq!(Summary::decode(&twice.encode()).as_ref(), Ok(&twice)),
        Err(_) => assert_eq!(&twice, summary, "a failed merge changes nothing"),
    }
}

fn check_digest(bytes: &[u8], digest: &Digest) {
    assert_eq!(digest.encode(), bytes, "not canonical");
    let mut twice = digest.clone();
    if twice.merge(digest).is_ok() {
        assert!(Digest::decode(&twice.encode()).is_ok());
    }
    for level in [0.0, 0.3, 0.999, 1.0] {
        assert_eq!(twice.quantile(level).is_some(), digest.total() > 0);
    }
}

/// Decodes the bytes as every version of every record, and returns how many decoders accept them.
pub(crate) fn records(bytes: &[u8]) -> usize {
    let mut decoders = Decoders { bytes, accepted: 0 };
    visit_all(&mut decoders);
    decoders.accepted
}

struct Decoders<'a> {
    bytes: &'a [u8],
    accepted: usize,
}

impl RecordVisitor for Decoders<'_> {
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self) {
        let slow = codec::decode_written_by::<R>(R::VERSION, R::schema(), self.bytes);
        for &(version, _) in R::codec().versions() {
            let Ok(record) = codec::decode::<R>(version, self.bytes) else { continue };
            let again = codec::encode(&record).expect("a decoded record can be encoded");
            // Bytes are compared, because a record may contain NaN. The input is not compared, because Avro may split arrays into
            // blocks anywhere.
            let reread = codec::decode::<R>(R::VERSION, &again).expect("an encoded record can be decoded");
            assert_eq!(codec::encode(&reread).as_ref(), Ok(&again), "{} changes when it is written and read", R::NAME);
            if let Ok(slow) = slow.as_ref()
                && version == R::VERSION
            {
                assert_eq!(codec::encode(slow).as_ref(), Ok(&again), "the two readers of {} differ", R::NAME);
            }
            self.accepted += 1;
        }
    }
}
