#!/usr/bin/env bash
# Prints the name of a file that contains the class path of Apache Kafka (see pom.xml). Maven resolves it once; the result is
# kept in the user's cache directory under the hash of the pom. A lock serializes parallel callers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pom=$here/pom.xml

missing=()
java_major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
[ "${java_major:-0}" -ge 17 ] || missing+=("Java 17 or newer")
command -v mvn >/dev/null || missing+=("Maven")
if [ ${#missing[@]} -gt 0 ]; then
    printf 'Apache Kafka for the tests needs %s.\n' "$(IFS=,; echo "${missing[*]}" | sed 's/,/ and /')" >&2
    printf 'Install it with: %s\n' "$here/install.sh" >&2
    exit 69
fi

cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/serin/kafka
mkdir -p "$cache"
classpath=$cache/$(cksum <"$pom" | tr ' ' '-').classpath

# A class path is valid while every jar in it exists (Maven's repository may have been emptied).
complete() {
    [ -s "$classpath" ] || return 1
    local jar
    while read -r jar; do [ -e "$jar" ] || return 1; done < <(tr ':' '\n' <"$classpath")
}

exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
if ! complete; then
    echo "resolving Apache Kafka with Maven (once)" >&2
    mvn -B -q -f "$pom" dependency:build-classpath -Dmdep.outputFile="$classpath.new" -Dmdep.regenerateFile=true >&2
    echo >>"$classpath.new"
    mv "$classpath.new" "$classpath"
fi
printf '%s\n' "$classpath"
