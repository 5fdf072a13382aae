//! Decodes a content encoding next to a stream: the stream itself is passed through unchanged, and its readers get the decoded bytes.
//!
//! Invariants: the decoder returns small chunks and keeps none of them; the total output of a decoder is bounded, so a few bytes that
//! expand to gigabytes cost no more than the bound; its windows are bounded (8 MiB, 16 MiB for Brotli).
//!
//! Zstandard returns the last window of bytes only at the end of its frame. Code that measures when bytes arrived must take this into
//! account.

use std::io::Write as _;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status, write::MultiGzDecoder};
use http::{HeaderMap, header};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Why encoded bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// An unknown encoding, or several encodings.
    #[error("the content encoding is not supported")]
    Unknown,
    /// The bytes do not match the encoding, or end too early.
    #[error("the bytes do not match the content encoding")]
    Broken,
    /// The decoded body is larger than the bound.
    #[error("the decoded body is too large")]
    TooLarge,
}

/// Input bytes between two checks of the bound. Deflate expands one byte to at most 1032 bytes.
const STEP: usize = 512;
/// Size of output chunks.
const PIECE: usize = 16 << 10;
/// Largest window of Zstandard, as specified for HTTP in RFC 9659.
const ZSTD_WINDOW: u64 = 8 << 20;
/// Largest block of Zstandard.
const ZSTD_BLOCK: usize = 128 << 10;
const ZSTD_MAGIC: u32 = 0xFD2F_B528;

/// Decodes one body.
pub(crate) struct Decoder {
    codec: Codec,
    /// Number of decoded bytes that may still be returned.
    left: u64,
}

enum Codec {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// The first byte decides whether there is a zlib header: some senders omit it.
    Deflate,
    /// The decoder for deflate once the format is known, and whether the data has ended.
    Inflate(Box<Decompress>, bool),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>, bool),
    Zstd(Box<Zstd>),
}

impl Decoder {
    /// The decoder for a body with these headers; `None` if it is not encoded. It returns at most `most` bytes.
    pub(crate) fn of(headers: &HeaderMap, most: u64) -> Result<Option<Self>, DecodeError> {
        let mut found = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let value = value.to_str().map_err(|_| DecodeError::Unknown)?;
            for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                if name.eq_ignore_ascii_case("identity") {
                    continue;
                }
                if found.replace(Self::named(name, most)?).is_some() {
                    return Err(DecodeError::Unknown);
                }
            }
        }
        Ok(found)
    }

    /// The decoder for an encoding by name.
    pub(crate) fn named(name: &str, most: u64) -> Result<Self, DecodeError> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let codec = if is("gzip") || is("x-gzip") {
            Codec::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
        } else if is("deflate") {
            Codec::Deflate
        } else if is("br") {
            let alloc = StandardAlloc::default();
            Codec::Brotli(Box::new(BrotliState::new_strict(alloc, alloc, alloc)), false)
        } else if is("zstd") {
            Codec::Zstd(Box::default())
        } else {
            return Err(DecodeError::Unknown);
        };
        Ok(Self { codec, left: most })
    }

    /// Decodes a complete body.
    pub(crate) fn whole(mut self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        self.push(bytes, |part| out.extend_from_slice(part))?;
        self.finish(|part| out.extend_from_slice(part))?;
        Ok(out)
    }

    /// Takes a chunk, and passes on the decoded bytes that are available so far.
    pub(crate) fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        if let (Codec::Deflate, Some(first)) = (&self.codec, bytes.first()) {
            self.codec = Codec::Inflate(Box::new(Decompress::new(first & 0x0f == 8)), false);
        }
        let left = &mut self.left;
        let mut give = |out: &[u8]| {
            *left = left.checked_sub(out.len() as u64).ok_or(DecodeError::TooLarge)?;
            if !out.is_empty() {
                sink(out);
            }
            Ok(())
        };
        match &mut self.codec {
            Codec::Gzip(decoder) => {
                for step in bytes.chunks(STEP) {
                    decoder.write_all(step).and_then(|()| decoder.flush()).map_err(|_| DecodeError::Broken)?;
                    give(decoder.get_ref())?;
                    decoder.get_mut().clear();
                }
                Ok(())
            }
            Codec::Deflate => Ok(()),
            Codec::Inflate(state, ended) => inflate(state, ended, bytes, &mut give),
            Codec::Brotli(state, ended) => brotli(state, ended, bytes, &mut give),
            Codec::Zstd(zstd) => bytes.chunks(STEP).try_for_each(|step| zstd.push(step, &mut give)),
        }
    }

    /// The end of the body.
    pub(crate) fn finish(mut self, mut sink: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        let whole = match &mut self.codec {
            Codec::Gzip(decoder) => {
                decoder.try_finish().map_err(|_| DecodeError::Broken)?;
                let out = decoder.get_ref();
                if out.len() as u64 > self.left {
                    return Err(DecodeError::TooLarge);
                }
                if !out.is_empty() {
                    sink(out);
                }
                true
            }
            Codec::Deflate => true,
            Codec::Inflate(_, ended) | Codec::Brotli(_, ended) => *ended,
            Codec::Zstd(zstd) => zstd.is_between_frames(),
        };
        if whole { Ok(()) } else { Err(DecodeError::Broken) }
    }
}

