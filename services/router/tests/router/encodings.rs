//! Compressed answers: they are read like plain ones, passed on unchanged, and reported correctly when they cannot be read.

use serin_schemas::records::Outcome;

use crate::{
    outcomes::{CHAT, CHUNK, GOOD_CHAT, check, events, json},
    requests::{deflate, gzip, zstd},
    upstreams::Reply,
};

const ERROR: &str = r#"{"error":{"message":"boom"}}"#;

/// The encodings, each with the encoded text. No encoder for Brotli is available here, so its bytes are those of the reference encoder.
fn encodings(text: &str, brotli: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    // A zlib stream without its two-byte header and four-byte checksum, which some senders call deflate.
    let raw = |zlib: Vec<u8>| zlib[2..zlib.len() - 4].to_vec();
    vec![
        ("gzip", gzip(bytes)),
        ("x-gzip", gzip(bytes)),
        ("GZIP", gzip(bytes)),
        ("deflate", deflate(bytes)),
        ("deflate", raw(deflate(bytes))),
        ("br", from_hex(brotli)),
        ("zstd", zstd(bytes)),
        ("identity", bytes.to_vec()),
        ("identity, gzip", gzip(bytes)),
        // Several members, as written by servers that flush.
        ("gzip", [gzip(&bytes[..9]), gzip(&bytes[9..])].concat()),
    ]
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn packed(reply: Reply, encoding: &str) -> Reply {
    reply.with("content-encoding", encoding)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_is_read_like_a_plain_answer() {
    let (whole, frame) = (format!("{CHUNK}data: [DONE]\n\n"), format!("{CHUNK}data: {ERROR}\n\n"));
    for (text, brotli, outcome, cause) in [
        (GOOD_CHAT, BR_CHAT, Outcome::Ok, None),
        (ERROR, BR_ERROR, Outcome::Failed, Some("error_object")),
        (whole.as_str(), BR_WHOLE, Outcome::Ok, None),
        (frame.as_str(), BR_FRAME, Outcome::Failed, Some("error_frame")),
        (CHUNK, BR_CUT, Outcome::Failed, Some("truncated")),
    ] {
        let reply = |body: Vec<u8>| if text.starts_with("data:") { events(body) } else { json(body) };
        for (encoding, body) in encodings(text, brotli) {
            check(CHAT, packed(reply(body), encoding), outcome, cause).await;
        }
    }
}

/// Bodies that do not match their encoding count against the version.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_match_its_encoding_is_unusable() {
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        check(CHAT, packed(json(GOOD_CHAT), encoding), Outcome::Unusable, Some("unparsable")).await;
    }
    for (encoding, body) in encodings(GOOD_CHAT, BR_CHAT).into_iter().filter(|(encoding, _)| *encoding != "identity") {
        let half = body[..body.len() / 2].to_vec();
        check(CHAT, packed(json(half), encoding), Outcome::Unusable, Some("unparsable")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_unknown_encodings_are_unread() {
    let bomb = " ".repeat(10 << 20);
    for (encoding, body) in [("gzip", gzip(bomb.as_bytes())), ("deflate", deflate(bomb.as_bytes()))] {
        assert!(body.len() < 64 << 10, "{encoding}: it must be small enough to be kept");
        check(CHAT, packed(json(body), encoding), Outcome::Unread, Some("too_large")).await;
    }
    // The limit for streams is higher, but exists.
    let stream = format!("{CHUNK}:{}", " ".repeat(65 << 20));
    check(CHAT, packed(events(gzip(stream.as_bytes())), "gzip"), Outcome::Unread, Some("too_large")).await;
    let twice = gzip(&gzip(GOOD_CHAT.as_bytes()));
    for encoding in ["gzip, gzip", "lzma", "compress", "gzip;q=1"] {
        check(CHAT, packed(json(twice.clone()), encoding), Outcome::Unread, Some("encoding")).await;
    }
}

const BR_CHAT: &str = "
1b5300401c07760cf907713868be865a64ef6b6ba1a5b50e4b575fb7b1b1af7c97e01124e8375eb03176a63492721e772c60
49c981bf4ae643cfb4780f812810ed";
const BR_ERROR: &str = "
8b0d807b226572726f72223a7b226d657373616765223a22626f6f6d227d7d03";
const BR_WHOLE: &str = "
0b1e80646174613a207b2263686f69636573223a5b7b2264656c7461223a7b22636f6e74656e74223a2278227d7d5d7d0a0a
646174613a205b444f4e455d0a0a03";
const BR_FRAME: &str = "
1b5200409c07b6ade4137e2d2f03edf5c73ba116796bd3d9206264785a47a1ab6f8a6cedc1061cb03fd8e0d134080c3b60e7
1869a1c0d8ef4a9b350cbad8bf5705ab61aa85752e05";
const BR_CUT: &str = "
0b1780646174613a207b2263686f69636573223a5b7b2264656c7461223a7b22636f6e74656e74223a2278227d7d5d7d0a0a
03";
