//! Tracks to which request of an HTTP/1 connection the received bytes belong. hyper parses the requests, but does not report whether the
//! bytes that it has received so far end with a complete request. Pure.
//!
//! The bytes of later requests, which a caller may send ahead of its answers, are kept until the request before them has its answer.

/// Maximum number of bytes that are kept. If a caller sends more ahead, the connection is no longer tracked.
const MOST_KEPT: usize = 64 << 10;

/// Progress of receiving the current request.
#[derive(Debug, Default)]
pub struct Receipt {
    head: Head,
    /// Its body, once the length is known.
    body: Option<Length>,
    /// Whether the request has been answered.
    answered: bool,
    /// Bytes after the head while the length of the body is unknown; then those after the body.
    kept: Vec<u8>,
    /// Number of bytes that followed `kept` and were too many to keep.
    dropped: u64,
    /// Whether bytes of a later request are missing.
    lost: bool,
}

impl Receipt {
    /// Records received bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        let mut rest = bytes;
        if !self.head.ended {
            rest = &rest[self.head.take(rest)..];
        }
        if let Some(body) = &mut self.body {
            rest = &rest[body.take(rest)..];
            if self.answered && body.is_complete() {
                *self = Self::default();
                return self.take(rest);
            }
        }
        let fits = rest.len().min(MOST_KEPT.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(&rest[..fits]);
        self.dropped += (rest.len() - fits) as u64;
    }

    /// Starts the request that hyper has parsed, with the length of its body; `None` if it is chunked. Returns whether a line of its head
    /// ends with a bare line feed.
    pub fn begin(&mut self, length: Option<u64>) -> bool {
        if self.lost || !self.head.ended {
            self.lost = true;
            return false;
        }
        let kept = std::mem::take(&mut self.kept);
        let mut body = length.map_or(Length::Chunked(Chunks::default()), Length::Left);
        let ours = body.take(&kept);
        if self.dropped > 0 {
            match &mut body {
                // All that was dropped belongs to this body.
                Length::Left(left) if *left >= self.dropped => *left -= self.dropped,
                _ => self.lost = true,
            }
            self.dropped = 0;
        }
        self.body = Some(body);
        self.kept = kept[ours..].to_vec();
        self.head.bare
    }

    /// Whether all received bytes belong to the current request and those before it, and it is complete.
    pub fn is_complete(&self) -> bool {
        let body_ended = self.body.as_ref().is_some_and(Length::is_complete);
        body_ended && self.kept.is_empty() && self.dropped == 0 && !self.lost
    }

    /// Ends the request. Returns whether bytes were received that may belong to the next one.
    pub fn finish(&mut self) -> bool {
        self.answered = true;
        if self.lost || self.dropped > 0 {
            *self = Self { lost: true, ..Self::default() };
            return true;
        }
        let is_ahead = !self.is_complete();
        if self.body.as_ref().is_some_and(Length::is_complete) {
            let kept = std::mem::take(&mut self.kept);
            *self = Self::default();
            self.take(&kept);
        }
        is_ahead
    }
}

/// Searches for the blank line after a head.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a head")]
struct Head {
    /// Whether a line of the head has arrived. Empty lines before it are ignored.
    has_line: bool,
    /// Whether the current line contains any text.
    text: bool,
    /// Whether the blank line after the head has arrived.
    ended: bool,
    /// The last byte received of the head.
    last: u8,
    /// Whether one of its lines ends with a bare line feed.
    bare: bool,
}

impl Head {
    /// Returns the number of bytes that belong to the head.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let has_text = |line: &[u8]| line.iter().any(|&byte| byte != b'\r');
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let text = std::mem::take(&mut self.text) || has_text(&bytes[from..end]);
            let before = end.checked_sub(1).map_or(self.last, |before| bytes[before]);
            self.bare |= before != b'\r';
            from = end + 1;
            if !text && self.has_line {
                self.ended = true;
                return from;
            }
            self.has_line |= text;
        }
        self.text |= has_text(&bytes[from..]);
        self.last = bytes.last().copied().unwrap_or(self.last);
        bytes.len()
    }
}

/// What is left of a body.
#[derive(Debug)]
enum Length {
    /// This many bytes.
    Left(u64),
    /// Chunks.
    Chunked(Chunks),
}

