# shellcheck shell=bash
# Processes: an instance is one process with a directory of its own, which holds its data, its
# configuration, its log and its pid.

say() { printf '%s %s\n' "$(date +%T)" "$*"; }

fail() {
	printf 'servers.sh: %s\n' "$*" >&2
	exit 1
}

# said TEXT: what another program printed, set off.
said() { [ -z "$1" ] || printf '%s\n' "$1" | sed 's/^/    | /' >&2; }

need() {
	local program
	for program; do
		command -v "$program" >/dev/null || fail "$program is needed and not here"
	done
}

# settings: reads set.env; the environment goes first. Ports get the offset.
settings() {
	local name value offset=${SERVERS_OFFSET:-0}
	while IFS='=' read -r name value; do
		[ -n "${!name-}" ] || printf -v "$name" %s "$value"
		[[ $name != *_PORT ]] || printf -v "$name" %d $((${!name} + offset))
	done < <(grep -v '^#' "$HERE/set.env" | grep .)
}

dir() { echo "$STATE/$1"; }

# birth PID: when the kernel started it, in ticks; nothing if it is gone, or a zombie without
# threads: as long as one of them ends, ports are still held.
birth() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	# shellcheck disable=SC2086 # the fields after the name, which may hold anything
	set -- ${stat##*) }
	[ "$1" = Z ] && [ "${18}" -le 1 ] || echo "${20}"
}

# pid_of INSTANCE: nothing unless the very process that was started still runs; its number
# alone may be another's by now.
pid_of() {
	local pid born
	read -r pid born 2>/dev/null <"$(dir "$1")/pid" || return 0
	[ -z "$born" ] || [ "$(birth "$pid")" != "$born" ] || echo "$pid"
}

# The server of an instance is the first word of its name; its functions are named after it.
ready() { "${1%%-*}_ready" "$1" >/dev/null 2>&1; }
address() { echo "127.0.0.1:$(ports "$1" | awk '{ print $1 }')"; }
ports() { "${1%%-*}_ports" "$1"; }
version() { cat "$(dir "$1")/version" 2>/dev/null || echo -; }

# start INSTANCE: unless it runs.
start() {
	local port
	[ -z "$(pid_of "$1")" ] || return 0
	for port in $(ports "$1"); do
		if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			fail "$1 cannot start: port $port is taken by another program. Give it another one (set.env), or SERVERS_OFFSET to all"
		fi
	done
	mkdir -p "$(dir "$1")"
	"${1%%-*}_start" "$1"
}

# launch INSTANCE COMMAND...: in the background, in a session of its own, in its directory.
launch() {
	local directory
	directory=$(dir "$1")
	say "$1: starting on $(address "$1")"
	shift
	(cd "$directory" && exec setsid "$@") >>"$directory/log" 2>&1 </dev/null 9>&- &
	echo "$! $(birth $!)" >"$directory/pid"
}

# await INSTANCE: until it answers.
await() {
	local instance=$1 limit=$((SECONDS + 180))
	until ready "$instance"; do
		[ -n "$(pid_of "$instance")" ] || gone "$instance" "ended instead of starting"
		[ $SECONDS -lt $limit ] || gone "$instance" "has not answered for 180 s"
		sleep 0.1
	done
}

# gone INSTANCE WHAT: why it is not there.
gone() {
	"${1%%-*}_ready" "$1" >/dev/null || true
	said "$(tail -n 8 "$(dir "$1")/log")"
	fail "$1 $2: $(dir "$1")/log"
}

# stop INSTANCE: asks it to end, and ends it if it has not within 30 s.
stop() {
	local instance=$1
	[ -n "$(pid_of "$instance")" ] || return 0
	say "$instance: stopping"
	end "$instance" TERM || { say "$instance: still there after 30 s: killing it" && end "$instance" KILL; }
}

# end INSTANCE SIGNAL: sends it and waits for the end.
end() {
	local pid limit=$((SECONDS + 30))
	pid=$(pid_of "$1")
	[ -n "$pid" ] || return 0
	kill "-$2" "$pid" 2>/dev/null || true
	while [ -n "$(pid_of "$1")" ]; do
		[ $SECONDS -lt $limit ] || return 1
		sleep 0.05
	done
	rm -f "$(dir "$1")/pid"
}

# http PORT PATH: the body of the answer.
http() (
	exec 3<>"/dev/tcp/127.0.0.1/$1"
	printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
	timeout 5 cat <&3 | sed '1,/^\r*$/d'
)

# expect INSTANCE WHAT VALUE WANTED: a setting that a promise needs.
expect() { [ "$3" = "$4" ] || fail "$1: $2 is \"$3\", it must be \"$4\""; }
