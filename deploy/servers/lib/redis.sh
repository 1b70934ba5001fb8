# shellcheck shell=bash
# Redis: Debian's server, in a tree of its own.

redis_instances() { echo redis; }
redis_ports() { echo "$SERVERS_REDIS_PORT"; }

redis_install() {
	fetch "redis-$SERVERS_REDIS_VERSION" "downloading Debian's packages, 13 MB" debian_tree bookworm redis-server \
		usr/bin/redis-server usr/bin/redis-cli || fail "Redis could not be had"
}

redis_start() {
	launch "$1" "$CACHE/redis-$SERVERS_REDIS_VERSION/redis-server" "$HERE/conf/redis.conf" \
		--bind 127.0.0.1 --port "$SERVERS_REDIS_PORT" --dir "$(dir "$1")" --daemonize no
}

redis_ask() { "$CACHE/redis-$SERVERS_REDIS_VERSION/redis-cli" -p "$SERVERS_REDIS_PORT" "$@"; }
redis_ready() { [ "$(redis_ask ping)" = PONG ]; }
redis_join() { :; }

redis_check() {
	local setting value
	redis_ask info server | sed -n 's/^redis_version:\([0-9.]*\).*/\1/p' >"$(dir redis)/version"
	while read -r setting value; do
		expect redis "$setting" "$(redis_ask config get "$setting" | sed -n 2p)" "$value"
	done <<-WANTED
		save
		appendonly no
		maxmemory-policy noeviction
	WANTED
}

redis_env() {
	echo "SERVERS_REDIS=$(address redis)"
	echo "HONGYAN_TEST_REDIS=$(address redis)"
}
