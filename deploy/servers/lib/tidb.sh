# shellcheck shell=bash
# TiDB: the stock server with a storage of its own, built from its Go module.

tidb_instances() { echo tidb; }
tidb_ports() { echo "$SERVERS_TIDB_PORT $SERVERS_TIDB_STATUS_PORT"; }

tidb_install() {
	# The version a build says is put in by the linker, as in TiDB's own Makefile.
	fetch "tidb-$SERVERS_TIDB_VERSION" "building it: 5 to 10 minutes, once on a machine" go_tool tidb github.com/pingcap/tidb/cmd/tidb-server \
		"-X github.com/pingcap/tidb/pkg/parser/mysql.TiDBReleaseVersion=v$SERVERS_TIDB_VERSION" || fail "TiDB could not be built"
	mariadb_install # for its client
}

tidb_start() {
	local own
	own=$(dir "$1")
	mkdir -p "$own/tmp"
	launch "$1" env TMPDIR="$own/tmp" "$CACHE/tidb-$SERVERS_TIDB_VERSION/tidb-server" --config "$HERE/conf/tidb.toml" \
		--initialize-sql-file "$HERE/conf/tidb.sql" --path "$own/data" --temp-dir "$own/tmp" --socket "$own/s" \
		--host 127.0.0.1 -P "$SERVERS_TIDB_PORT" --status-host 127.0.0.1 --status "$SERVERS_TIDB_STATUS_PORT"
}

tidb_ready() { [ "$(mariadb_client "$SERVERS_TIDB_PORT" 'SELECT 1')" = 1 ]; }
tidb_join() { :; }

tidb_check() {
	local setting value
	mariadb_client "$SERVERS_TIDB_PORT" 'SELECT VERSION()' | sed 's/.*-TiDB-v//' >"$(dir tidb)/version"
	while read -r setting value; do
		expect tidb "$setting" "$(mariadb_client "$SERVERS_TIDB_PORT" "SHOW GLOBAL VARIABLES LIKE '$setting'" | cut -f 2)" "$value"
	done <<-WANTED
		tidb_enable_async_commit OFF
		tidb_enable_1pc OFF
		tidb_txn_mode pessimistic
		time_zone +00:00
		transaction_isolation READ-COMMITTED
	WANTED
}

tidb_env() {
	echo "SERVERS_TIDB=$(address tidb)"
	echo "HONGYAN_TEST_TIDB='root@tcp($(address tidb))/'"
	db_env
}
