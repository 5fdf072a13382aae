#!/usr/bin/env bash
# Runs every property test with new cases: PROPTEST_CASES each, generated from PROPTEST_RNG_SEED, which is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${PROPTEST_CASES:-2000} PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$RANDOM$RANDOM}
repeat="to repeat: PROPTEST_CASES=$PROPTEST_CASES PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED make properties"
echo "$repeat"
trap 'echo "$repeat"' ERR
# The name of a property is the word after `fn` in a `proptest!` block.
mapfile -t names < <(git grep -hl 'proptest!' -- '*.rs' | xargs perl -0777 -ne '
    while (/\bproptest!\s*(\{(?:[^{}]++|(?1))*\})/g) { my $block = $1; print "$1\n" while $block =~ /#\[test\]\s*fn (\w+)/g }')
cargo test --release --locked --workspace --lib --tests --no-fail-fast -- "${names[@]}"
echo "${#names[@]} properties held"