fn inflate(
    state: &mut Decompress,
    ended: &mut bool,
    mut input: &[u8],
    give: &mut impl FnMut(&[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut out = vec![0; PIECE];
    loop {
        if *ended {
            return if input.is_empty() { Ok(()) } else { Err(DecodeError::Broken) };
        }
        let (read, written) = (state.total_in(), state.total_out());
        let status = state.decompress(input, &mut out, FlushDecompress::None).map_err(|_| DecodeError::Broken)?;
        let (read, written) = ((state.total_in() - read) as usize, (state.total_out() - written) as usize);
        input = &input[read..];
        give(&out[..written])?;
        *ended = status == Status::StreamEnd;
        if !*ended && (input.is_empty() && written < out.len() || read + written == 0) {
            return Ok(());
        }
    }
}

fn brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    ended: &mut bool,
    input: &[u8],
    give: &mut impl FnMut(&[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let (mut available_in, mut at) = (input.len(), 0);
    let mut out = vec![0; PIECE];
    loop {
        if *ended {
            return if available_in == 0 { Ok(()) } else { Err(DecodeError::Broken) };
        }
        let (mut available_out, mut written, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut at,
            input,
            &mut available_out,
            &mut written,
            &mut out,
            &mut total,
            state,
        );
        give(&out[..written])?;
        match result {
            BrotliResult::ResultSuccess => *ended = true,
            BrotliResult::NeedsMoreInput => return Ok(()),
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultFailure => return Err(DecodeError::Broken),
        }
    }
}

/// Zstandard, decoded one block at a time: the library would decode all blocks of a chunk into its memory.
#[derive(Default)]
struct Zstd {
    frame: Option<FrameDecoder>,
    /// Whether a checksum follows the frame.
    checksum: bool,
    /// Bytes received of the next header or block.
    waiting: Vec<u8>,
    /// Remaining bytes of a skippable frame.
    skip: usize,
}

impl Zstd {
    fn push(
        &mut self,
        bytes: &[u8],
        give: &mut impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.waiting.extend_from_slice(bytes);
        let mut out = [0; 4096];
        while let Some(length) = self.next()? {
            if self.waiting.len() < length {
                break;
            }
            let part = &self.waiting[..length];
            if let Some(frame) = &mut self.frame {
                let ended =
                    frame.decode_blocks(part, BlockDecodingStrategy::UptoBlocks(1)).map_err(|_| DecodeError::Broken)?;
                loop {
                    let read = std::io::Read::read(frame, &mut out).map_err(|_| DecodeError::Broken)?;
                    if read == 0 {
                        break;
                    }
                    give(&out[..read])?;
                }
                if ended {
                    self.frame = None;
                }
            } else {
                let mut frame = FrameDecoder::new();
                frame.set_max_window_size(ZSTD_WINDOW);
                frame.init(part).map_err(|_| DecodeError::Broken)?;
                self.checksum = part[4] & 4 != 0;
                self.frame = Some(frame);
            }
            self.waiting.drain(..length);
        }
        Ok(())
    }

    /// Length of the next header or block, including the checksum after the last block; `None` if more bytes are needed.
    fn next(&mut self) -> Result<Option<usize>, DecodeError> {
        if self.skip > 0 {
            let skipped = self.skip.min(self.waiting.len());
            self.waiting.drain(..skipped);
            self.skip -= skipped;
        }
        if self.frame.is_some() {
            let &[a, b, c, ..] = self.waiting.as_slice() else { return Ok(None) };
            let header = u32::from_le_bytes([a, b, c, 0]);
            let size = (header >> 3) as usize;
            if size > ZSTD_BLOCK {
                return Err(DecodeError::Broken);
            }
            // A block of one repeated byte contains only this byte.
            let content = if (header >> 1) & 3 == 1 { 1 } else { size };
            let checksum = if header & 1 == 1 && self.checksum { 4 } else { 0 };
            return Ok(Some(3 + content + checksum));
        }
        let &[a, b, c, d, ref rest @ ..] = self.waiting.as_slice() else { return Ok(None) };
        match u32::from_le_bytes([a, b, c, d]) {
            ZSTD_MAGIC => Ok(rest.first().map(|&descriptor| {
                let single = descriptor & 0x20 != 0;
                let size = match descriptor >> 6 {
                    0 => usize::from(single),
                    1 => 2,
                    2 => 4,
                    _ => 8,
                };
                5 + usize::from(!single) + [0, 1, 2, 4][usize::from(descriptor & 3)] + size
            })),
            magic if magic & 0xFFFF_FFF0 == 0x184D_2A50 => {
                let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
                self.skip = u32::from_le_bytes(*length) as usize;
                self.waiting.drain(..8);
                self.next()
            }
            _ => Err(DecodeError::Broken),
        }
    }

    fn is_between_frames(&self) -> bool {
        self.frame.is_none() && self.waiting.is_empty() && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    /// What `python3 -c 'import brotli; print(brotli.compress(b"{\"user\":\"u1\"}" * 100).hex())'` prints.
    const BROTLI: &str = "1b1305f81d09764cc71aa2038f508b94c9edcd3a9dbe8a990b03a38183399b60";

    fn from_hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn decode(name: &str, bytes: &[u8], step: usize, most: u64) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::named(name, most)?;
        let mut out = Vec::new();
        for piece in bytes.chunks(step.max(1)) {
            decoder.push(piece, |part| out.extend_from_slice(part))?;
        }
        decoder.finish(|part| out.extend_from_slice(part))?;
        Ok(out)
    }

    proptest! {
        #[test]
        fn encoded_bytes_are_decoded(text in "[a-f{}\":]{0,3000}", times in 1_usize..40, step in 1_usize..5000) {
            let text = text.repeat(times);
            for (name, bytes) in [("gzip", gzip(text.as_bytes())), ("deflate", zlib(text.as_bytes())), ("deflate", raw(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
                let got = decode(name, &bytes, step, 1 << 20);
                prop_assert_eq!(got.as_deref(), Ok(text.as_bytes()), "{}", name);
                if !text.is_empty() {
                    prop_assert_eq!(decode(name, &bytes, step, text.len() as u64 - 1), Err(DecodeError::TooLarge), "{}", name);
                    prop_assert!(decode(name, &bytes[..bytes.len() - 1], step, 1 << 20).is_err(), "{} cut", name);
                }
            }
        }

        #[test]
        fn decoding_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..100) {
            for name in ["gzip", "deflate", "br", "zstd"] {
                let _ = decode(name, &bytes, step, 1 << 16);
            }
            // After a valid header.
            let _ = decode("zstd", &[&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x58], bytes.as_slice()].concat(), step, 1 << 16);
        }
    }

    #[test]
    fn brotli_and_several_members_are_decoded() {
        let text = "{\"user\":\"u1\"}".repeat(100);
        let bytes = from_hex(BROTLI);
        for step in [1, 3, 100] {
            assert_eq!(decode("br", &bytes, step, 1 << 16).as_deref(), Ok(text.as_bytes()));
        }
        assert_eq!(decode("br", &bytes, 9, 1299), Err(DecodeError::TooLarge));
        assert_eq!(decode("br", &bytes[..bytes.len() - 1], 9, 1 << 16), Err(DecodeError::Broken));
        assert_eq!(decode("BR", &[bytes, b"x".to_vec()].concat(), 9, 1 << 16), Err(DecodeError::Broken));
        assert_eq!(decode("gzip", &[gzip(b"a"), gzip(b"b")].concat(), 7, 9).as_deref(), Ok(b"ab".as_slice()));
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [zstd(b"a"), skipped.to_vec(), zstd(b"b")].concat();
        assert_eq!(decode("zstd", &frames, 2, 9).as_deref(), Ok(b"ab".as_slice()));
    }

    /// A gigabyte of zeros in a megabyte or less.
    #[test]
    fn a_decompression_bomb_is_cut_at_the_bound() {
        let zeros = vec![0; 64 << 20];
        for (name, bytes) in [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("zstd", zstd(&zeros))] {
            let (mut given, mut largest) = (0, 0);
            let mut decoder = Decoder::named(name, 1 << 20).unwrap();
            let result = decoder.push(&bytes, |part| {
                given += part.len();
                largest = largest.max(part.len());
            });
            assert_eq!(result, Err(DecodeError::TooLarge), "{name}");
            assert!(given <= 1 << 20 && largest <= 1032 * STEP, "{name} {given} {largest}");
        }
    }

    #[test]
    fn headers_name_the_encoding() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            Decoder::of(&headers, 9).map(|decoder| decoder.is_some())
        };
        assert_eq!(
            (of(&[]), of(&["identity"]), of(&["GZip"]), of(&["identity, br"])),
            (Ok(false), Ok(false), Ok(true), Ok(true))
        );
        assert_eq!(
            (of(&["gzip, br"]), of(&["gzip", "br"]), of(&["lzma"])),
            (Err(DecodeError::Unknown), Err(DecodeError::Unknown), Err(DecodeError::Unknown))
        );
    }
}
