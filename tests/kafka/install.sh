#!/usr/bin/env bash
# Installs the dependencies of the tests' Kafka: Java 17 or newer and Maven. Does nothing when both are installed.
# Uses apt-get as root or with sudo. Otherwise it prints the command and ends with an error.
set -euo pipefail

java_major() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }

packages=()
if [ "$(java_major || true)" = '' ] || [ "$(java_major)" -lt 17 ]; then
    # Debian 12 and Ubuntu have a package for version 17; newer releases have only a newer default.
    if apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
        packages+=(openjdk-17-jre-headless)
    else
        packages+=(default-jre-headless)
    fi
fi
command -v mvn >/dev/null || packages+=(maven)
[ ${#packages[@]} -gt 0 ] || exit 0

install=(apt-get install -y --no-install-recommends "${packages[@]}")
if ! command -v apt-get >/dev/null; then
    echo "The tests against Apache Kafka need Java 17 or newer and Maven. Install both with this system's package manager" >&2
    echo "(on Debian or Ubuntu: apt-get install ${packages[*]}), then try again." >&2
    exit 69
elif [ "$(id -u)" -eq 0 ]; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive "${install[@]}"
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n apt-get update -q && sudo -n DEBIAN_FRONTEND=noninteractive "${install[@]}"
else
    echo "The tests against Apache Kafka need ${packages[*]}, and this user may not install packages. Run:" >&2
    echo "    sudo apt-get update && sudo ${install[*]}" >&2
    exit 69
fi
