//! The hash chain over the audit events of a rollout.
//!
//! The first link is the SHA-256 of [`FORMAT`], a line feed and the id of the rollout. Each further link is the SHA-256 of the link before
//! and the SHA-256 of the event's record, 32 bytes each. The bytes of the record are those on the log, so that the chain does not depend on
//! the release of Serin that computes it.
//!
//! A head that was kept elsewhere proves that the events on the log are the same as then. It proves nothing else: a writer of the topic can
//! build another chain, see `docs/report.md`.

use std::fmt::Write as _;

use serin_schemas::ids::RolloutId;
use sha2::{Digest as _, Sha256};

/// Name and version of the chain.
pub const FORMAT: &str = "serin.chain/v1";

/// A chain to which events are added.
#[derive(Clone, Debug)]
pub struct Chain {
    link: [u8; 32],
    events: usize,
}

impl Chain {
    /// The chain of a rollout without events.
    pub fn of(rollout: &RolloutId) -> Self {
        let start = Sha256::digest(format!("{FORMAT}\n{rollout}"));
        Self { link: start.into(), events: 0 }
    }

    /// Adds the record of an event by its SHA-256.
    pub fn add(&mut self, record: [u8; 32]) {
        let mut hash = Sha256::new();
        hash.update(self.link);
        hash.update(record);
        self.link = hash.finalize().into();
        self.events += 1;
    }

    /// The newest link, in hexadecimal digits.
    pub fn head(&self) -> String {
        hex(&self.link)
    }

    /// Number of events.
    pub fn events(&self) -> usize {
        self.events
    }
}

/// The SHA-256 of a record.
pub fn digest(record: &[u8]) -> [u8; 32] {
    Sha256::digest(record).into()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 that hexadecimal digits name.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "ff019793fba403d2e896d2f2be25c2f6317bcaacc98c0038870287728aac60f8";
    const HEAD: &str = "be6bc71f34489ee83a78f1bb92dfec401c96460d1b6ab785151321c63e3f365b";

    /// `printf 'serin.chain/v1\nr1' | sha256sum`, and so on: a chain that was kept must still be found.
    #[test]
    fn the_chain_is_what_the_documentation_says() {
        let mut chain = Chain::of(&"r1".into());
        assert_eq!(chain.head(), START);
        chain.add(digest(b"one"));
        chain.add(digest(b"two"));
        assert_eq!((chain.head().as_str(), chain.events()), (HEAD, 2));
    }

    #[test]
    fn the_order_and_each_byte_count() {
        let head = |records: &[&[u8]]| {
            let mut chain = Chain::of(&"r1".into());
            for record in records {
                chain.add(digest(record));
            }
            chain.head()
        };
        let same = head(&[b"one", b"two"]);
        for other in [&[&b"two"[..], b"one"][..], &[b"one"], &[b"one", b"two", b""], &[b"onetwo"], &[b"one", b"twp"]] {
            assert_ne!(head(other), same);
        }
    }

    #[test]
    fn digits_are_read_back() {
        let bytes = digest(b"x");
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
