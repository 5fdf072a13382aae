#!/usr/bin/env bash
# Records the profile that scripts/dist.sh builds with: an instrumented Serin serves the load of `make bench-router`
# (events off, events on, mirror, outputs) and runs the demo. Writes profile/. Run it when frequently executed code or the
# compiler has changed: code that has changed since is built as if there were no profile.
set -euo pipefail
cd "$(dirname "$0")/.."

libdir=$(rustc --print target-libdir)
profdata=${libdir%/lib}/bin/llvm-profdata
if [ ! -x "$profdata" ]; then
    rustup component add llvm-tools
fi
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate" \
    cargo build --profile dist --locked --workspace --target "$host" --bin serin
cargo build --release --locked --workspace --bin serin-bench-router
serin=$target/$host/dist/serin

counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT
export LLVM_PROFILE_FILE=$counts/%p.profraw
# Only Serin is measured, so no other proxy is needed.
"$target/release/serin-bench-router" --serin "$serin" --envoy none --configs tests/bench-router/configs --no-publish --short \
    --only serin_events_off,serin_events_on,serin_mirror,serin_outputs --out "$counts/router.json"
"$serin" demo >"$counts/demo.log"

# Leave out functions that were not called: they are then built without a profile, not optimized as cold code.
"$profdata" merge --sparse --output "$counts/serin.profdata" "$counts"/*.profraw
mkdir -p profile
gzip -9nc "$counts/serin.profdata" >profile/serin.profdata.gz
rustc -vV >profile/rustc.txt
ls -l profile
