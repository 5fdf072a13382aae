#!/usr/bin/env bash
# Prints options of cargo for builds that only have to work, such as those of the tests, one per line: Serin's own crates are compiled with
# fewer optimizations, in half the time. They are named one by one, because third-party code, also that of macros and build scripts, must
# be the same as in every other build: then it is compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    print("--config")
    print("profile.release.package." + package["name"] + ".opt-level=1")'
