#!/usr/bin/env bash
# The web page that the controller serves. Its built files are committed in console/dist, so that cargo needs no Node.
#
#   scripts/console.sh                format the sources and build console/dist
#   scripts/console.sh --check        check format and types, and that console/dist is what the sources give
#   scripts/console.sh --test SERIN   test it in Chromium: against a mock controller, and against this binary
#   scripts/console.sh --pictures     take the screenshots of docs/images
#   scripts/console.sh --bench        measure it in Chromium
set -euo pipefail
cd "$(dirname "$0")/../console"

command -v npm >/dev/null || {
    echo "error: Node.js is missing: install version 20 or later, with npm (Debian: nodejs and npm)" >&2
    exit 1
}
# npm writes this file after each installation.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
fi

case "${1:-}" in
    "")
        npx prettier --write --log-level warn .
        npx tsc --noEmit
        node build.mjs
        ;;
    --check)
        npx prettier --check --log-level warn .
        npx tsc --noEmit
        built=$(mktemp -d)
        trap 'rm -rf "$built"' EXIT
        node build.mjs "$built"
        diff -rq dist "$built" || {
            echo "error: console/dist is not what the sources give: run scripts/console.sh and commit the result" >&2
            exit 1
        }
        ;;
    --test)
        [ -x "${2:-}" ] || {
            echo "error: give the serin binary: scripts/console.sh --test target/release/serin" >&2
            exit 1
        }
        SERIN_BINARY=$(realpath "$2") node --test tests/*.test.mjs
        ;;
    --pictures)
        node tests/screenshots.mjs ../docs/images
        ;;
    --bench)
        node tests/bench.mjs
        ;;
    *)
        sed -n '2,9p' ../scripts/console.sh >&2
        exit 1
        ;;
esac
