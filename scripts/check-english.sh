#!/usr/bin/env bash
# Refuses the phrases of the table in the English section of CONTRIBUTING.md, in all text except recorded data.
set -euo pipefail
cd "$(dirname "$0")/.."

phrases=$(sed -n '/^## English/,/^## /s/^| `\([^`]*\)` |.*/\1/p' CONTRIBUTING.md)
[ -n "$phrases" ] || { echo "error: CONTRIBUTING.md has no table of phrases to avoid" >&2; exit 1; }
bad=0
while read -r phrase; do
    # "there is no X" and "is no longer" are ordinary English.
    pattern="\\b${phrase}\\b"
    [ "$phrase" != "is no" ] || pattern='(?<![Tt]here )\bis no (?!longer\b|more\b)'
    # Not the table itself, recorded data, stored names (serde), or serialized state in tests.
    found=$(git grep -nIiP "$pattern" -- '*.rs' '*.md' '*.sh' '*.py' '*.yaml' '*.yml' '*.toml' ':!CONTRIBUTING.md' ':!**/data/**' |
        grep -vE 'serde\(rename|assert_snapshot!\(serde_json' || true)
    if [ -n "$found" ]; then
        echo "error: \"$phrase\" is a phrase to avoid; see the English section of CONTRIBUTING.md:" >&2
        cut -c1-200 <<<"$found" >&2
        bad=1
    fi
done <<<"$phrases"
[ "$bad" = 0 ] && echo "no phrase to avoid was found"
exit "$bad"
