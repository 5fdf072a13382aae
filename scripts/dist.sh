#!/usr/bin/env bash
# Builds release binaries: one unit, link-time optimized, and laid out by an execution profile of Serin
# (recorded by scripts/profile.sh). Arguments are the names of the binaries; the last line printed is their directory.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

# A profile contains function names of one compiler. With another compiler it has no effect.
flags=${RUSTFLAGS:-}
if [ "$(rustc -vV)" = "$(cat profile/rustc.txt)" ]; then
    # Unpack it once: cargo rebuilds everything when the file changes or is newer than the build.
    profile=$target/profile-$(sha256sum profile/serin.profdata.gz | cut -c1-16).profdata
    if [ ! -e "$profile" ]; then
        gzip -dc profile/serin.profdata.gz >"$profile.new"
        mv "$profile.new" "$profile"
    fi
    flags="$flags -Cprofile-use=$profile"
else
    echo "note: profile/ was recorded with $(head -1 profile/rustc.txt), this is $(rustc -V): building without it (make profile records a new one)" >&2
fi

bins=()
for name in "$@"; do bins+=(--bin "$name"); done
# With an explicit target, build scripts and macros are built without the flags. The whole workspace is built, so that all
# binaries built this way share their dependencies.
RUSTFLAGS=$flags cargo build --profile dist --locked --workspace --target "$host" "${bins[@]}" >&2
echo "$target/$host/dist"
