//! Rules on the names of headers and cookies: no request can have a name that cannot be sent.

use super::Found;

impl Found {
    /// Reports what cannot be the name of a header (RFC 9110: a token).
    pub(super) fn header(&mut self, path: &str, name: &str) {
        self.token(path, name, "header");
    }

    /// Reports what cannot be the name of a cookie (RFC 6265: a token).
    pub(super) fn cookie(&mut self, path: &str, name: &str) {
        self.token(path, name, "cookie");
    }

    fn token(&mut self, path: &str, name: &str, what: &str) {
        if name.trim().is_empty() {
            self.not_empty(path, name);
        } else if !name.bytes().all(is_of_token) {
            let message = format!("{name:?} cannot be the name of a {what}");
            self.error(path, message, "use letters, digits and dashes, such as x-user, without spaces or a colon");
        }
    }
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
