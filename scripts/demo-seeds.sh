#!/usr/bin/env bash
# Runs the demo with five seeds on the embedded log and five on Kafka. Fails when a run does not end as expected.
set -euo pipefail
cd "$(dirname "$0")/.."
serin="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/serin/target}/release/serin"
bad=0

show() { # prints one line per rollout of the JSON on standard input
    python3 -c '
import json, sys
for r in json.load(sys.stdin)["rollouts"]:
    print("   {stable} -> {canary}: {outcome:12} {metric} {segment}".format(metric=r["reason"]["metric"], segment=r["reason"]["segment"], **{k: r[k] for k in ("stable", "canary", "outcome")}))'
}

for seed in 1 2 3 4 5; do
    for log in embedded kafka; do
        echo "seed $seed, $log"
        result=$(mktemp)
        if [ "$log" = embedded ]; then
            "$serin" demo --seed "$seed" --output json >"$result" || bad=1
        else
            scripts/demo-kafka.sh --seed "$seed" --output json >"$result" || bad=1
        fi
        show <"$result"
        rm -f "$result"
    done
done
[ "$bad" = 0 ] && echo "all runs ended as expected"
exit "$bad"
