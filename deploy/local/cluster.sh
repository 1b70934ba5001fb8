#!/usr/bin/env bash
# A whole cluster on this machine: the servers of make servers, and 14 hongyan processes on them.
# docs/cluster.md goes through it.
#
#   cluster.sh up               starts the servers, makes the databases, starts what does not run
#   cluster.sh down             ends the processes; the servers stay (make servers-stop)
#   cluster.sh status           what runs where
#   cluster.sh reset            once it is down: removes its databases, keys and files
#   cluster.sh start|kill NAME  one process, e.g. logic-1: kill is SIGKILL
#
#   CLUSTER_NAME    begins the name of everything it owns on the servers  hongyan_local
#   CLUSTER_STATE   configuration, keys, logs, pids                       data/cluster
#   CLUSTER_OFFSET  added to every port: with another name and state, a second cluster
#   HONGYAN_BIN     the binary                                            bin/hongyan
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SERVERS=$ROOT/deploy/servers/servers.sh
STATE=$(realpath -m "${CLUSTER_STATE:-$ROOT/data/cluster}")
NAME=${CLUSTER_NAME:-hongyan_local}
OFFSET=${CLUSTER_OFFSET:-0}
BINARY=$(realpath -m "${HONGYAN_BIN:-$ROOT/bin/hongyan}")
CONFIG=$STATE/hongyan.yaml

# In the order in which they start. Each may start before what it needs: it waits for it.
PROCESSES=(das-{0,1,2} logic-{0,1,2} jtransit-0 extlogic-{0,1} imui-0 entry-{0,1} httpentry-{0,1})

# Starting, awaiting and ending a process by its pid is done as for the servers.
# shellcheck source=deploy/servers/lib/process.sh
. "$ROOT/deploy/servers/lib/process.sh"

fail() {
	printf 'cluster.sh: %s\n' "$*" >&2
	exit 1
}

# number PROCESS: its place in the list, for ports.
number() {
	local n
	for n in "${!PROCESSES[@]}"; do
		[ "${PROCESSES[n]}" != "$1" ] || { echo "$n" && return; }
	done
	fail "no process \"$1\": there are ${PROCESSES[*]}"
}

