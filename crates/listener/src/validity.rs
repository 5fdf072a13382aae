//! When a certificate expires.
//!
//! TLS libraries check the validity of a certificate but do not return it. This module reads only that field of the DER encoding
//! (RFC 5280, section 4.1). Invariant: any bytes are safe to read; what is not a certificate has no end.

use jiff::{civil::DateTime, tz::TimeZone};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag of the optional version.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity, in seconds since the Unix epoch. `None` if the bytes are not a certificate in DER, or if the
/// certificate never expires (the last second of the year 9999).
pub(crate) fn expires_at(certificate: &[u8]) -> Option<i64> {
    let (certificate, _) = value(SEQUENCE, certificate)?;
    let (mut fields, _) = value(SEQUENCE, certificate)?;
    if let Some((_, rest)) = value(VERSION, fields) {
        fields = rest;
    }
    // Serial number, algorithm of the signature, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (validity, _) = value(SEQUENCE, fields)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        GENERALIZED_TIME => text.to_owned(),
        // Two digits of the year: 1950 to 2049.
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

/// The contents of the first element, which must have this tag, and what follows it.
fn value(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, contents, rest)| (contents, rest))
}

/// Tag and contents of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    // A length of 128 or more is preceded by the number of its bytes.
    let digits = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (digits, rest) = rest.split_at_checked(digits).filter(|(digits, _)| digits.len() <= 4)?;
    let long = digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit));
    let (contents, rest) = rest.split_at_checked(if first < 0x80 { usize::from(first) } else { long })?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_the_validity_is_read_in_both_notations() {
        assert_eq!(expires_at(&certificate(2049)), Some(2_493_072_000));
        assert_eq!(expires_at(&certificate(2050)), Some(2_524_608_000));
        assert_eq!(expires_at(&certificate(1999)), Some(915_148_800));
        assert_eq!(expires_at(&certificate(9999)), Some(253_370_764_800));
    }

    #[test]
    fn truncated_and_damaged_bytes_are_safe_to_read() {
        let whole = certificate(2030);
        for end in 0..whole.len() {
            assert_eq!(expires_at(&whole[..end]), None);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                damaged[at] = byte;
                // The result may be any. It must not panic.
                let _ = expires_at(&damaged);
            }
        }
        assert_eq!(expires_at(b""), None);
    }
}
