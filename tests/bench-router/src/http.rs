//! The part of HTTP/1.1 that load and model servers need: messages with a length, one after the other.

/// Length of the message at the start of `bytes`, once its head is complete.
pub(crate) fn message(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let mut length = 0;
    for line in bytes[..head].split(|&byte| byte == b'\n') {
        if let Some((name, value)) = line.split_at_checked(15)
            && name.eq_ignore_ascii_case(b"content-length:")
        {
            length = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
        }
    }
    Some(head + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_head_and_a_body() {
        assert_eq!(message(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
        assert_eq!(message(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP"), Some(40));
        assert_eq!(message(b"HTTP/1.1 200 OK\r\ncontent-len"), None);
    }
}
