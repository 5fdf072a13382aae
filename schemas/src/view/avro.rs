//! Reads Avro's binary encoding in place. Source: Apache Avro 1.12 specification, "Binary Encoding".

use std::marker::PhantomData;

use crate::codec::MAX_RECORD_BYTES;

/// Maximum number of bytes of an encoded number.
const MAX_NUMBER_BYTES: u32 = 10;

/// The bytes are not a valid encoding of the expected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Result of reading a value.
pub(super) type Read<T> = Result<T, Malformed>;

/// Reads values from the front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Starts to read a body. Bodies that are too large are refused.
    pub(super) fn new(body: &'a [u8]) -> Read<Self> {
        if body.len() <= MAX_RECORD_BYTES { Ok(Self(body)) } else { Err(Malformed) }
    }

    pub(super) fn is_at_end(self) -> bool {
        self.0.is_empty()
    }

    /// Reads a zigzag number with seven bits per byte, lowest bits first. Bits beyond the 64th are dropped, as the library does.
    #[inline]
    pub(super) fn long(&mut self) -> Read<i64> {
        let mut bits = 0;
        for place in 0..MAX_NUMBER_BYTES {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            bits |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(Malformed)
    }

    #[inline]
    pub(super) fn int(&mut self) -> Read<i32> {
        self.long()?.try_into().map_err(|_| Malformed)
    }

    /// Reads the index of a symbol or of a branch of a union.
    #[inline]
    pub(super) fn index(&mut self) -> Read<usize> {
        self.int()?.try_into().map_err(|_| Malformed)
    }

    #[inline]
    fn bytes(&mut self, length: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Read<&'a str> {
        let length = self.long()?.try_into().map_err(|_| Malformed)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }

    /// Reads a union of null and another type.
    #[inline]
    pub(super) fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.index()? {
            0 => Ok(None),
            1 => some(self).map(Some),
            _ => Err(Malformed),
        }
    }

    /// Reads an array of strings. The list is not allocated by the encoded length, which can be wrong, but grows with each entry.
    pub(super) fn texts(&mut self) -> Read<Vec<&'a str>> {
        let mut texts = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                texts.push(self.text()?);
            }
        }
        Ok(texts)
    }

    /// Reads the head of a block of an array or a map, and returns the number of its entries; `None` at the end. A negative number is
    /// followed by the size of the block.
    #[inline]
    fn block(&mut self) -> Read<Option<u64>> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok((count != 0).then_some(count.unsigned_abs()))
    }

    /// Reads a map. Reading all its entries here once guarantees that those of the [`MapView`] can be read.
    pub(super) fn map<V: Datum<'a>>(&mut self) -> Read<MapView<'a, V>> {
        let start = self.0;
        let mut entries = Entries::<V>::over(self.0);
        while entries.next_entry()?.is_some() {}
        self.0 = entries.rest.0;
        Ok(MapView { bytes: &start[..start.len() - self.0.len()], values: PhantomData })
    }
}

/// A type of the values of a map.
pub trait Datum<'a>: Sized {
    /// Reads a value.
    fn read(from: &mut Cursor<'a>) -> Result<Self, Malformed>;
}

impl<'a> Datum<'a> for f64 {
    #[inline]
    fn read(from: &mut Cursor<'a>) -> Result<Self, Malformed> {
        from.bytes(8)?.try_into().map(Self::from_le_bytes).map_err(|_| Malformed)
    }
}

impl<'a> Datum<'a> for &'a str {
    #[inline]
    fn read(from: &mut Cursor<'a>) -> Result<Self, Malformed> {
        from.text()
    }
}

/// A map that is read in place: names and values in the order of the body. If a name is repeated, its last value counts.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'a, V> {
    /// Bytes of the map, from its first block to its end.
    bytes: &'a [u8],
    values: PhantomData<V>,
}

impl<'a, V: Datum<'a>> MapView<'a, V> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<V> {
        self.entries().filter(|(known, _)| *known == name).last().map(|(_, value)| value)
    }

    /// Names and values in the order of the body.
    pub fn entries(&self) -> Entries<'a, V> {
        Entries::over(self.bytes)
    }

    /// Names and values, sorted by name, without repeated names.
    pub fn sorted(&self) -> Vec<(&'a str, V)> {
        let mut entries: Vec<(&str, V)> = self.entries().collect();
        // The sort is stable, so the last value of a repeated name stays last.
        entries.sort_by_key(|(name, _)| *name);
        entries.reverse();
        entries.dedup_by_key(|(name, _)| *name);
        entries.reverse();
        entries
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }
}

/// Maps are equal if the same names have the same values. Their encoding does not matter.
impl<'a, V: Datum<'a> + PartialEq> PartialEq for MapView<'a, V> {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

/// The entries of a [`MapView`].
#[derive(Clone, Debug)]
pub struct Entries<'a, V> {
    rest: Cursor<'a>,
    /// Number of entries left in the current block; `None` after the last block.
    left: Option<u64>,
    started: bool,
    values: PhantomData<V>,
}

impl<'a, V: Datum<'a>> Entries<'a, V> {
    fn over(bytes: &'a [u8]) -> Self {
        Self { rest: Cursor(bytes), left: None, started: false, values: PhantomData }
    }

    /// The next entry, if there is one.
    #[inline]
    fn next_entry(&mut self) -> Read<Option<(&'a str, V)>> {
        if !self.started {
            self.started = true;
            self.left = self.rest.block()?;
        }
        let Some(left) = self.left else { return Ok(None) };
        let name = self.rest.text()?;
        let value = V::read(&mut self.rest)?;
        self.left = if left > 1 { Some(left - 1) } else { self.rest.block()? };
        Ok(Some((name, value)))
    }
}

impl<'a, V: Datum<'a>> Iterator for Entries<'a, V> {
    type Item = (&'a str, V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().ok().flatten()
    }
}
