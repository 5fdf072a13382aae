#!/usr/bin/env bash
# Several checkouts may share one build directory, because the native libraries take minutes to build. Crates built from another checkout
# would read the files of that checkout (golden bytes, scripts), so Serin's own crates are rebuilt when the checkout changes.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
stamp="$target/checkout"

if [ -d "$target/release" ] && [ "$(cat "$stamp" 2>/dev/null || true)" != "$PWD" ]; then
    cargo clean --quiet --release --workspace
fi
mkdir -p "$target"
echo "$PWD" >"$stamp"
