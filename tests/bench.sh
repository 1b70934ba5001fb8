#!/bin/sh
# The figures of docs/performance.md on this machine, as markdown tables on stdout. Each run
# has a server of its own; every message is checked by its receiver. A run that finds a loss
# ends the script.
#
#   make bench                       10 s a run
#   DURATION=3s CONNS=1000 tests/bench.sh
set -eu
cd "$(dirname "$0")/.."

bin=bin/hongyan
duration=${DURATION:-10s}
conns=${CONNS:-10000}

[ -x $bin ] || { echo "tests/bench.sh: no $bin: run make build" >&2; exit 1; }

# bench ARGS...: one run; its JSON stays in $result.
bench() {
	printf 'hongyan bench %s\n' "$*" >&2
	result=$($bin bench "$@" --embedded --duration "$duration" --json) || {
		printf '%s\ntests/bench.sh: that run failed\n' "$result" >&2
		exit 1
	}
}

# figure KEY [FORMAT [DIVISOR]]: a number of the last run.
figure() {
	printf '%s\n' "$result" | awk -v key="$1" -v format="${2:-%.0f}" -v by="${3:-1}" '
		match($0, "\"" key "\":[-+.0-9eE]+") {
			value = substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
			printf format, value / by
			found = 1
		}
		END { if (!found) printf "-" }'
}

pairs() { # TITLE ARGS...
	title=$1
	shift
	bench pairs --pairs 200 "$@"
	printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$title" \
		"$(figure acked_per_s)" "$(figure delivered_per_s)" \
		"$(figure ack_p50_ms %.2f)" "$(figure ack_p99_ms %.2f)" \
		"$(figure e2e_p50_ms %.2f)" "$(figure e2e_p99_ms %.2f)" \
		"$(figure server_cpu_us_per_msg %.1f)"
}

idle() { # TRANSPORT
	bench idle --transport "$1" --conns "$conns"
	printf '| %s | %s | %s | %s | %s |\n' "$1" "$(figure conns)" "$(figure bytes_per_conn %.1f 1024)" \
		"$(figure core_percent %.1f)" "$(figure logins_per_s)"
}

printf '%s, %s cores, %s, %s a run, %s\n\n' "$(uname -sm)" "$(nproc 2>/dev/null || sysctl -n hw.ncpu)" \
	"$(go env GOVERSION)" "$duration" "$(git rev-parse --short HEAD 2>/dev/null || echo unversioned)"

echo '| `pairs`, 200 pairs | acked/s | delivered/s | ack p50 ms | ack p99 ms | end to end p50 ms | end to end p99 ms | server CPU us/message |'
echo '|---|---|---|---|---|---|---|---|'
pairs 'window 1' --window 1
pairs 'window 32' --window 32
pairs '1,000 a second' --rate 1000
pairs '3,000 a second' --rate 3000
pairs '10,000 a second' --rate 10000

echo
echo '| `idle` | connections | KiB of server memory each | % of a core | logins/s |'
echo '|---|---|---|---|---|'
idle tcp
idle ws
