//! The console in Chromium: `console/tests` against this build of the binary.

use std::{path::Path, process::Command};

#[test]
fn the_console_works_in_a_browser() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/console.sh");
    let status = Command::new(script).args(["--test", env!("CARGO_BIN_EXE_serin")]).status().unwrap();
    assert!(status.success(), "scripts/console.sh --test: {status}");
}
