//! Server-sent events (the WHATWG HTML standard, section 9.2.6), as far as they carry data: a parser that takes the stream in
//! whatever pieces it comes. Pure, and bounded.

/// Longest event that is read; the data of a longer one is left out.
const LONGEST: usize = 256 << 10;

/// The parser.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// Data and name of the event that is not complete yet.
    data: Option<Vec<u8>>,
    name: Option<String>,
    /// The last line ended with a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    too_long: bool,
}

impl Events {
    /// Takes a piece and tells each event that it completes: its name, if it has one, and its data.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut tell: impl FnMut(Option<&str>, &[u8])) {
        while let Some(&first) = piece.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.keep(piece);
                return;
            };
            self.keep(&piece[..end]);
            self.after_return = piece[end] == b'\r';
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.complete(&line, &mut tell);
            self.line = line;
            self.line.clear();
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.line.len() + self.data.as_ref().map_or(0, Vec::len) + part.len() > LONGEST {
            self.too_long = true;
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn complete(&mut self, line: &[u8], tell: &mut impl FnMut(Option<&str>, &[u8])) {
        if line.is_empty() && !self.too_long {
            if let Some(data) = self.data.take() {
                tell(self.name.as_deref(), &data);
            }
            self.name = None;
            return;
        }
        let value = |rest: &'_ [u8]| rest.strip_prefix(b" ").unwrap_or(rest).to_vec();
        if let Some(rest) = line.strip_prefix(b"data:") {
            match &mut self.data {
                None => self.data = Some(value(rest)),
                Some(data) => {
                    data.push(b'\n');
                    data.extend(value(rest));
                }
            }
        } else if let Some(rest) = line.strip_prefix(b"event:") {
            self.name = String::from_utf8(value(rest)).ok();
        }
        if std::mem::take(&mut self.too_long) {
            self.data = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut events = Events::default();
        let mut told = Vec::new();
        for piece in pieces {
            events.feed(piece, |name, data| {
                told.push((name.map(str::to_owned), String::from_utf8_lossy(data).into_owned()));
            });
        }
        told
    }

    #[test]
    fn events_with_all_line_ends() {
        let text = b": hello\ndata: a\ndata:b\r\n\r\nevent: error\rdata: {\"x\":1}\r\rid: 7\n\ndata\n\ndata: cut";
        let expected = vec![(None, "a\nb".to_owned()), (Some("error".to_owned()), "{\"x\":1}".to_owned())];
        assert_eq!(read(&[text]), expected);
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out() {
        let long = vec![b'x'; LONGEST];
        assert_eq!(read(&[b"data: ", &long, b"\n\ndata: next\n\n"]), [(None, "next".to_owned())]);
    }

    proptest! {
        /// However the stream is cut, the events are the same.
        #[test]
        fn cuts_do_not_matter(text in "(data: [a-zé]{0,5}|event: e|:c|\n|\r|\r\n){0,30}", cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }
    }
}
