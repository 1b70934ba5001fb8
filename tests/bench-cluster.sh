#!/bin/sh
# The cluster's figures of docs/performance.md on this machine: the whole cluster on MySQL, MariaDB
# and TiDB, and what a commit costs beside the same rows without fences (the ceiling of the database)
# in the same run. Servers, tiers and generator share the machine.
#
#   make bench-cluster
set -eu
cd "$(dirname "$0")/.."

export SERVERS_STATE="${SERVERS_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/hongyan/servers}"
deploy/servers/servers.sh up rocketmq mysql mariadb tidb redis etcd >&2
set -a
. "$SERVERS_STATE/servers.env"
set +a

export HONGYAN_TEST_FIGURES=1 HONGYAN_TEST_CLUSTER="${HONGYAN_TEST_CLUSTER:-mysql,mariadb,tidb}"
go test -count=1 -v -timeout 20m -run 'TestClusterFigures/(mysql|mariadb|tidb)' ./tests/e2e | grep -E 'acked/s|FAIL|ok'
go test -count=1 -run '^$' -bench 'Commit/.*/message' -benchtime 2s -timeout 20m ./das/store/sql | grep -E 'Benchmark|FAIL|ok'
