#!/usr/bin/env bash
# Proves the dependency invariants of ARCHITECTURE.md with `cargo tree`.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

tree() { cargo tree --locked --edges normal --prefix none --format '{p}' --package "$1" | awk '{ print $1 }' | sort -u; }

# forbid PACKAGE CRATE...: PACKAGE must not depend on any CRATE, directly or not.
forbid() {
    local package=$1 found
    shift
    found=$(tree "$package" | grep -Fx "$(printf '%s\n' "$@")" || true)
    if [ -n "$found" ]; then
        echo "error: $package must not depend on: $(echo "$found" | tr '\n' ' ')" >&2
        bad=1
    fi
}

# The same for direct dependencies only: the Avro library has its own random source (for the markers of its file format).
forbid_direct() {
    local package=$1 found
    shift
    found=$(cargo tree --locked --edges normal --depth 1 --prefix none --format '{p}' --package "$package" |
        awk '{ print $1 }' | grep -Fx "$(printf '%s\n' "$@")" || true)
    if [ -n "$found" ]; then
        echo "error: $package must not depend directly on: $(echo "$found" | tr '\n' ' ')" >&2
        bad=1
    fi
}

native=(rdkafka rdkafka-sys rocksdb librocksdb-sys)
services=(serin-router serin-intake serin-aggregator serin-analyzer serin-controller serin-connector)
for package in serin-sketches serin-statistics; do
    forbid "$package" tokio rand getrandom uuid "${native[@]}" serin-stream serin-spec "${services[@]}"
done
forbid serin-kinds tokio "${native[@]}" serin-stream serin-rollout "${services[@]}"
forbid serin-doors tokio "${native[@]}" serin-stream serin-rollout "${services[@]}"
forbid serin-insight tokio "${native[@]}" serin-stream serin-rollout "${services[@]}"
forbid serin-access tokio hyper axum "${native[@]}" serin-stream "${services[@]}"
# Folds and routers know the types of the rollout file, not how it is read, checked or judged.
for package in serin-router serin-intake serin-aggregator serin-listener; do
    forbid "$package" serin-rollout serin-statistics
done
forbid serin-spec tokio "${native[@]}" serin-stream serin-kinds serin-statistics serin-rollout "${services[@]}"
forbid serin-rollout tokio "${native[@]}" serin-stream "${services[@]}"
for package in serin-intake serin-aggregator serin-analyzer; do
    forbid "$package" tokio hyper "${native[@]}"
done
for package in serin-spec serin-kinds serin-rollout serin-insight serin-doors serin-intake serin-aggregator serin-analyzer; do
    forbid_direct "$package" rand getrandom
done
for package in serin-router serin-controller serin-connector; do
    forbid "$package" "${native[@]}"
done
for package in "${services[@]}"; do
    for other in "${services[@]}"; do
        [ "$package" = "$other" ] || forbid "$package" "$other"
    done
done

# Folds and pure crates take time and randomness as arguments: clippy refuses clocks and random sources where this file is linked.
for folder in schemas topology crates/{access,sketches,kinds,statistics,spec,rollout,insight,doors} services/{intake,aggregator,analyzer}; do
    if [ ! "$folder/clippy.toml" -ef clippy-pure.toml ]; then
        echo "error: $folder/clippy.toml must be a link to clippy-pure.toml" >&2
        bad=1
    fi
done
[ "$bad" = 0 ] && echo "dependency invariants hold"
exit "$bad"
