#!/usr/bin/env bash
# Checks formatting, clippy, documentation and dependency rules, and builds the fuzz targets.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${XDG_CACHE_HOME:-$HOME/.cache}/serin/tools"

cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items

scripts/check-house.sh
scripts/check-english.sh
scripts/console.sh --check

# The fuzz targets are a separate workspace, and no test builds them: their lock file must match that of the main workspace.
cargo update --quiet --workspace --locked --manifest-path fuzz/Cargo.toml
cargo fmt --manifest-path fuzz/Cargo.toml --check
scripts/fuzz.sh --build

if ! "$tools/bin/cargo-deny" --version >/dev/null 2>&1; then
    cargo install cargo-deny --version 0.20.2 --locked --root "$tools" --target-dir "$tools/target"
    rm -rf "$tools/target"
fi
"$tools/bin/cargo-deny" --locked check -D unmatched-skip -D unnecessary-skip bans licenses sources
# Advisories come from an external database (RustSec): the newest, or the copy of an earlier run. Without either, the script reports that
# they were not checked.
databases="${CARGO_HOME:-$HOME/.cargo}/advisory-dbs"
# A fetch that fails leaves a lock file behind, and no database.
if timeout 20 "$tools/bin/cargo-deny" --locked fetch db >/dev/null 2>&1 || compgen -G "$databases/*/.git" >/dev/null; then
    "$tools/bin/cargo-deny" --locked --offline check advisories
else
    echo "lint: advisories were not checked: the RustSec database cannot be fetched, and there is no copy in $databases" >&2
fi