# client_port PROCESS: where clients reach it; nothing where they do not.
client_port() {
	case $1 in
	entry-*) echo $((17000 + ${1#*-} + OFFSET)) ;;
	httpentry-*) echo $((18000 + ${1#*-} + OFFSET)) ;;
	esac
}

tier_port() {
	case $1 in
	imui-*) echo $((19000 + OFFSET)) ;; # for internal systems
	*) echo $((19100 + $(number "$1") + OFFSET)) ;;
	esac
}

admin_port() { echo $((19200 + $(number "$1") + OFFSET)); }

ports() { echo "$(client_port "$1") $(tier_port "$1") $(admin_port "$1")"; }

# ready PROCESS: /readyz answers 200.
ready() {
	local line=
	exec 3<>"/dev/tcp/127.0.0.1/$(admin_port "$1")" || return 1
	printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
	IFS= read -r -t 5 line <&3 || true
	exec 3<&-
	[[ $line == *" 200 "* ]]
} 2>/dev/null

# start PROCESS: unless it runs.
start() {
	local port arguments
	[ -z "$(pid_of "$1")" ] || return 0
	for port in $(ports "$1"); do
		if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			fail "$1 cannot start: port $port is taken by another program. CLUSTER_OFFSET moves all of them"
		fi
	done
	mkdir -p "$(dir "$1")"
	arguments=(--config "$CONFIG" --data "$STATE" --rpc-listen "127.0.0.1:$(tier_port "$1")")
	port=$(client_port "$1")
	[ -z "$port" ] || arguments+=(--listen "127.0.0.1:$port")
	HONGYAN_LOG_ADMIN=127.0.0.1:$(admin_port "$1") launch "$1" "$BINARY" "${1%-*}" "${arguments[@]}"
}

# await PROCESS: until it is ready.
await() {
	local limit=$((SECONDS + 120))
	until ready "$1"; do
		if [ -z "$(pid_of "$1")" ] || [ $SECONDS -ge $limit ]; then
			said "$(tail -n 8 "$(dir "$1")/log")"
			fail "$1 is not ready: $(dir "$1")/log"
		fi
		sleep 0.1
	done
}

# configure: deploy/local/hongyan.yaml with the names of this cluster and the servers' addresses.
configure() {
	local shard role variable port edits=(-e "s/hongyan_local/$NAME/g")
	for shard in 0 1; do
		for role in source replica; do
			variable=SERVERS_MYSQL_${shard}_${role^^}
			port=133$shard$([ $role = source ] && echo 6 || echo 7)
			edits+=(-e "s/127.0.0.1:$port/${!variable}/g")
		done
	done
	edits+=(-e "s/127.0.0.1:12379/${SERVERS_ETCD#http://}/" -e "s/127.0.0.1:19876/$SERVERS_ROCKETMQ_NAMESRV/"
		-e "s/127.0.0.1:16379/$SERVERS_REDIS/" -e "s|^data: [^ ]*|data: $STATE|")
	sed "${edits[@]}" "$ROOT/deploy/local/hongyan.yaml" >"$CONFIG"
}

# addresses: of the servers that run.
addresses() {
	local file=${SERVERS_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/hongyan/servers}/servers.env
	[ -e "$file" ] || fail "the servers have not been started: make servers"
	# shellcheck source=/dev/null
	. "$file"
}

up() {
	local process began=$SECONDS
	[ -x "$BINARY" ] || fail "$BINARY is not there: make build"
	"$SERVERS" up mysql rocketmq redis etcd
	addresses
	mkdir -p "$STATE"
	configure
	for process in mysql-0-source mysql-1-source; do
		"$SERVERS" sql $process "CREATE DATABASE IF NOT EXISTS \`$NAME\` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
	done
	"$BINARY" db migrate --config "$CONFIG"
	"$BINARY" token --config "$CONFIG" --uid alice >/dev/null # makes keys.json
	for process in "${PROCESSES[@]}"; do start "$process"; done
	for process in "${PROCESSES[@]}"; do await "$process"; done
	status
	echo
	echo "All ready after $((SECONDS - began)) s. Demo page: http://127.0.0.1:$(client_port httpentry-0)/demo"
	echo "Configuration: $CONFIG; logs: $STATE/*/log"
}

# down: gateways first, so that clients hear of it from them.
down() {
	local n
	for ((n = ${#PROCESSES[@]} - 1; n >= 0; n--)); do stop "${PROCESSES[n]}"; done
}

status() {
	local process pid state memory clients
	printf '%-12s %-10s %8s %8s  %-16s %-16s %s\n' PROCESS STATE PID MEMORY CLIENTS TIERS ADMIN
	for process in "${PROCESSES[@]}"; do
		pid=$(pid_of "$process") state=down memory=- clients=$(client_port "$process")
		if [ -n "$pid" ]; then
			memory=$(awk '/^VmRSS/ { printf "%d MB", $2 / 1024 }' "/proc/$pid/status")
			state="not ready"
			! ready "$process" || state=ready
		fi
		printf '%-12s %-10s %8s %8s  %-16s %-16s %s\n' "$process" "$state" "${pid:--}" "$memory" \
			"${clients:+127.0.0.1:$clients}" "127.0.0.1:$(tier_port "$process")" "127.0.0.1:$(admin_port "$process")"
	done
}

# reset: topics stay, which are empty files, and users of Redis, which expire.
reset() {
	local process key
	for process in "${PROCESSES[@]}"; do
		[ -z "$(pid_of "$process")" ] || fail "$process runs: cluster.sh down first"
	done
	addresses
	for process in mysql-0-source mysql-1-source; do
		"$SERVERS" sql $process "DROP DATABASE IF EXISTS \`$NAME\`"
	done
	# Every key from /NAME/ to /NAME0, which follows it.
	for key in "/$NAME" "$NAME/services"; do
		curl -fsS "$SERVERS_ETCD/v3/kv/deleterange" -o /dev/null \
			-d "{\"key\":\"$(printf %s "$key/" | base64)\",\"range_end\":\"$(printf %s "${key}0" | base64)\"}"
	done
	rm -rf "$STATE"
}

main() {
	local command=${1:-help}
	case $command in
	up | down | reset)
		mkdir -p "$STATE"
		exec 9>"$STATE/lock"
		flock 9
		$command
		;;
	status) status ;;
	start | kill)
		number "${2:-}" >/dev/null
		if [ "$command" = kill ]; then end "$2" KILL; else start "$2" && await "$2"; fi
		;;
	*) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
	esac
}

main "$@"
