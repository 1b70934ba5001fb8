# shellcheck shell=bash
# MySQL: Debian sid's, two shards, each a source and its replica, semi-synchronous. MariaDB
# stands in where it cannot be had. What both have in common is in pair.sh.

mysql_instances() { pair_instances mysql; }
mysql_ports() { pair_port "$1"; }
mysql_start() { pair_start "$1"; }
mysql_ready() { [ "$(ask "$1" 'SELECT 1')" = 1 ]; }
mysql_join() { pair_join mysql; }
mysql_check() { pair_check mysql; }
mysql_env() { pair_env mysql; }

mysql_install() {
	local tree=mysql-$SERVERS_MYSQL_VERSION
	if [ "$(engine mysql-0-source)" = mysql ] && fetch "$tree" "downloading Debian sid's packages, 56 MB" mysql_tree; then
		return
	fi
	say "MySQL cannot be had here: MariaDB $SERVERS_MARIADB_VERSION stands in for it"
	# shellcheck disable=SC2034 # engine in pair.sh reads it
	MYSQL_ENGINE=mariadb
	mariadb_install
}

mysql_tree() {
	debian_tree sid "mysql-server-core mysql-client-core" usr/sbin/mysqld usr/bin/mysql "$1"
	[[ $(cat "$1/version") == 9.* ]] || fail "Debian sid has MySQL $(cat "$1/version") by now, not 9.x"
	"$1/mysqld" --version
}

mysql_program() { echo "$CACHE/mysql-$SERVERS_MYSQL_VERSION/$1"; }

mysql_client() { client "$(mysql_program mysql)" "$@"; }

# mysql_conf INSTANCE: what is its own; the settings are in conf/.
mysql_conf() {
	local tree=$CACHE/mysql-$SERVERS_MYSQL_VERSION/usr
	cat <<-CONF
		basedir=$tree
		lc-messages-dir=$tree/share/mysql
		character-sets-dir=$tree/share/mysql/charsets
		plugin-dir=$tree/lib/mysql/plugin
		secure-file-priv=NULL
	CONF
}

# mysql_format INSTANCE DIR: a new data directory.
mysql_format() {
	local own
	own=$(dir "$1")
	{
		echo "SET SESSION sql_log_bin = 0;"
		echo "CREATE USER root@'127.0.0.1';"
		echo "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;"
		cat "$HERE/conf/mysql-init.sql"
	} >"$own/init.sql"
	"$(mysql_program mysqld)" --defaults-file="$own/my.cnf" --datadir="$2" --initialize-insecure --init-file="$own/init.sql"
}

mysql_join_sql() { "$HERE/conf/mysql-join.sh" "$@"; }
mysql_semi_sync() { status_of "$1" Rpl_semi_sync_source_status; }
mysql_replicas() { status_of "$1" Rpl_semi_sync_source_clients; }

# mysql_settings KIND: what a source or a replica must have.
mysql_settings() {
	echo "transaction_isolation READ-COMMITTED"
	echo "gtid_mode ON"
	echo "rpl_semi_sync_source_wait_point AFTER_SYNC"
	echo "rpl_semi_sync_source_timeout 4294967295"
	[ "$1" = source ] || printf '%s\n' "rpl_semi_sync_replica_enabled ON" "super_read_only ON"
}
mysql_replicating() { ask "$1" 'SHOW REPLICA STATUS' -E --column-names; }
