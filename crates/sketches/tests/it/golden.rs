//! Pinned bytes: `golden/<type>.v<version>.hex` contains what the type's encoder writes for the same eight observations.
//!
//! If this test fails, the bytes have changed, which needs a new version and a reader for the old one. Only for a *new* type
//! or version, run `SERIN_WRITE_GOLDEN=1 cargo test -p serin-sketches --test it`: it writes the files that do not exist yet
//! and never overwrites existing ones. The files are also the seeds of the fuzz target (`fuzz/`).

use std::fmt::Write as _;
use std::{fs, path::PathBuf};

use serin_sketches::{Digest, FORMAT_VERSION, Summary};

use crate::support::{NAMES, digest, filled};

const SAMPLE: [f64; 8] = [0.0, 0.004, 1.0, 1.0, 1.005, 12.5, 14.0, 900.0];

/// 40 bytes per line.
fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(40) {
        for byte in line {
            write!(out, "{byte:02x}").unwrap();
        }
        out.push('\n');
    }
    out
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Compares the bytes with the file and returns the bytes of the file.
fn pinned(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &format!("{name}.v{FORMAT_VERSION}.hex")].iter().collect();
    if std::env::var_os("SERIN_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::write(&path, to_hex(bytes)).unwrap();
    }
    let golden = fs::read_to_string(path).expect(name);
    assert_eq!(to_hex(bytes), golden, "{name}: the bytes have changed");
    from_hex(&golden)
}

#[test]
fn bytes_of_summaries_are_pinned() {
    for (kind, name) in NAMES.into_iter().enumerate() {
        let summary = filled(kind, &SAMPLE);
        assert_eq!(Summary::decode(&pinned(name, &summary.encode())), Ok(summary), "{name}");
    }
}

#[test]
fn bytes_for_display_are_pinned() {
    let digest = digest(&SAMPLE);
    let again = Digest::decode(&pinned("digest", &digest.encode())).unwrap();
    assert_eq!((again.total(), again.quantile(0.5)), (8, digest.quantile(0.5)));
}
