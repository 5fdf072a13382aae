#!/usr/bin/env bash
# Runs the fuzz targets of the byte decoders and of the untrusted input of routers, each for FUZZ_SECONDS, seeded with the golden files. Uses libFuzzer without
# cargo-fuzz, so that the stable compiler is enough. `--build` builds the targets without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
folder="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/serin/target}/fuzz"

# Coverage counters and comparisons for libFuzzer; overflow checks, because a release build would wrap silently.
flags="--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
# With an explicit target, the flags do not apply to build scripts.
RUSTFLAGS="$flags" cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$folder"
[ "${1:-}" != --build ] || exit 0

run() {
    local target=$1 seeds=schemas/tests/golden file
    [ "$target" = sketches ] && seeds=crates/sketches/tests/golden
    [ "$target" = doors ] && seeds=crates/doors/golden
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    [ "$target" = outputs ] && cp fuzz/seeds/outputs/* fuzz/corpus/outputs/ && seeds=
    for file in ${seeds:+"$seeds"/*.hex}; do
        perl -ne 's/\s//g; print pack("H*", $_)' "$file" >"fuzz/corpus/$target/$(basename "$file" .hex)"
    done
    # One allocation may be as large as a record, 8 MiB.
    "$folder/$host/release/$target" -max_total_time="$seconds" -malloc_limit_mb=32 -rss_limit_mb=1024 -max_len=8192 \
        -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" "fuzz/corpus/$target"
}

# Two at a time. A target uses one core.
status=0
for pair in "sketches records" "outputs doors"; do
    pids=()
    for target in $pair; do
        # The braces give the background job the status of the whole pipeline.
        { run "$target" 2>&1 | sed -u "s/^/$target: /"; } &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
done
exit "$status"
