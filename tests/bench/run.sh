#!/usr/bin/env bash
# Builds and runs the benchmarks of the pipeline. Arguments are passed to the program (`--help`). BENCH_SHORT=1 for a small load.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

# The broker needs only a Java runtime, but Kafka Streams has to be compiled.
if ! command -v javac >/dev/null; then
    install=(apt-get install -y --no-install-recommends openjdk-17-jdk-headless)
    if [ "$(id -u)" -eq 0 ]; then
        DEBIAN_FRONTEND=noninteractive "${install[@]}"
    else
        echo "Kafka Streams needs a Java compiler. Run: sudo ${install[*]}" >&2
        exit 69
    fi
fi
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
mvn -B -q -f "$here/kafka-streams/pom.xml" "-Dbench.target=$target/kafka-streams" package
dist=$(scripts/dist.sh serin serin-bench serin-bench-router)
exec "$dist/serin-bench" --streams "$target/kafka-streams" "$@"
