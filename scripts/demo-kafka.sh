#!/usr/bin/env bash
# Runs the demo on a real Apache Kafka, with one process per role. The script starts the broker and stops it at the end.
# Arguments are passed to `serin demo`. SERIN_TEST_BROKERS selects another cluster instead.
set -euo pipefail
cd "$(dirname "$0")/.."
serin="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/serin/target}/release/serin"

if [ -n "${SERIN_TEST_BROKERS:-}" ]; then
    exec "$serin" demo --kafka "$SERIN_TEST_BROKERS" "$@"
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
output=$(mktemp)
port=$(free_port)
echo "starting Apache Kafka on port $port ..." >&2
tests/kafka/run.sh --port "$port" --controller-port "$(free_port)" >"$output" 2>"$output.log" &
broker=$!
stop() {
    kill "$broker" 2>/dev/null || true
    wait "$broker" 2>/dev/null || true
    rm -f "$output" "$output.log"
}
trap stop EXIT
for _ in $(seq 600); do
    grep -q '^bootstrap.servers=' "$output" && break
    kill -0 "$broker" 2>/dev/null || { echo "error: Kafka did not start:" >&2; tail -20 "$output.log" >&2; exit 1; }
    sleep 0.2
done
brokers=$(sed -n 's/^bootstrap.servers=//p' "$output")
[ -n "$brokers" ] || { echo "error: Kafka did not start within two minutes" >&2; exit 1; }
"$serin" demo --kafka "$brokers" "$@"
