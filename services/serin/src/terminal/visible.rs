//! Text of callers and writers on an operator's terminal. A segment value or a reason can contain control characters, which could
//! clear the screen, hide text, or reverse its order. They are shown as escapes.

use std::{borrow::Cow, fmt::Write as _};

/// The colors that Serin itself prints: red, green, yellow and their ends, as `console` and `comfy-table` write them.
const COLORS: [&str; 9] = [
    "\u{1b}[0m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[39m",
    "\u{1b}[38;5;9m",
    "\u{1b}[38;5;10m",
    "\u{1b}[38;5;11m",
    "\u{1b}[m",
];

/// Whether a terminal acts on a character instead of showing it: control characters, and those that change the direction of text.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with escapes such as `\u{1b}` for characters on which a terminal acts. Line ends, tabs and Serin's own colors stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|letter| acts(letter) && letter != '\n') {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(letter) = rest.chars().next() {
        if let Some(color) = COLORS.iter().find(|color| rest.starts_with(**color)) {
            shown.push_str(color);
            rest = &rest[color.len()..];
            continue;
        }
        if acts(letter) && !matches!(letter, '\n' | '\t') {
            let _ = write!(shown, "{}", letter.escape_unicode());
        } else {
            shown.push(letter);
        }
        rest = &rest[letter.len_utf8()..];
    }
    Cow::Owned(shown)
}

/// A JSON document with escapes for the same characters. They occur in strings only; other control characters are escaped already.
pub(crate) fn escaped_json(document: &str) -> Cow<'_, str> {
    let is_bare = |letter: char| acts(letter) && !letter.is_ascii();
    if !document.contains(is_bare) {
        return Cow::Borrowed(document);
    }
    Cow::Owned(document.chars().fold(String::with_capacity(document.len()), |mut all, letter| {
        if is_bare(letter) {
            let _ = write!(all, "\\u{:04x}", u32::from(letter));
        } else {
            all.push(letter);
        }
        all
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_on_which_a_terminal_acts_are_shown_as_escapes() {
        let cases = [
            ("country=\u{1b}[2J\u{1b}]0;pwn\u{7}DE", "country=\\u{1b}[2J\\u{1b}]0;pwn\\u{7}DE"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\rb\u{8}", "a\\u{d}b\\u{8}"),
            ("hidden \u{1b}[8mtext", "hidden \\u{1b}[8mtext"),
        ];
        for (text, expected) in cases {
            assert_eq!(visible(text), expected);
        }
        for plain in ["", "one\ntwo\tthree", "é à 中 🐤", "\u{1b}[31mFAIL\u{1b}[0m", "\u{1b}[38;5;10mpass\u{1b}[39m"]
        {
            assert_eq!(visible(plain), plain);
        }
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"reason": "\u{202e}x\u{9b}\n\u{1b}", "é": 1});
        let text = serde_json::to_string(&value).unwrap();
        let escaped = escaped_json(&text);
        assert!(!escaped.contains(acts), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
