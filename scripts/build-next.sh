#!/usr/bin/env bash
# Builds `serin-next` next to `serin`: a newer binary whose windows have one more field. The chaos suite upgrades to it.
set -euo pipefail
cd "$(dirname "$0")/.."
release="${CARGO_TARGET_DIR:-target}/release"

# It only has to work, so our own crates are built with fewer optimizations. Third-party code is shared with the other builds.
quick=$(cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    print("--config", "profile.release.package." + package["name"] + ".opt-level=1")')
# shellcheck disable=SC2086  # one word per argument
cargo build --release --locked --workspace --bin serin --features serin/next-schema $quick
cp "$release/serin" "$release/serin-next.new"
mv "$release/serin-next.new" "$release/serin-next"
# Build the current `serin` again under its own name.
cargo build --release --locked --workspace --bin serin
