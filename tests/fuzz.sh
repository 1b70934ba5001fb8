#!/bin/sh
# Runs every fuzz target of the tree for DURATION (10s) each: one line a target. Stops at the
# first that fails, with its output and the command that repeats it.
#
#   tests/fuzz.sh [DURATION [PATTERN]]     PATTERN: only those whose file or name matches, e.g. gate/
set -eu
cd "$(dirname "$0")/.."

duration=${1:-10s}
pattern=${2:-.}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

targets=$(grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func / /' | grep -e "$pattern" | sort) || true
[ -n "$targets" ] || { echo "tests/fuzz.sh: no fuzz target like $pattern" >&2; exit 1; }

printf '%s\n' "$targets" | while read -r file name; do
	package=$(dirname "$file")
	if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$package" >"$log" 2>&1; then
		cat "$log"
		repeat=$(sed -n 's/^ *\(go test -run=[^ ]*\)$/\1/p' "$log" | tail -1)
		printf '\nFAIL %s %s\nrepeat: %s %s\n' "$package" "$name" \
			"${repeat:-go test -run ^\$ -fuzz ^$name\$ -fuzztime $duration}" "$package"
		exit 1
	fi
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -1)
	printf 'ok   %-32s %-24s %s executions\n' "$package" "$name" "${execs:-no}"
done
