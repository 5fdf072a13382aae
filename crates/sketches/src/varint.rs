//! Little-endian base-128 numbers (LEB128), zigzag for signed numbers, and the bounds-checked reader that all decoders use.

use crate::{DecodeError, FORMAT_VERSION};

/// Appends `value`, seven bits per byte, lowest first.
pub(crate) fn put_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends an unsigned number.
pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    put_u128(out, u128::from(value));
}

/// Appends a signed number so that numbers of small magnitude stay short.
pub(crate) fn put_i128(out: &mut Vec<u8>, value: i128) {
    put_u128(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Reads from the front of a slice, never past its end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the version and the type byte, and returns a reader positioned after them.
    pub(crate) fn open(bytes: &'a [u8], expected: u8) -> Result<Self, DecodeError> {
        let mut reader = Self(bytes);
        match reader.version_and_type()? {
            found if found == expected => Ok(reader),
            found => Err(DecodeError::Type(found)),
        }
    }

    /// Checks the version and returns the type byte.
    pub(crate) fn version_and_type(&mut self) -> Result<u8, DecodeError> {
        match self.byte()? {
            FORMAT_VERSION => self.byte(),
            version => Err(DecodeError::Version(version)),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(DecodeError::Malformed("a number is too long"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a number is too long"))
    }

    pub(crate) fn i128(&mut self) -> Result<i128, DecodeError> {
        let raw = self.u128()?;
        Ok((raw >> 1) as i128 ^ -((raw & 1) as i128))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        u64::try_from(self.u128()?).map_err(|_| DecodeError::Malformed("a number does not fit 64 bits"))
    }

    /// A count of observations: at most [`crate::MAX_COUNT`].
    pub(crate) fn count(&mut self) -> Result<u64, DecodeError> {
        let value = self.u64()?;
        if value > crate::MAX_COUNT {
            return Err(DecodeError::Malformed("a count exceeds 2^53"));
        }
        Ok(value)
    }

    /// A finite float, eight bytes little-endian.
    pub(crate) fn finite(&mut self) -> Result<f64, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        let value = f64::from_le_bytes(*bytes);
        if value.is_finite() { Ok(value) } else { Err(DecodeError::Malformed("a number is not finite")) }
    }

    /// A signed number within `lo..=hi`.
    pub(crate) fn i32_in(&mut self, lo: i32, hi: i32) -> Result<i32, DecodeError> {
        let value = self.i128()?;
        if value < i128::from(lo) || value > i128::from(hi) {
            return Err(DecodeError::Malformed("a key is out of range"));
        }
        Ok(value as i32)
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_overlong_and_cut_numbers() {
        assert_eq!(Reader(&[0x80]).u64(), Err(DecodeError::Truncated));
        assert_eq!(Reader(&[0x80, 0x00]).u64(), Err(DecodeError::Malformed("a number is too long")));
        assert!(Reader(&[0xff; 30]).u128().is_err());
        assert!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03]).u64().is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(unsigned: u128, signed: i128) {
            let mut out = Vec::new();
            put_u128(&mut out, unsigned);
            put_i128(&mut out, signed);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.u128(), Ok(unsigned));
            prop_assert_eq!(reader.i128(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
