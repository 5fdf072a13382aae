#!/usr/bin/env bash
# Builds `serin-next` next to `serin`: a newer binary whose windows have one more field. The chaos suite upgrades to it.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t quick < <(scripts/quick.sh)
release="${CARGO_TARGET_DIR:-target}/release"

cargo build "${quick[@]}" --release --locked --workspace --bin serin --features serin/next-schema
cp "$release/serin" "$release/serin-next.new"
mv "$release/serin-next.new" "$release/serin-next"
# Build the current `serin` again under its own name.
cargo build "${quick[@]}" --release --locked --workspace --bin serin
