#!/usr/bin/env bash
# Runs every test and prints one summary line. A test that is ignored or filtered out is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build-next.sh
cargo build --release --locked --workspace
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# There are no documentation tests: examples stand in tests and, run by hand, in docs/.
cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast 2>&1 | tee "$log" || status=$?

count() { # sums the numbers before a word of cargo's result lines
    sed -n 's/^test result: .*[;.] \([0-9]*\) '"$1"'.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum + 0 }'
}
passed=$(count passed) failed=$(count failed) ignored=$(count ignored)
echo
echo "$passed passed, $failed failed, $ignored skipped"
if [ "$ignored" -gt 0 ]; then
    echo "error: no test may be skipped" >&2
    exit 1
fi
if [ "$passed" -eq 0 ]; then
    echo "error: no test ran" >&2
    exit 1
fi
exit "$status"
