# shellcheck shell=bash
# etcd: the stock server, built from its Go module.

etcd_instances() { echo etcd; }
etcd_ports() { echo "$SERVERS_ETCD_PORT $SERVERS_ETCD_PEER_PORT"; }

etcd_install() {
	fetch "etcd-$SERVERS_ETCD_VERSION" "building it, under a minute" go_tool etcd go.etcd.io/etcd/server/v3 "" ||
		fail "etcd could not be built"
}

etcd_start() {
	local clients=http://127.0.0.1:$SERVERS_ETCD_PORT peers=http://127.0.0.1:$SERVERS_ETCD_PEER_PORT settings
	mapfile -t settings < <(grep '^ETCD_' "$HERE/conf/etcd.env")
	launch "$1" env "${settings[@]}" "$CACHE/etcd-$SERVERS_ETCD_VERSION/server" --data-dir data \
		--listen-client-urls "$clients" --advertise-client-urls "$clients" \
		--listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" --initial-cluster "etcd-0=$peers"
}

etcd_ready() { [[ $(http "$SERVERS_ETCD_PORT" /readyz) == ok* ]]; }
etcd_join() { :; }

etcd_check() {
	http "$SERVERS_ETCD_PORT" /version | sed 's/.*"etcdserver":"\([^"]*\)".*/\1/' >"$(dir etcd)/version"
	expect etcd version "$(version etcd)" "$SERVERS_ETCD_VERSION"
}

etcd_env() {
	echo "SERVERS_ETCD=http://$(address etcd)"
	echo "HONGYAN_TEST_ETCD=http://$(address etcd)"
}
