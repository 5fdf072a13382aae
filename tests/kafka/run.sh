#!/usr/bin/env bash
# Runs one Apache Kafka node (broker and controller, KRaft) on the loopback interface, in the foreground.
#
#   run.sh [--port N] [--controller-port N] [--data DIR] [--heap SIZE] [--set KEY=VALUE]... [--cluster ID] [--stop-with-parent]
#
#   --port N             the port for clients (default 9092)
#   --controller-port N  the controller's port (default: the port after that)
#   --data DIR           keep the data in DIR; run again with the same ports to reuse it
#                        (default: a new temporary directory, removed at the end)
#   --heap SIZE          Java heap (default 256m)
#   --set KEY=VALUE      any further broker property; @PORT@, @CONTROLLER_PORT@ and @DATA@ are filled in
#   --scram NAME=SECRET  a user for SCRAM-SHA-512, if a listener accepts it; applies to new data only
#   --cluster ID         one of several nodes of the cluster with this id (22 characters of base64); --set node.id and
#                        controller.quorum.voters, the same voters for all nodes
#   --stop-with-parent   for programs: this process becomes the node. It is killed and its data removed when its standard
#                        input ends before a line is read from it. So a parent that holds the other end cannot leave a
#                        broker behind, even if it is killed
#
# Prints "bootstrap.servers=127.0.0.1:N" when the node is ready; logs go to standard error. Ctrl-C or SIGTERM stops it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { printf 'run.sh: %s (see run.sh --help)\n' "$1" >&2; exit 64; }
number() { [[ $2 =~ ^[0-9]+$ && $2 -ge 1 && $2 -le 65535 ]] || fail "$1 wants a port number, not '$2'"; }

port=9092 controller_port='' data='' heap=256m settings=() users=() cluster='' stop_with_parent=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --stop-with-parent) stop_with_parent=yes; shift; continue ;;
        --port | --controller-port | --data | --heap | --set | --scram | --cluster) [ $# -ge 2 ] || fail "$1 wants a value" ;;
        *) fail "unknown argument '$1'" ;;
    esac
    case $1 in
        --port) number "$1" "$2"; port=$2 ;;
        --controller-port) number "$1" "$2"; controller_port=$2 ;;
        --data) data=$2 ;;
        --heap) [[ $2 =~ ^[0-9]+[mMgG]$ ]] || fail "--heap wants a size such as 256m, not '$2'"; heap=$2 ;;
        --set) [[ $2 == ?*=* ]] || fail "--set wants KEY=VALUE, not '$2'"; settings+=("$2") ;;
        --cluster) [[ $2 =~ ^[A-Za-z0-9_-]{22}$ ]] || fail "--cluster wants 22 characters of base64, not '$2'"; cluster=$2 ;;
        --scram)
            [[ $2 == ?*=?* ]] || fail "--scram wants NAME=SECRET"
            users+=(--add-scram "SCRAM-SHA-512=[name=${2%%=*},password=${2#*=}]")
            ;;
    esac
    shift 2
done
controller_port=${controller_port:-$((port + 1))}
number --controller-port "$controller_port"

classpath=$("$here/classpath.sh")
classpath=$(<"$classpath")

temporary=''
node=''
clean_up() {
    if [ -n "$node" ]; then kill -TERM "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; fi
    if [ -n "$temporary" ]; then rm -rf "$temporary"; fi
}
trap clean_up EXIT
trap 'exit 0' INT TERM
if [ -z "$data" ]; then
    data=$(mktemp -d "${TMPDIR:-/tmp}/serin-kafka.XXXXXX")
    temporary=$data
fi
mkdir -p "$data/tmp"
data=$(cd "$data" && pwd)

{ cat "$here/server.properties"; printf '%s\n' ${settings[@]+"${settings[@]}"}; } |
    sed -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$controller_port|g" -e "s|@DATA@|$data|g" >"$data/server.properties"

# Optimized for a fast start and little memory, not for long runs: only the first compiler, the simplest collector.
jvm=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -Djava.awt.headless=true "-Djava.io.tmpdir=$data/tmp"
    "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$classpath")

if [ ! -e "$data/log/meta.properties" ]; then
    quorum=()
    if [ -z "$cluster" ]; then
        cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22)
        quorum=(--standalone)
    fi
    "${jvm[@]}" -Xmx64m kafka.tools.StorageTool format ${quorum[@]+"${quorum[@]}"} -t "$cluster" -c "$data/server.properties" \
        ${users[@]+"${users[@]}"} >&2
fi
server=("${jvm[@]}" "-Xms$heap" "-Xmx$heap" kafka.Kafka "$data/server.properties")

if [ -n "$stop_with_parent" ]; then
    # The watcher reads the standard input of this script; `exec` then turns this process, with the same id $$, into the node.
    exec 3<&0
    (
        trap - EXIT INT TERM
        if ! read -r _ <&3; then
            kill -KILL $$ 2>/dev/null || true
            for _ in {1..50}; do kill -0 $$ 2>/dev/null || break; sleep 0.1; done
            rm -rf "$data"
        fi
    ) &
    exec "${server[@]}" </dev/null 3<&-
fi

"${server[@]}" &
node=$!
# The port opens only when the node is ready.
until (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$node" 2>/dev/null || { node=''; echo "run.sh: the node ended before it was ready; its messages are above" >&2; exit 1; }
    sleep 0.1
done
echo "bootstrap.servers=127.0.0.1:$port"
wait "$node"
