#!/usr/bin/env bash
# Builds `serin-next` beside `serin`: the binary of tomorrow, whose windows have one field more. The chaos suite rolls to it.
set -euo pipefail
cd "$(dirname "$0")/.."
release="${CARGO_TARGET_DIR:-target}/release"

cargo build --release --locked --workspace --bin serin --features serin/next-schema
cp "$release/serin" "$release/serin-next.new"
mv "$release/serin-next.new" "$release/serin-next"
# The name `serin` is today's again.
cargo build --release --locked --workspace --bin serin
