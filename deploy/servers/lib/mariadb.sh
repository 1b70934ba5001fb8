# shellcheck shell=bash
# MariaDB: Debian's, two shards, each a primary and its replica, semi-synchronous. The names of
# the instances are those of MySQL.

mariadb_instances() { pair_instances mariadb; }
mariadb_ports() { pair_port "$1"; }
mariadb_start() { pair_start "$1"; }
mariadb_ready() { [ "$(ask "$1" 'SELECT 1')" = 1 ]; }
mariadb_join() { pair_join mariadb; }
mariadb_check() { pair_check mariadb; }
mariadb_env() { pair_env mariadb; }

mariadb_install() {
	fetch "mariadb-$SERVERS_MARIADB_VERSION" "downloading Debian's packages, 16 MB" mariadb_tree ||
		fail "MariaDB could not be had"
}

mariadb_tree() {
	debian_tree bookworm "mariadb-server-core mariadb-client-core libmariadb3" usr/sbin/mariadbd usr/bin/mariadb "$1"
	"$1/mariadbd" --version
}

mariadb_program() { echo "$CACHE/mariadb-$SERVERS_MARIADB_VERSION/$1"; }

# mariadb_client: TiDB's too. MySQL's own has forgotten how they let users in.
mariadb_client() { client "$(mariadb_program mariadb)" "$@"; }

mariadb_conf() {
	local tree=$CACHE/mariadb-$SERVERS_MARIADB_VERSION/usr
	cat <<-CONF
		basedir=$tree
		lc-messages-dir=$tree/share/mysql
		character-sets-dir=$tree/share/mysql/charsets
		plugin-dir=$tree/lib/mysql/plugin
	CONF
	[[ $1 != *-replica ]] || echo "read_only=ON"
}

# mariadb_format INSTANCE DIR: what mariadb-install-db does, which would run its programs with
# this machine's C library.
mariadb_format() {
	local share=$CACHE/mariadb-$SERVERS_MARIADB_VERSION/usr/share/mysql own
	own=$(dir "$1")
	mkdir "$2"
	{
		printf '%s\n' "CREATE DATABASE mysql;" "USE mysql;" # one statement a line
		echo "SET @auth_root_socket = NULL, @current_hostname = 'localhost', @skip_auth_anonymous_user = 1;"
		cat "$share"/{mysql_system_tables,mysql_performance_tables,mysql_system_tables_data,maria_add_gis_sp_bootstrap,mysql_sys_schema}.sql
		echo "FLUSH PRIVILEGES;"
		cat "$HERE/conf/mysql-init.sql"
	} | "$(mariadb_program mariadbd)" --defaults-file="$own/my.cnf" --datadir="$2" --bootstrap --skip-log-bin --read-only=OFF \
		--rpl-semi-sync-master-enabled=OFF
}

mariadb_join_sql() {
	cat <<-SQL
		STOP SLAVE;
		CHANGE MASTER TO MASTER_HOST = '$1', MASTER_PORT = $2, MASTER_USER = 'repl', MASTER_PASSWORD = 'repl',
			MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1;
		START SLAVE;
	SQL
}
mariadb_semi_sync() { status_of "$1" Rpl_semi_sync_master_status; }
mariadb_replicas() { status_of "$1" Rpl_semi_sync_master_clients; }

mariadb_settings() {
	echo "tx_isolation READ-COMMITTED"
	echo "gtid_strict_mode ON"
	echo "rpl_semi_sync_master_wait_point AFTER_SYNC"
	echo "rpl_semi_sync_master_timeout 4294967295"
	[ "$1" = source ] || printf '%s\n' "rpl_semi_sync_slave_enabled ON" "rpl_semi_sync_master_enabled OFF" "read_only ON"
}
mariadb_replicating() { ask "$1" 'SHOW REPLICA STATUS' -E --column-names | sed 's/Slave_/Replica_/'; }
