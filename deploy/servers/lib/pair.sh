# shellcheck shell=bash
# What MySQL and MariaDB have in common: shards of a source and a replica. ENGINE_program, _conf,
# _format, _join_sql, _semi_sync, _replicas, _replicating and _settings are what
# differs.

MYSQL_ENGINE=mysql

# engine INSTANCE: mysql or mariadb. An instance keeps the one that made its data.
engine() {
	case $1 in
	mariadb-*) echo mariadb ;;
	*) cat "$(dir "$1")/engine" 2>/dev/null || echo $MYSQL_ENGINE ;;
	esac
}

# shards: SERVERS_SHARDS=1 makes one pair only, for tests.
shards() { seq 0 $((${SERVERS_SHARDS:-2} - 1)); }

pair_instances() {
	local shard
	for shard in $(shards); do printf '%s\n' "$1-$shard"-{replica,source}; done
}

pair_port() {
	local name=${1^^}
	name=SERVERS_${name//-/_}_PORT
	echo "${!name}"
}

pair_start() {
	local own engine kind=${1##*-} server=mysqld
	own=$(dir "$1")
	engine=$(engine "$1")
	[ "$engine" = mysql ] || server=mariadbd
	{
		cat "$HERE/conf/$engine.cnf"
		[ "$kind" = replica ] || cat "$HERE/conf/$engine-source.cnf"
		echo "# its own"
		"${engine}_conf" "$1"
		printf '%s\n' "user=$(id -un)" "datadir=$own/data" "socket=$own/s" "pid-file=$own/server.pid" \
			"bind-address=127.0.0.1" "port=$(pair_port "$1")" "server-id=$(pair_port "$1")"
	} >"$own/my.cnf"
	[ -d "$own/data" ] || pair_format "$1" "$engine"
	rm -f "$own/s.lock" # of a process that was killed: it is gone, start has looked
	launch "$1" "$("${engine}_program" "$server")" --defaults-file="$own/my.cnf"
}

# pair_format INSTANCE ENGINE: a data directory, whole or not at all. It is made once on a
# machine, and copied: making it takes many times as long.
pair_format() {
	local own model
	own=$(dir "$1")
	model=$(pair_model "$2")
	rm -rf "$own/data.new" "$own/joined"
	if [ ! -e "$model" ]; then
		say "$1: making its data directory"
		if ! "$2_format" "$1" "$own/data.new" >"$own/format.log" 2>&1; then
			said "$(tail -n 8 "$own/format.log")"
			fail "$1 cannot make its data directory: $own/format.log"
		fi
		rm -f "$own/data.new/auto.cnf" # who it is: the next start makes up another
		cp -a "$own/data.new" "$model.$$"
		mv -T "$model.$$" "$model" 2>/dev/null || rm -rf "$model.$$" # another was faster
	else
		cp -a "$model" "$own/data.new"
	fi
	mv "$own/data.new" "$own/data"
	echo "$2" >"$own/engine"
}

# pair_model ENGINE: the directory to copy, named after all that goes into it.
pair_model() {
	local version=SERVERS_${1^^}_VERSION sum
	sum=$({ cat "$HERE/conf/$1"*.cnf "$HERE/conf/mysql-init.sql" "$CACHE/$1-${!version}/version" && declare -f "$1_format"; } | cksum)
	echo "$CACHE/$1-${!version}-data-${sum%% *}"
}

# ask INSTANCE SQL [OPTIONS...]: as root; columns between tabs, a row a line.
ask() { "$(engine "$1")_client" "$(pair_port "$1")" "${@:2}"; }

# client PROGRAM PORT SQL [OPTIONS...]
client() { timeout 20 "$1" --no-defaults -h 127.0.0.1 -P "$2" -u root -N -B -e "$3" "${@:4}"; }

status_of() { ask "$1" "SHOW GLOBAL STATUS LIKE '$2'" | cut -f 2; }

# pair_join SERVER: makes new replicas follow their source. Those that have been one are left
# as they are: they may have been promoted.
pair_join() {
	local shard replica engine limit
	for shard in $(shards); do
		shard=$1-$shard
		replica=$shard-replica
		engine=$(engine "$replica")
		if [ ! -e "$(dir "$replica")/joined" ]; then
			ask "$replica" "$("${engine}_join_sql" 127.0.0.1 "$(pair_port "$shard-source")")"
			touch "$(dir "$replica")/joined"
		fi
		limit=$((SECONDS + 30))
		until [ "$("${engine}_replicas" "$shard-source")" -ge 1 ]; do
			[ $SECONDS -lt $limit ] || fail "$replica does not follow $shard-source. If it was promoted: servers.sh down $1, reset $1, up $1"
			sleep 0.1
		done
	done
}

pair_check() {
	local instance engine kind setting value threads all
	for instance in $("$1_instances"); do
		engine=$(engine "$instance")
		kind=${instance##*-}
		all=$(ask "$instance" 'SHOW GLOBAL VARIABLES')
		sed -n 's/^version\t//p' <<<"$all" | sed 's/-MariaDB.*/ MariaDB/; s/-.*//' >"$(dir "$instance")/version"
		while read -r setting value; do
			expect "$instance" "$setting" "$(sed -n "s/^$setting\t//p" <<<"$all")" "$value"
		done < <(pair_settings && "${engine}_settings" "$kind")
		if [ "$kind" = source ]; then
			expect "$instance" "semi-synchronous replication" "$("${engine}_semi_sync" "$instance")" ON
		else
			threads=$("${engine}_replicating" "$instance" | grep -E '^ *Replica_(IO|SQL)_Running: Yes' -c || true)
			expect "$instance" "number of replication threads that run" "$threads" 2
		fi
	done
}

# pair_settings: what every one of them must have.
pair_settings() {
	cat <<-WANTED
		innodb_flush_log_at_trx_commit 1
		sync_binlog 1
		log_bin ON
		time_zone +00:00
		character_set_server utf8mb4
		collation_server utf8mb4_bin
	WANTED
}

pair_env() {
	local instance name
	echo "SERVERS_${1^^}_ENGINE=$(engine "$1-0-source")"
	for instance in $("$1_instances"); do
		name=${instance^^}
		echo "SERVERS_${name//-/_}=$(address "$instance")"
	done
	echo "HONGYAN_TEST_${1^^}='root@tcp($(address "$1-0-source"))/'"
	db_env
}

db_env() {
	echo "SERVERS_DB_NAME=$SERVERS_DB_NAME"
	echo "SERVERS_DB_USER=$SERVERS_DB_USER"
	echo "SERVERS_DB_PASSWORD=$SERVERS_DB_PASSWORD"
	echo "SERVERS_DB_ADMIN=root # without a password"
}
