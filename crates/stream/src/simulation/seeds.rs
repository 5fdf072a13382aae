//! Runs many seeds, and prints a command that reproduces the failing one.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Environment variable: run only this seed.
const SEED: &str = "SERIN_SIM_SEED";
/// Environment variable: run this many seeds instead of the default.
const SEEDS: &str = "SERIN_SIM_SEEDS";

/// Runs `play` with the seeds `0..count`, or with those from the environment. `test` contains the arguments of
/// `cargo test` that run this test alone.
///
/// # Panics
/// At the first seed that fails, with the command that reproduces it.
pub fn each_seed(test: &str, count: u64, play: impl Fn(u64) -> Result<(), String>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number(SEEDS).unwrap_or(count),
    };
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| play(seed)));
        let error = match played {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
            }
        };
        panic!("{SEED}={seed} cargo test --release {test}\n{error}");
    }
}
