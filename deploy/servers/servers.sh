#!/usr/bin/env bash
# The real servers that Hongyan runs on, on this machine, without containers.
#
#   servers.sh up [SERVER...]       installs, starts and checks; what runs already is only checked
#   servers.sh down [SERVER...]     ends what up started, by pid
#   servers.sh status [SERVER...]   what runs where
#   servers.sh reset [SERVER...]    removes the data of servers that are down
#   servers.sh start|kill INSTANCE  one process, for tests that break things: kill is SIGKILL
#   servers.sh pid INSTANCE
#   servers.sh sql INSTANCE SQL     as root, on a MySQL or MariaDB
#
# SERVER: mysql tidb rocketmq redis etcd (the whole set), mariadb. Each has a file in lib/, its
# settings in conf/, its versions and ports in set.env.
#
#   SERVERS_STATE   data, logs, pids and servers.env  ${XDG_STATE_HOME:-~/.local/state}/hongyan/servers
#   SERVERS_CACHE   what was downloaded and built     ${XDG_CACHE_HOME:-~/.cache}/hongyan/servers
#   SERVERS_OFFSET  added to every port: with a SERVERS_STATE of its own, a second set
#   SERVERS_SHARDS  of MySQL and MariaDB: 2, or 1     a pair is enough for most tests
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STATE=${SERVERS_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/hongyan/servers}
CACHE=${SERVERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hongyan/servers}
SET=(rocketmq mysql tidb redis etcd) # the slowest to start comes first
KNOWN=("${SET[@]}" mariadb)

for file in "$HERE"/lib/*.sh; do
	# shellcheck source=/dev/null
	. "$file"
done

up() {
	local server instance began=$SECONDS
	for server; do "${server}_install"; done
	for server; do
		for instance in $("${server}_instances"); do start "$instance"; done
	done
	for server; do
		for instance in $("${server}_instances"); do await "$instance"; done
		"${server}_join"
		"${server}_check"
	done
	write_env
	status "$@"
	echo
	echo "All answered, with their settings checked, after $((SECONDS - began)) s."
	echo "Addresses for tests: $STATE/servers.env; logs: $STATE/*/log"
}

down() {
	local server group
	for server; do
		for group in $("${server}_instances" | sed 's/-[^-]*$//' | sort -u); do stop_group "$server" "$group" & done
	done
	wait
	write_env
	for server; do
		# shellcheck disable=SC2046 # names without spaces
		! any_runs $("${server}_instances") || fail "some of $server still runs"
	done
}

# stop_group SERVER GROUP: one after the other, the last started first. So a MySQL source goes
# before its replica: without one it would answer commits that wait for it as if they had it.
stop_group() {
	local instance
	for instance in $("$1_instances" | grep "^$2" | tac); do stop "$instance"; done
}

status() {
	local server instance pid state memory
	printf '%-18s %-20s %-12s %8s %8s  %s\n' INSTANCE VERSION STATE PID MEMORY ADDRESS
	for server; do
		for instance in $("${server}_instances"); do
			pid=$(pid_of "$instance") memory=
			if [ -z "$pid" ]; then
				state=down
			else
				memory=$(awk '/^VmRSS/ { printf "%d MB", $2 / 1024 }' "/proc/$pid/status")
				if ready "$instance"; then state=ready; else state="no answer"; fi
			fi
			printf '%-18s %-20s %-12s %8s %8s  %s\n' "$instance" "$(version "$instance")" "$state" "${pid:--}" \
				"${memory:--}" "$(address "$instance")"
		done
	done
}

reset() {
	local server instance
	for server; do
		for instance in $("${server}_instances"); do
			[ -z "$(pid_of "$instance")" ] || fail "$instance runs: servers.sh down $server first"
			rm -rf "$(dir "$instance")"
		done
	done
}

# write_env: the addresses of what runs, for tests to source.
write_env() {
	local server file=$STATE/servers.env
	{
		echo "# Written by $HERE/servers.sh: what runs on this machine."
		for server in "${KNOWN[@]}"; do
			# shellcheck disable=SC2046 # names without spaces
			if any_runs $("${server}_instances"); then "${server}_env"; fi
		done
	} >"$file.new"
	mv "$file.new" "$file"
}

any_runs() {
	local instance
	for instance; do [ -z "$(pid_of "$instance")" ] || return 0; done
	return 1
}

# chosen NAMES...: the servers that were named, the whole set if none was.
chosen() {
	local name
	for name; do
		[[ " ${KNOWN[*]} " == *" $name "* ]] || fail "no server \"$name\": there are ${KNOWN[*]}"
	done
	if [ $# -gt 0 ]; then echo "$*"; else echo "${SET[*]}"; fi
}

# running NAMES...: the servers that were named, else those that have ever been started.
running() {
	local server instance names=()
	[ $# -eq 0 ] || chosen "$@"
	[ $# -eq 0 ] || return 0
	for server in "${KNOWN[@]}"; do
		for instance in $("${server}_instances"); do
			[ ! -e "$(dir "$instance")" ] || { names+=("$server") && break; }
		done
	done
	echo "${names[*]}"
}

# locked: one caller at a time. The servers do not inherit the lock.
locked() {
	mkdir -p "$STATE" "$CACHE"
	exec 9>"$STATE/lock"
	flock -n 9 || { say "another servers.sh is at work on $STATE: waiting" && flock 9; }
}

main() {
	local command=${1:-help}
	[ $# -eq 0 ] || shift
	[ -d /proc/self ] || fail "this needs Linux; elsewhere use deploy/compose.yaml"
	settings
	local names
	case $command in
	up)
		names=$(chosen "$@")
		locked
		;;
	down | reset)
		names=$(running "$@")
		locked
		;;
	status)
		names=$(running "$@")
		names=${names:-${SET[*]}}
		;;
	start | kill | pid | sql)
		instance_command "$command" "${1:-}" "${2:-}"
		return
		;;
	--step) # see fetch in lib/fetch.sh
		"$@"
		return
		;;
	*)
		sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		return
		;;
	esac
	# shellcheck disable=SC2086 # several names
	$command $names
}

# instance_command COMMAND INSTANCE [SQL]: for tests.
instance_command() {
	local server=${2%%-*}
	chosen "$server" >/dev/null
	[[ " $("${server}_instances" | tr '\n' ' ') " == *" $2 "* ]] ||
		fail "no instance \"$2\": there are" "$("${server}_instances")"
	case $1 in
	start)
		locked
		start "$2"
		await "$2"
		;;
	kill) end "$2" KILL ;;
	pid) pid_of "$2" ;;
	sql)
		[ "$server" = mysql ] || [ "$server" = mariadb ] || fail "$server speaks no SQL here"
		ask "$2" "$3"
		;;
	esac
}

main "$@"
