//! Runs thousands of damaged golden bodies through every decoder with little memory: no panic, and no huge allocation.
//!
//! These are the checks of the fuzz targets (`fuzz/`), with fixed seeds and in every test run.

mod decoders;

use std::{alloc::System, fs, path::Path};

use cap::Cap;
use serin_sketches::hash::hash64;

/// A decoder that allocates by a wrong length prefix ends the test. One allocation may take 8 MiB
/// ([`serin_schemas::codec::MAX_RECORD_BYTES`]). Four threads of the test harness share this limit.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 128 << 20);

/// Huge length prefixes, such as 2^62, as varints and as zigzag varints.
const BOMBS: [&[u8]; 5] = [
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
    &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x80, 0x80, 0x80, 0x04],
];

fn golden(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).expect("the golden directory").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "hex")).collect();
    paths.sort();
    paths.iter().map(|path| from_hex(&fs::read_to_string(path).expect("a golden file"))).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits")).collect()
}

/// Deterministic random numbers from a counter.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        (hash64(b"mutations", &self.0.to_le_bytes()) % n.max(1) as u64) as usize
    }
}

fn damage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(bytes.len());
    let end = at + dice.below(bytes.len() - at + 1);
    match dice.below(7) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        1 if !bytes.is_empty() => bytes[at] = dice.below(256) as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        5 => {
            let other = &seeds[dice.below(seeds.len())];
            let from = dice.below(other.len());
            drop(bytes.splice(at..end, other[from..].iter().copied()));
        }
        _ => drop(bytes.splice(at..at, BOMBS[dice.below(BOMBS.len())].iter().copied())),
    }
}

/// Runs `check` on `rounds` damaged copies of each seed, and returns how often it accepted one.
fn run(seeds: &[Vec<u8>], rounds: usize, check: impl Fn(&[u8]) -> bool) -> usize {
    let mut dice = Dice(0);
    let mut accepted = 0;
    for seed in seeds {
        assert!(check(seed), "an undamaged golden file is accepted");
        for _ in 0..rounds {
            let mut bytes = seed.clone();
            for _ in 0..=dice.below(3) {
                damage(&mut bytes, seeds, &mut dice);
            }
            accepted += usize::from(check(&bytes));
        }
    }
    accepted
}

#[test]
fn damaged_sketches_are_refused_or_valid() {
    let seeds = golden("../crates/sketches/tests/golden");
    assert!(seeds.len() >= 11, "{} seeds", seeds.len());
    let accepted = run(&seeds, 4000, decoders::sketches);
    // Both results occur: a changed count is still a valid summary, a huge length is not.
    assert!((1000..40_000).contains(&accepted), "{accepted}");
}

#[test]
fn damaged_records_are_refused_or_valid() {
    let seeds = golden("tests/golden");
    assert!(seeds.len() >= 12, "{} seeds", seeds.len());
    let accepted = run(&seeds, 400, |bytes| decoders::records(bytes) > 0);
    assert!((200..4800).contains(&accepted), "{accepted}");
}
