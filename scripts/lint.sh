#!/usr/bin/env bash
# Formatting, clippy, documentation, dependency rules.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${XDG_CACHE_HOME:-$HOME/.cache}/serin/tools"

cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items

scripts/check-house.sh

# The fuzz targets are a workspace of their own, and no test builds them: their lock file must follow ours.
cargo update --quiet --workspace --locked --manifest-path fuzz/Cargo.toml

# Advisories need a database from outside; licences, bans and sources are checked here.
if ! "$tools/bin/cargo-deny" --version >/dev/null 2>&1; then
    cargo install cargo-deny --version 0.20.2 --locked --root "$tools" --target-dir "$tools/target"
    rm -rf "$tools/target"
fi
"$tools/bin/cargo-deny" --locked check bans licenses sources
