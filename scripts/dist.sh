#!/usr/bin/env bash
# Builds binaries as they are shipped: one unit, link-time optimised, and laid out by a profile of a Serin at work
# (scripts/profile.sh takes it). Arguments are the names of the binaries; the last line printed is the folder they are in.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "${CARGO_TARGET_DIR:-target}"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

# A profile names functions as one compiler names them. With another one it does no harm, and no good either.
flags=${RUSTFLAGS:-}
if [ "$(rustc -vV)" = "$(cat profile/rustc.txt)" ]; then
    # Unpacked once: cargo builds everything anew when the file changes or is newer than what was built.
    profile=$target/profile-$(sha256sum profile/serin.profdata.gz | cut -c1-16).profdata
    if [ ! -e "$profile" ]; then
        gzip -dc profile/serin.profdata.gz >"$profile.new"
        mv "$profile.new" "$profile"
    fi
    flags="$flags -Cprofile-use=$profile"
else
    echo "note: profile/ was taken with $(head -1 profile/rustc.txt), this is $(rustc -V): built without it (make profile takes a new one)" >&2
fi

bins=()
for name in "$@"; do bins+=(--bin "$name"); done
# With the target named, build scripts and macros are built without the flags. Of the whole workspace, so that all that is
# built this way shares them.
RUSTFLAGS=$flags cargo build --profile dist --locked --workspace --target "$host" "${bins[@]}" >&2
echo "$target/$host/dist"
