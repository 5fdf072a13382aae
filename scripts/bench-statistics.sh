#!/usr/bin/env bash
# Runs the benchmarks of sketches and statistics and the analyzer's cost example, and prints medians with their targets.
# `--table` only prints the results of the last run.
set -euo pipefail
cd "$(dirname "$0")/.."
results="${CARGO_TARGET_DIR:-target}/criterion"

if [ "${1:-}" != --table ]; then
    cargo bench --locked --package serin-sketches --package serin-statistics --bench sketches --bench windows -- --warm-up-time 1 --measurement-time 2
fi

median() { # nanoseconds of one benchmark
    local folder="$results/$1"
    [ -d "$folder" ] || folder="$results/${1//\//_}" # a benchmark without a group
    sed -E 's/.*"median":\{"confidence_interval":\{[^}]*\},"point_estimate":([0-9.e+-]+).*/\1/' "$folder/new/estimates.json"
}

row() { # NAME BENCHMARK UNIT TARGET: UNIT is M/s (of 1000 values per run), ns, us or ms; "-" means no target
    median "$2" | awk -v name="$1" -v unit="$3" -v target="$4" '{
        value = unit == "M/s" ? 1e6 / $1 : unit == "ns" ? $1 : unit == "us" ? $1 / 1e3 : $1 / 1e6
        met = target == "-" ? "" : (unit == "M/s" ? value >= target : value <= target) ? "met" : "MISSED"
        sign = target == "-" ? "" : unit == "M/s" ? ">= " target : "<= " target
        printf "%-44s %9.2f %-4s %-8s %s\n", name, value, unit, sign, met
    }'
}

printf '%-44s %9s %-4s %s\n' what median "" target
row "insert, log histogram" insert/log_hist M/s 80
row "insert, linear histogram (dithered)" insert/lin_hist M/s -
row "insert, capped histogram (dithered)" insert/capped_hist M/s -
row "insert, bucket sums" insert/buckets M/s -
row "insert, class counts (10 classes)" insert/class_counts M/s -
row "insert, t-digest (display; batches of 1000)" insert/digest M/s -
row "merge, log histogram of 10^6 values" merge/log_hist ns 1000
row "encode, the same" encode/log_hist ns -
row "decode, the same" decode/log_hist ns -
row "window, b2 (rate)" window/b2 us 10
row "window, b2 with a relative margin" "window/b2 relative" us 10
row "window, b1 (rate against a limit)" window/b1 us 10
row "window, m2 (mean)" window/m2 us 10
row "window, m1 (mean against a limit)" window/m1 us 10
row "window, m2w (capped mean)" window/m2w us 10
row "window, q2 (quantile)" window/q2 us 10
row "window, d2 (distribution: 26 processes)" window/d2 us -
row "window, c2 (10 classes: 22 processes)" "window/c2 of 10" us -
row "window, 2000 hypotheses (b2, b2, q2, m2)" "2000 hypotheses" ms 50
row "estimates and intervals of the 2000" "estimates of 2000" ms -

if [ "${1:-}" != --table ]; then
    echo
    echo "through the analyzer (decode, merge, judge, verdict, rows); targets: 2000 hypotheses 50 ms, 10 000 rollouts 10 000 ms"
    cargo build --release --locked --package serin-analyzer --example cost
    "${CARGO_TARGET_DIR:-target}/release/examples/cost" 503 30
    "${CARGO_TARGET_DIR:-target}/release/examples/cost" 3 5 10000
fi
