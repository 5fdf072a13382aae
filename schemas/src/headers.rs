//! Headers of a record, packed into one block of bytes.
//!
//! An event has seven headers, and most events are only counted. A `String` and a buffer for each header would cost more than all
//! other work on the event. With packed headers, a record with key, value and headers is one allocation, and the embedded log stores
//! the block unchanged.
//!
//! Each header is the length of its name (`u16`), its name, the length of its value (`u32`) and its value. All integers are big endian.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Header names and values, in the order of the log. A header without a value has an empty one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    count: u16,
    packed: Bytes,
}

impl Headers {
    /// Number of headers.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Total size of all names and values, in bytes.
    pub fn size(&self) -> usize {
        self.packed.len() - self.len() * LENGTHS
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Names are UTF-8: `push` takes a `str`, and `unpack` checks them.
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The value of the first header with this name. Case does not matter.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.raw().find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Names as unchecked bytes, and values.
    pub(crate) fn raw(&self) -> Raw<'_> {
        Raw(&self.packed)
    }

    /// The packed block, as [`unpack`](Self::unpack) expects it.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }

    /// Reads a block of `count` headers. Returns `None` if the block is anything else.
    pub fn unpack(count: u16, packed: Bytes) -> Option<Self> {
        let mut raw = Raw(&packed);
        let valid = raw.by_ref().take(usize::from(count)).filter(|(name, _)| std::str::from_utf8(name).is_ok()).count();
        let is_complete = valid == usize::from(count) && raw.0.is_empty();
        is_complete.then_some(Self { count, packed })
    }
}

/// Formats a list of names and values. Bytes of a value that are not text are escaped.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string()))).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut bytes = BytesMut::new();
        let mut packing = Packing::behind(&mut bytes);
        for (name, value) in headers {
            packing.push(name.as_ref(), value.as_ref());
        }
        packing.finish().1
    }
}

/// Size of the two lengths of a header, in bytes.
const LENGTHS: usize = 2 + 4;

pub(crate) struct Raw<'a>(&'a [u8]);

impl<'a> Iterator for Raw<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// Packs headers behind other bytes in the same allocation.
#[derive(Debug)]
pub struct Packing<'a> {
    count: u16,
    start: usize,
    bytes: &'a mut BytesMut,
}

impl<'a> Packing<'a> {
    /// Starts to pack headers behind `before`. The buffer grows if necessary.
    pub fn behind(before: &'a mut BytesMut) -> Self {
        Self { count: 0, start: before.len(), bytes: before }
    }

    /// Adds a header. Names are cut at 65 535 bytes. A record has at most 65 535 headers; further ones are left out.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let name = &name[..name.floor_char_boundary(usize::from(u16::MAX))];
        let (Some(count), Ok(length)) = (self.count.checked_add(1), u32::try_from(value.len())) else { return };
        self.count = count;
        self.bytes.reserve(LENGTHS + name.len() + value.len());
        self.bytes.put_u16(name.len() as u16);
        self.bytes.put_slice(name.as_bytes());
        self.bytes.put_u32(length);
        self.bytes.put_slice(value);
    }

    /// Returns the bytes before the headers, and the headers. Unused capacity stays in the buffer.
    pub fn finish(self) -> (Bytes, Headers) {
        let mut packed = self.bytes.split().freeze();
        let before = packed.split_to(self.start);
        (before, Headers { count: self.count, packed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Headers {
        [("ce_type", &b"x"[..]), ("Empty", b""), ("ce_type", &[0xff])].into_iter().collect()
    }

    #[test]
    fn headers_can_be_read_back() {
        let headers = some();
        let back: Vec<_> = headers.iter().collect();
        assert_eq!(back, [("ce_type", &b"x"[..]), ("Empty", b""), ("ce_type", &[0xff])]);
        assert_eq!((headers.len(), headers.size(), headers.is_empty()), (3, 7 + 1 + 5 + 7 + 1, false));
        assert_eq!(
            (headers.get("CE_TYPE"), headers.get("empty"), headers.get("other")),
            (Some(&b"x"[..]), Some(&b""[..]), None)
        );
        assert_eq!(format!("{headers:?}"), r#"[("ce_type", "x"), ("Empty", ""), ("ce_type", "\\xff")]"#);
        assert!(Headers::default().is_empty() && Headers::default().iter().next().is_none());
    }

    #[test]
    fn the_block_format_is_pinned_and_checked() {
        let headers = some();
        let block = headers.packed().clone();
        assert_eq!(block, &b"\0\x07ce_type\0\0\0\x01x\0\x05Empty\0\0\0\0\0\x07ce_type\0\0\0\x01\xff"[..]);
        assert_eq!(Headers::unpack(3, block.clone()), Some(headers));
        assert_eq!(Headers::unpack(2, block.clone()), None);
        assert_eq!(Headers::unpack(4, block.clone()), None);
        for cut in 1..block.len() {
            assert_eq!(Headers::unpack(3, block.slice(..cut)), None, "cut at {cut}");
        }
        assert_eq!(Headers::unpack(1, Bytes::from_static(b"\0\x01\xff\0\0\0\0")), None);
        assert_eq!(Headers::unpack(0, Bytes::new()), Some(Headers::default()));
    }

    #[test]
    fn headers_are_packed_behind_other_bytes() {
        let mut chunk = BytesMut::with_capacity(100);
        chunk.put_slice(b"before");
        let mut packing = Packing::behind(&mut chunk);
        packing.push("a", b"1");
        let (before, headers) = packing.finish();
        assert_eq!((before, headers), (Bytes::from_static(b"before"), [("a", "1")].into_iter().collect()));
        assert_eq!((chunk.len(), chunk.capacity()), (0, 100 - 6 - 8));
    }

    #[test]
    fn the_length_of_names_and_the_number_of_headers_are_limited() {
        let long = format!("{}ü", "n".repeat(65_534));
        let headers: Headers = [(long.as_str(), "v")].into_iter().collect();
        assert_eq!(headers.iter().next(), Some((&long[..65_534], &b"v"[..])));
        let many: Headers = (0..70_000).map(|_| ("", "")).collect();
        assert_eq!((many.len(), many.iter().count()), (65_535, 65_535));
    }
}
