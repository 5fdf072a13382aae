#!/usr/bin/env bash
# Several checkouts may share one build folder, because the native libraries take minutes. What was built from another checkout
# would read that one's files (golden bytes, scripts), so Serin's own crates are built anew when the checkout changes.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
stamp="$target/checkout"

if [ -d "$target/release" ] && [ "$(cat "$stamp" 2>/dev/null || true)" != "$PWD" ]; then
    cargo clean --quiet --release --workspace
fi
mkdir -p "$target"
echo "$PWD" >"$stamp"
