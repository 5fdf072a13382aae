#!/usr/bin/env bash
# Creates the archive that services/serin/tests/stored.rs opens: the log and the state of a `serin up` of COMMIT, stopped in the middle
# of three rollouts. Builds that commit in a separate directory, which takes as long as a full build.
#
#   scripts/stored-log.sh COMMIT            writes services/serin/tests/stored/COMMIT.tar.gz
#   SERIN_STORED_BY=BINARY scripts/stored-log.sh COMMIT    the same with an existing binary of that commit
set -euo pipefail
cd "$(dirname "$0")/.."
commit=${1:?which commit?}
if [ -z "${SERIN_STORED_BY:-}" ]; then
    tree=$(mktemp -d)
    trap 'git worktree remove --force "$tree"' EXIT
    git worktree add --detach "$tree" "$commit"
    CARGO_TARGET_DIR=$tree/target cargo build --release --locked --package serin --manifest-path "$tree/Cargo.toml"
    SERIN_STORED_BY=$tree/target/release/serin
fi
export SERIN_STORED_BY SERIN_STORED_AS=$commit
cargo test --release --locked --package serin --test stored
ls -l "services/serin/tests/stored/$commit.tar.gz"
