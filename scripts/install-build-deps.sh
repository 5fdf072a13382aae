#!/usr/bin/env bash
# Installs missing dependencies to build and test Serin: a C++ compiler, cmake, libclang and OpenSSL's headers for the native
# libraries (RocksDB, librdkafka). With --test also Python's venv for the third-party clients and model servers of the tests,
# nginx as a plain server behind the router, Prometheus to scrape Serin, docker-compose to check the compose file, and what
# --console installs. With --bench the proxies that the router is compared with. With --console Node.js and Chromium, to build and
# test the console.
# (tests/kafka/install.sh installs Java and Maven for the tests' Kafka.)
# As root or with sudo it installs the packages; otherwise it prints the exact command and fails.
set -euo pipefail

packages=()
need() { # package, test command
    if ! eval "$2" >/dev/null 2>&1; then packages+=("$1"); fi
}

if ! command -v cargo >/dev/null; then
    echo "error: Rust is missing: install it with rustup (https://rustup.rs), version 1.95 or later" >&2
    exit 1
fi

need g++ 'command -v g++'
need make 'command -v make'
need cmake 'command -v cmake'
need pkg-config 'command -v pkg-config'
need libclang-dev 'ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null | grep -v cpp | grep -q .'
need libssl-dev 'pkg-config --exists openssl'
need zlib1g-dev 'pkg-config --exists zlib'
if [ "${1:-}" = --test ]; then
    need docker-compose 'command -v docker-compose'
    need python3-yaml '/usr/bin/python3 -c "import yaml"'
    need nginx-light 'command -v nginx || test -x /usr/sbin/nginx'
    need prometheus 'command -v prometheus && command -v promtool'
    need python3-venv 'python3 -m venv --help && python3 -c "import ensurepip"'
fi
if [ "${1:-}" = --test ] || [ "${1:-}" = --console ]; then
    need nodejs 'command -v node'
    need npm 'command -v npm'
    need chromium 'command -v chromium || command -v chromium-browser || command -v google-chrome'
fi
if [ "${1:-}" = --bench ]; then
    need haproxy 'command -v haproxy || test -x /usr/sbin/haproxy'
    need nginx-light 'command -v nginx || test -x /usr/sbin/nginx'
    need python3-venv 'python3 -m venv --help && python3 -c "import ensurepip"'
fi

[ ${#packages[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "error: please install the equivalents of these Debian packages: ${packages[*]}" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo=(sudo)
else
    echo "error: packages are missing; run this command, then try again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y ${packages[*]}" >&2
    exit 1
fi
echo "installing: ${packages[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
