# shellcheck shell=bash
# RocketMQ: name server and broker, their jars by Maven.

rocketmq_instances() { printf '%s\n' rocketmq-namesrv rocketmq-broker; }

rocketmq_ports() {
	case $1 in
	*-namesrv) echo "$SERVERS_ROCKETMQ_NAMESRV_PORT" ;;
	*-broker) echo "$SERVERS_ROCKETMQ_BROKER_PORT $((SERVERS_ROCKETMQ_BROKER_PORT - 2)) $((SERVERS_ROCKETMQ_BROKER_PORT + 1))" ;;
	esac
}

rocketmq_install() {
	need_java
	fetch "rocketmq-$SERVERS_ROCKETMQ_VERSION" "downloading its jars, 83 MB" maven "$HERE/rocketmq/pom.xml" ||
		fail "RocketMQ could not be had"
}

rocketmq_start() {
	local own name=${1#rocketmq-}
	own=$(dir "$1")
	{
		cat "$HERE/conf/$name.conf"
		echo "listenPort=$(rocketmq_ports "$1" | cut -d ' ' -f 1)"
	} >"$own/$name.conf"
	if [ "$name" = namesrv ]; then
		rocketmq_java "$1" -Xms256m -Xmx256m -- namesrv.NamesrvStartup
		return
	fi
	printf '%s\n' "namesrvAddr=$(address rocketmq-namesrv)" brokerIP1=127.0.0.1 >>"$own/$name.conf"
	await rocketmq-namesrv # a broker registers at once, and then only every 30 s
	rocketmq_java "$1" -Xms512m -Xmx512m -XX:MaxDirectMemorySize=512m --add-exports java.base/jdk.internal.ref=ALL-UNNAMED \
		--add-opens java.base/jdk.internal.ref=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED \
		--add-opens java.base/java.nio=ALL-UNNAMED -- broker.BrokerStartup
}

# rocketmq_java INSTANCE OPTIONS... -- CLASS: with its home, data and logs in its own directory.
rocketmq_java() {
	local own instance=$1 class=${!#} options=("${@:2:$#-3}")
	own=$(dir "$instance")
	launch "$instance" env ROCKETMQ_HOME="$own" java -Duser.home="$own" "${options[@]}" \
		-cp "$CACHE/rocketmq-$SERVERS_ROCKETMQ_VERSION/lib/*" "org.apache.rocketmq.$class" -c "$own/${instance#rocketmq-}.conf"
}

# remoting PORT CODE: the answer to a request without fields, in RocketMQ's own protocol: length,
# length of the header, header as JSON. A JVM for each question would cost 1.4 s of CPU.
remoting() (
	local header="{\"code\":$2,\"language\":\"OTHER\",\"version\":0,\"opaque\":1,\"flag\":0,\"extFields\":{}}" a b c d
	exec 3<>"/dev/tcp/127.0.0.1/$1"
	{
		printf '\0\0\0%b' "\\x$(printf %02x $((${#header} + 4)))"
		printf '\0\0\0%b' "\\x$(printf %02x ${#header})"
		printf %s "$header"
	} >&3
	read -r a b c d < <(timeout 5 head -c 4 <&3 | od -An -tu1)
	timeout 5 head -c $((a << 24 | b << 16 | c << 8 | d)) <&3 | tail -c +5
)

GET_BROKER_CONFIG=26
GET_BROKER_CLUSTER_INFO=106

rocketmq_ready() {
	local cluster
	cluster=$(remoting "$SERVERS_ROCKETMQ_NAMESRV_PORT" $GET_BROKER_CLUSTER_INFO)
	case $1 in
	*-namesrv) [[ $cluster == *'"code":0'* ]] ;;
	*-broker) [[ $cluster == *"$(address "$1")"* ]] && [[ $(broker_config) == *flushDiskType* ]] ;;
	esac
}

broker_config() { remoting "$SERVERS_ROCKETMQ_BROKER_PORT" $GET_BROKER_CONFIG; }

rocketmq_join() { :; }

rocketmq_check() {
	local config setting
	config=$(broker_config)
	while IFS='=' read -r setting value; do
		expect rocketmq-broker "$setting" "$(sed -n "s/^$setting=//p" <<<"$config")" "$value"
	done < <(grep -E '^(flushDiskType|autoCreate.*)=' "$HERE/conf/broker.conf")
	printf '%s\n' "$SERVERS_ROCKETMQ_VERSION" | tee "$(dir rocketmq-namesrv)/version" >"$(dir rocketmq-broker)/version"
}

rocketmq_env() {
	echo "SERVERS_ROCKETMQ_NAMESRV=$(address rocketmq-namesrv)"
	echo "HONGYAN_TEST_ROCKETMQ=$(address rocketmq-namesrv)"
	echo "SERVERS_ROCKETMQ_BROKER=$(address rocketmq-broker)"
}