impl Length {
    /// Returns the number of bytes that belong to the body.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Left(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self, Self::Left(0) | Self::Chunked(Chunks::Ended))
    }
}

/// Position in a chunked body (RFC 9112, section 7.1). hyper reports malformed chunks; here they only never end.
#[derive(Debug)]
enum Chunks {
    /// In the line with the size of a chunk; `digits` is false after the digits.
    Size {
        size: u64,
        digits: bool,
    },
    /// In the data of a chunk, including the line break after it.
    Data {
        left: u64,
    },
    /// In the lines after the last chunk.
    Trailer {
        text: bool,
    },
    Ended,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { size: 0, digits: true }
    }
}

impl Chunks {
    /// Returns the number of bytes that belong to the body.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            *self = match *self {
                Self::Ended => return at,
                Self::Data { left } => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    if left > taken { Self::Data { left: left - taken } } else { Self::default() }
                }
                Self::Size { size, digits } => {
                    at += 1;
                    match (byte, char::from(byte).to_digit(16)) {
                        (b'\n', _) if size == 0 => Self::Trailer { text: false },
                        (b'\n', _) => Self::Data { left: size.saturating_add(2) },
                        (_, Some(digit)) if digits => {
                            Self::Size { size: size.saturating_mul(16).saturating_add(u64::from(digit)), digits }
                        }
                        _ => Self::Size { size, digits: false },
                    }
                }
                Self::Trailer { text } => {
                    at += 1;
                    match byte {
                        b'\n' if !text => Self::Ended,
                        b'\n' => Self::Trailer { text: false },
                        b'\r' => Self::Trailer { text },
                        _ => Self::Trailer { text: true },
                    }
                }
            };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x=a\r\n{}\r\n0A \r\n0123456789\r\n0\r\ntrailer: 1\r\n\r\n";

    #[test]
    fn a_chunked_body_ends_with_its_trailer_however_it_arrives() {
        for piece in 1..CHUNKED.len() {
            let mut receipt = Receipt::default();
            let head = CHUNKED.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            receipt.take(&CHUNKED[..head]);
            assert!(!receipt.begin(None));
            for bytes in CHUNKED[head..].chunks(piece) {
                assert!(!receipt.is_complete(), "{piece}");
                receipt.take(bytes);
            }
            assert!(receipt.is_complete(), "{piece}");
            receipt.take(b"G");
            assert!(!receipt.is_complete() && receipt.finish(), "{piece}");
        }
    }

    #[test]
    fn bytes_of_later_requests_are_kept() {
        let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let bare = b"GET / HTTP/1.1\nhost: a\r\n\r\n";
        let mut receipt = Receipt::default();
        receipt.take(&[CHUNKED, get, bare].concat());
        assert!(!receipt.begin(None) && receipt.finish());
        assert!(!receipt.begin(Some(0)) && !receipt.is_complete() && receipt.finish());
        assert!(receipt.begin(Some(0)) && receipt.is_complete(), "a bare line feed in a later head is seen");
        assert!(!receipt.finish());
    }

    #[test]
    fn a_body_that_arrives_after_its_answer_is_not_a_head() {
        let mut receipt = Receipt::default();
        receipt.take(b"POST / HTTP/1.1\r\n\r\nab");
        receipt.begin(Some(6));
        assert!(receipt.finish(), "four bytes are missing");
        receipt.take(b"c\n\nfGET / HTTP/1.1\r\n\r\n");
        assert!(!receipt.begin(Some(0)) && receipt.is_complete());
    }

    #[test]
    fn a_large_body_is_counted_and_too_much_ahead_ends_the_tracking() {
        let large = vec![b'x'; MOST_KEPT * 3];
        let mut receipt = Receipt::default();
        receipt.take(&[b"POST / HTTP/1.1\r\n\r\n", large.as_slice()].concat());
        receipt.begin(Some(large.len() as u64));
        assert!(receipt.is_complete() && !receipt.finish());
        receipt.take(b"POST / HTTP/1.1\r\n\r\n");
        receipt.begin(Some(0));
        receipt.take(&large);
        assert!(!receipt.is_complete() && receipt.finish());
        receipt.take(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!receipt.begin(Some(0)) && !receipt.is_complete());
    }
}
