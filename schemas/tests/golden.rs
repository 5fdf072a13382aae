//! Pinned bytes: `golden/<record>.v<version>.json` is a value, and the `.hex` file is its body.
//!
//! The same files are test vectors for clients in other languages. If this test fails, the wire format has changed, which needs a new
//! version of the schema, not new bytes. When a *new* version is added, `SERIN_WRITE_GOLDEN=1 cargo test -p serin-schemas --test
//! golden` writes the missing `.hex` files. Existing files are never overwritten.

use std::{fs, path::PathBuf};

use serin_schemas::{
    codec::{self, Record},
    records::{RecordVisitor, visit_all},
};

struct Golden;

impl RecordVisitor for Golden {
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self) {
        for &(version, _) in R::codec().versions() {
            let stem = format!("{}.v{version}", R::NAME);
            let read = |extension: &str| fs::read_to_string(path(&stem, extension));
            let value: R = serde_json::from_str(&read("json").expect(&stem)).expect(&stem);
            if version == R::VERSION {
                let body = codec::encode(&value).expect(&stem);
                if std::env::var_os("SERIN_WRITE_GOLDEN").is_some() && read("hex").is_err() {
                    fs::write(path(&stem, "hex"), to_hex(&body)).expect(&stem);
                }
                assert_eq!(to_hex(&body), read("hex").expect(&stem), "{stem}: the bytes on the wire have changed");
            }
            let body = from_hex(&read("hex").expect(&stem));
            assert_eq!(codec::decode::<R>(version, &body).expect(&stem), value, "{stem}");
        }
    }
}

#[test]
fn bytes_on_the_wire_are_pinned() {
    visit_all(&mut Golden);
}

fn path(stem: &str, extension: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{stem}.{extension}")].iter().collect()
}

/// Hex digits with 40 bytes per line.
fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for line in bytes.chunks(40) {
        for byte in line {
            write!(out, "{byte:02x}").expect("writing to a string cannot fail");
        }
        out.push('\n');
    }
    out
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits")).collect()
}

struct Page(String);

impl RecordVisitor for Page {
    fn visit<R: Record + std::fmt::Debug + PartialEq>(&mut self) {
        let known: Vec<String> = R::codec().versions().iter().map(|(version, _)| version.to_string()).collect();
        let row = format!("| `{}` | {} | {} |", R::NAME, R::VERSION, known.join(", "));
        assert!(self.0.contains(&row), "docs/records.md has no row {row}");
    }
}

#[test]
fn the_page_lists_every_record_and_version() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/records.md")).expect("the page");
    visit_all(&mut Page(page));
}
