#!/usr/bin/env bash
# Runs the release binary under load and prints its memory once a minute: RSS, and bytes by purpose.
#
# Usage: scripts/soak.sh MINUTES [REQUESTS_PER_SECOND] [with|without]
#   with:    a rollout with segments and labels runs all the time (default)
#   without: no rollout runs; every answer still gets a label
# Environment: SERIN (the binary), SOAK_PORT (first of five ports, default 26000).
set -euo pipefail
minutes=${1:?write the minutes to run} rate=${2:-500} rollout=${3:-with}
release=${CARGO_TARGET_DIR:-$HOME/.cache/serin/target}/release
serin=${SERIN:-$release/serin}
port=${SOAK_PORT:-26000}
work=$(mktemp -d)
started=()
finish() {
    for id in "${started[@]}"; do kill "$id" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

cat >"$work/rollout.yaml" <<YAML
apiVersion: serin.dev/v1
kind: Rollout
model: soak
stable: {version: "1", url: "http://127.0.0.1:$((port + 3))", pathVersion: "1"}
canary: {version: "2", url: "http://127.0.0.1:$((port + 3))", pathVersion: "2"}
warmup: {minEvents: 1000}
steps:
  - {weight: 10%, bake: {min: 100d, max: 200d}}
segments: [{name: country, source: {header: x-country}}]
outputs: [{name: score, source: {tensor: score}, min: 0, max: 1}]
metrics:
  - {name: score_mean, kind: {mean: {min: 0, max: 1}}, source: {output: score}, margin: {absolute: 0.02}, segments: [country]}
  - {name: wrong, kind: rate, source: {wrong: {output: score, label: label}}, maturity: 5m, margin: {absolute: 0.05}, segments: [country]}
YAML

"$serin" up --set data_dir="$work/data" --set router.listen=127.0.0.1:"$port" --set router.admin_listen=127.0.0.1:$((port + 1)) \
    --set controller.listen=127.0.0.1:$((port + 2)) --set telemetry.listen=127.0.0.1:$((port + 4)) >"$work/serin.log" 2>&1 &
serin_id=$!
started+=("$serin_id")
until curl -fsS "127.0.0.1:$((port + 1))/readyz" >/dev/null 2>&1; do
    kill -0 "$serin_id" || { tail "$work/serin.log"; exit 1; }
    sleep 0.2
done
SERIN_API="http://127.0.0.1:$((port + 2))" "$serin" apply -f "$work/rollout.yaml" >/dev/null
if [ "$rollout" = without ]; then
    # The router now knows the model, so end the rollout at once.
    SERIN_API="http://127.0.0.1:$((port + 2))" "$serin" abort soak >/dev/null
fi

"$release/examples/soak_load" "$port" "$rate" >"$work/load.log" 2>&1 &
started+=($!)

printf 'minute\trss_mb\tdisk_mb\tcalls (answered/failed)\tmaps (bytes, summed over partitions)\n'
for minute in $(seq 0 "$minutes"); do
    rss=$(awk '/^VmRSS/ {printf "%.0f", $2 / 1024}' "/proc/$serin_id/status")
    disk=$(du -sm "$work/data" | cut -f1)
    calls=$(tail -n 1 "$work/load.log" 2>/dev/null || true)
    maps=$(curl -fsS "127.0.0.1:$((port + 4))/metrics" | awk '
        /^serin_stream_memory_bytes\{/ {
            match($0, /map="[^"]*"/); map = substr($0, RSTART + 5, RLENGTH - 6)
            match($0, /stage="[^"]*"/); stage = substr($0, RSTART + 7, RLENGTH - 8)
            sum[stage "/" map] += $NF
        }
        END { for (name in sum) printf "%s=%d ", name, sum[name] }')
    printf '%s\t%s\t%s\t%s\t%s\n' "$minute" "$rss" "$disk" "${calls:-0}" "$maps"
    [ "$minute" = "$minutes" ] || sleep 60
done
