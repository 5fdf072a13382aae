//! Wrong clocks: a library that is preloaded into a process and shifts its time of day.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Builds the library in `folder` with the C compiler and returns its path.
///
/// # Errors
/// There is no C compiler, or it failed.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/clock/clock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    let output = compiler.output().context("starting cc")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(library)
}

/// The environment variables that shift the clock of a process by `off_ms` milliseconds.
pub fn environment(library: &Path, off_ms: i64) -> [(&'static str, String); 2] {
    [("LD_PRELOAD", library.display().to_string()), ("CLOCK_OFF_MS", off_ms.to_string())]
}
