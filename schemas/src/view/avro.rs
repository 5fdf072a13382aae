//! Avro's binary form, read in place. Source: Apache Avro 1.12 specification, "Binary Encoding".

use std::marker::PhantomData;

use crate::codec::MAX_RECORD_BYTES;

/// Most bytes of a number.
const MAX_NUMBER_BYTES: u32 = 10;

/// What stands there is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What was read.
pub(super) type Read<T> = Result<T, Malformed>;

/// Reads from the front of a body.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// At the beginning of a body that is not too large.
    pub(super) fn new(body: &'a [u8]) -> Read<Self> {
        if body.len() <= MAX_RECORD_BYTES { Ok(Self(body)) } else { Err(Malformed) }
    }

    pub(super) fn is_at_end(self) -> bool {
        self.0.is_empty()
    }

    /// Seven bits a byte, the lowest first, zigzag. Bits beyond the 64th are dropped, as the library does.
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

    /// Of a symbol or of a branch of a union.
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

    /// A union of null and something.
    #[inline]
    pub(super) fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.index()? {
            0 => Ok(None),
            1 => some(self).map(Some),
            _ => Err(Malformed),
        }
    }

    /// An array of texts. Its length is not believed: it grows by what is there.
    pub(super) fn texts(&mut self) -> Read<Vec<&'a str>> {
        let mut texts = Vec::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                texts.push(self.text()?);
            }
        }
        Ok(texts)
    }

    /// The head of a block of an array or a map: how many entries follow; a negative number is followed by the size of the
    /// block. `None`: the end.
    #[inline]
    fn block(&mut self) -> Read<Option<u64>> {
        let count = self.long()?;
        if count < 0 {
            self.long()?;
        }
        Ok((count != 0).then_some(count.unsigned_abs()))
    }

    /// A map, gone through once: what a [`MapView`] holds is known to be readable.
    pub(super) fn map<V: Datum<'a>>(&mut self) -> Read<MapView<'a, V>> {
        let begin = self.0;
        let mut entries = Entries::<V>::over(self.0);
        while entries.next_entry()?.is_some() {}
        self.0 = entries.rest.0;
        Ok(MapView { bytes: &begin[..begin.len() - self.0.len()], values: PhantomData })
    }
}

/// A value of a map.
pub trait Datum<'a>: Sized {
    /// Reads it.
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

/// A map in place: names and values in the order of the body. A name may stand there twice; the last one counts.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'a, V> {
    /// From the first block to the end of the map.
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

    /// Names, each once, and their values, in the order of the names.
    pub fn sorted(&self) -> Vec<(&'a str, V)> {
        let mut entries: Vec<(&str, V)> = self.entries().collect();
        // Stable: of those with one name the last of the body stands last.
        entries.sort_by_key(|(name, _)| *name);
        entries.reverse();
        entries.dedup_by_key(|(name, _)| *name);
        entries.reverse();
        entries
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }
}

/// Equal when the same names have the same values; how they stand in the body does not matter.
impl<'a, V: Datum<'a> + PartialEq> PartialEq for MapView<'a, V> {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

/// The entries of a [`MapView`].
#[derive(Clone, Debug)]
pub struct Entries<'a, V> {
    rest: Cursor<'a>,
    /// Entries left in this block; `None` behind the last block.
    left: Option<u64>,
    begun: bool,
    values: PhantomData<V>,
}

impl<'a, V: Datum<'a>> Entries<'a, V> {
    fn over(bytes: &'a [u8]) -> Self {
        Self { rest: Cursor(bytes), left: None, begun: false, values: PhantomData }
    }

    /// The next entry, if there is one.
    #[inline]
    fn next_entry(&mut self) -> Read<Option<(&'a str, V)>> {
        if !self.begun {
            self.begun = true;
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
