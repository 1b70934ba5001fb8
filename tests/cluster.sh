#!/bin/sh
# What needs real servers: the suites of store, queue, presence and control over them, doctor,
# the balancers, and end to end the whole cluster on MySQL and on TiDB, docs/cluster.md. The servers of
# deploy/servers are installed and started if they do not run, and stopped again.
#
#   make test-cluster
#   HONGYAN_TEST_CLUSTER=mysql RUN=TestConversation tests/cluster.sh   end to end alone, some of it
set -eu
cd "$(dirname "$0")/.."

state=${XDG_STATE_HOME:-$HOME/.local/state}/hongyan/servers
ran=no
grep -qs "^SERVERS_" "$state/servers.env" && ran=yes
servers="rocketmq mysql mariadb tidb redis etcd"

stop() {
	[ $ran = yes ] || deploy/servers/servers.sh down $servers
}
trap stop EXIT
# shellcheck disable=SC2086 # a list
deploy/servers/servers.sh up $servers

set -a
. "$state/servers.env"
set +a
export HONGYAN_TEST_REQUIRE_SERVERS=1 HONGYAN_TEST_CHAOS=1
export HONGYAN_TEST_CLUSTER="${HONGYAN_TEST_CLUSTER:-mysql,tidb}"

if [ -z "${RUN:-}" ]; then
	go test -count=1 -p 3 -timeout 20m ./das/store/sql/... ./das/... ./internal/mq/... ./internal/presence/... \
		./internal/control/... ./internal/doctor/... ./deploy/... ./tests/servers/...
fi
go test -C deploy/helm/check -count=1 ./...
# What stands on embedded parts alone was run by make test.
embedded='TestMistakes|TestDev|TestEverySubcommand|TestConfig|TestBench|TestChat|TestZZ21|TestBad|TestKillDev|TestZZ11CallsChange|TestZZ11ThePlatform|TestZZ17|TestP15|TestSecondSignal'
go test -count=1 -timeout 40m -run "${RUN:-/(mysql|mariadb|tidb)|Cluster}" -skip "^($embedded)" ./tests/e2e/... ./tests/chaos/...
go test -count=1 -timeout 10m -run "${RUN:-Cluster}" ./tests/docs/...
