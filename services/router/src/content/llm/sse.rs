//! A parser for server-sent events (the WHATWG HTML standard, section 9.2.6) that carry data. It takes the stream in arbitrary chunks.
//! Pure, and bounded in memory.

use crate::protocol::json;

/// Maximum size of an event. Longer events are truncated.
const LONGEST: usize = 256 << 10;
/// Minimum number of bytes kept of a line: enough for a field's name and the name of an event.
const LINE: usize = 256;

/// Whether a body without a fitting content type starts like a stream of events.
pub(super) fn is_stream(body: &[u8]) -> bool {
    let text = json::without_mark(body).trim_ascii_start();
    [&b"data:"[..], b"event:", b"id:", b"retry:", b":"].iter().any(|field| text.starts_with(field))
}

/// The data of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    Whole(&'a [u8]),
    /// The event is too long; this is the start of its data.
    Beginning(&'a [u8]),
}

/// A parser of server-sent events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The incomplete line, possibly truncated.
    line: Vec<u8>,
    /// Data of the incomplete event. Its name follows.
    data: Option<Vec<u8>>,
    name: Option<String>,
    /// The last line ended with a carriage return, so a line feed directly after it belongs to it.
    after_return: bool,
    /// Whether the event was truncated.
    cut: bool,
    /// Whether the first line is complete. A byte order mark may precede it.
    started: bool,
}

impl Events {
    /// Takes a chunk and emits each completed event: its name, if it has one, and its data.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut emit: impl FnMut(Option<&str>, Data<'_>)) {
        while let Some(&first) = piece.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', piece) else {
                self.keep(piece);
                return;
            };
            self.keep(&piece[..end]);
            self.after_return = piece[end] == b'\r';
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.complete(&line, &mut emit);
            self.line = line;
            self.line.clear();
        }
    }

    /// Emits the event after which the stream ended without a blank line, if there is one.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(Option<&str>, Data<'_>)) {
        self.feed(b"\n\n", &mut emit);
    }

    fn keep(&mut self, part: &[u8]) {
        let taken = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        let room = LONGEST.saturating_sub(taken).max(LINE.saturating_sub(self.line.len()));
        self.cut |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn complete(&mut self, line: &[u8], emit: &mut impl FnMut(Option<&str>, Data<'_>)) {
        let line = if std::mem::replace(&mut self.started, true) { line } else { json::without_mark(line) };
        if line.is_empty() {
            let cut = std::mem::take(&mut self.cut);
            if let Some(data) = self.data.take() {
                emit(self.name.as_deref(), if cut { Data::Beginning(&data) } else { Data::Whole(&data) });
            }
            self.name = None;
            return;
        }
        let value = |rest: &'_ [u8]| rest.strip_prefix(b" ").unwrap_or(rest).to_vec();
        if let Some(rest) = line.strip_prefix(b"data:") {
            match &mut self.data {
                None => self.data = Some(value(rest)),
                Some(data) if data.len() + rest.len() < LONGEST => {
                    data.push(b'\n');
                    data.extend(value(rest));
                }
                Some(_) => self.cut = true,
            }
        } else if let Some(rest) = line.strip_prefix(b"event:") {
            self.name = String::from_utf8(value(rest)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for piece in pieces {
            events.feed(piece, |name, data| {
                let (Data::Whole(data) | Data::Beginning(data)) = data;
                found.push((name.map(str::to_owned), String::from_utf8_lossy(data).into_owned()));
            });
        }
        found
    }

    #[test]
    fn events_with_all_line_ends() {
        let text = b": hello\ndata: a\ndata:b\r\n\r\nevent: error\rdata: {\"x\":1}\r\rid: 7\n\ndata\n\ndata: cut";
        let expected = vec![(None, "a\nb".to_owned()), (Some("error".to_owned()), "{\"x\":1}".to_owned())];
        assert_eq!(read(&[text]), expected);
    }

    #[test]
    fn a_byte_order_mark_before_the_first_line_is_skipped() {
        let expected = vec![(None, "a".to_owned()), (None, "\u{feff}b".to_owned())];
        let stream = "\u{feff}data: a\n\ndata: \u{feff}b\n\n".as_bytes();
        assert_eq!(read(&[stream]), expected);
        assert_eq!(read(&[&stream[..1], &stream[1..4], &stream[4..]]), expected);
    }

    #[test]
    fn a_body_may_start_like_a_stream() {
        for body in ["data: x", "event:x\n", ": hello\n\n", "\u{feff}\n data:x", "id: 7\n", "retry: 1\n"] {
            assert!(is_stream(body.as_bytes()), "{body:?}");
        }
        for body in ["", "{\"data\":1}", "database", "[1]", "<html>", "\"data: x\""] {
            assert!(!is_stream(body.as_bytes()), "{body:?}");
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_emitted_with_its_name_and_the_start_of_its_data() {
        let long = [b"x".repeat(LONGEST), b"\ndata: more".repeat(50_000)].concat();
        for size in [1000, usize::MAX] {
            for body in [
                [b"event: last\ndata: {\"type\"", &long[..], b"\n\ndata: next\n\n"].concat(),
                [b"data: {\"type\"", &long[..], b"\nevent: last\n\ndata: next\n\n"].concat(),
            ] {
                let (mut events, mut found) = (Events::default(), Vec::new());
                for piece in body.chunks(size.min(body.len())) {
                    events.feed(piece, |name, data| {
                        found.push((
                            name.map(str::to_owned),
                            data == Data::Whole(b"next"),
                            match data {
                                Data::Beginning(data) => data.starts_with(b"{\"type\"x") && data.len() <= LONGEST,
                                Data::Whole(_) => false,
                            },
                        ));
                    });
                    assert!(events.line.len() + events.data.as_ref().map_or(0, Vec::len) <= LONGEST + LINE);
                }
                assert_eq!(found, [(Some("last".to_owned()), false, true), (None, true, false)]);
            }
        }
    }

    proptest! {
        /// The events do not depend on how the stream is split into chunks.
        #[test]
        fn the_events_do_not_depend_on_the_chunks(text in "(data: [a-zé]{0,5}|event: e|:c|\n|\r|\r\n){0,30}", cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }
    }
}
