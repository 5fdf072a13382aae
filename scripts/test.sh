#!/usr/bin/env bash
# Runs the tests in parts and prints a summary line for each part and one for all. An ignored test is a failure.
#
#   scripts/test.sh                 all parts, in order
#   scripts/test.sh core system     these parts
#
# system   the binary, real processes, a real Kafka, a short chaos run, attacks
# peers    third-party software: clients, model servers, docker-compose
# console  the web page in Chromium
# core     everything else: unit, property, snapshot and simulation tests; a new test target is in this part until it is named below
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A targets=(
    [system]="attacks chaos cli compare connector console_api demo demo_reports doors embedded_kill exact interrupted kill log_away metrics publish restart steps sticky stored tls tour traces
        transcripts webhook conformance_kafka security_kafka"
    [peers]="comparison compose peers prometheus python"
    [console]="console"
)
order=(core system peers console)
parts=("$@")
[ $# -gt 0 ] || parts=("${order[@]}")

# Test targets of the workspace, by name.
all=$(cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(*sorted({t["name"] for p in packages for t in p["targets"] if t["kind"] == ["test"]}))')

for name in ${targets[system]} ${targets[peers]} ${targets[console]}; do
    [[ " $all " == *" $name "* ]] || { echo "error: scripts/test.sh names the test target $name, which does not exist" >&2; exit 1; }
done
targets[core]=$(for name in $all; do
    [[ " ${targets[system]} ${targets[peers]} ${targets[console]} " == *" $name "* ]] || printf '%s ' "$name"
done)

count() { # LOG WORD: sums the numbers before that word in the result lines of cargo
    sed -n 's/^test result: .*[;.] \([0-9]*\) '"$2"'.*/\1/p' "$1" | awk '{ sum += $1 } END { print sum + 0 }'
}

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
mapfile -t quick < <(scripts/quick.sh)
status=0
started=$SECONDS
[[ " ${parts[*]} " != *" system "* ]] || scripts/build-next.sh
cargo build "${quick[@]}" --release --locked --workspace
for part in "${parts[@]}"; do
    [ -n "${targets[$part]:-}" ] || { echo "error: unknown part $part; the parts are: ${order[*]}" >&2; exit 1; }
    select=()
    # There are no documentation tests: examples are in tests and, run by hand, in docs/.
    [ "$part" != core ] || select=(--lib --bins)
    for name in ${targets[$part]}; do select+=(--test "$name"); done
    start=$SECONDS
    cargo test "${quick[@]}" --release --locked --workspace "${select[@]}" --no-fail-fast 2>&1 | tee "$log/$part" || status=$?
    echo "$part took $((SECONDS - start)) s"
done

echo
total=(0 0 0)
for part in "${parts[@]}"; do
    counts=("$(count "$log/$part" passed)" "$(count "$log/$part" failed)" "$(count "$log/$part" ignored)")
    echo "$part: ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped"
    [ "${counts[0]}" -gt 0 ] || { echo "error: no test ran in part $part" >&2; status=1; }
    for index in 0 1 2; do total[index]=$((total[index] + counts[index])); done
done
echo "all parts took $((SECONDS - started)) s"
echo "${total[0]} passed, ${total[1]} failed, ${total[2]} skipped"
if [ "${total[2]}" -gt 0 ]; then
    echo "error: no test may be skipped" >&2
    exit 1
fi
exit "$status"
