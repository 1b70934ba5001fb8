#!/bin/sh
# Regenerates everything that is made from idl/: the Go of the .proto files, the codes and
# their page. Needs only Go; leaves no difference when nothing has changed.
set -eu
cd "$(dirname "$0")/.."

go -C tools build -o ../bin/tools/ github.com/cloudwego/kitex/tool/cmd/kitex

# generate FILE INTO: the Go of one .proto or .thrift file.
generate() {
	case $1 in *.thrift) type=thrift ;; *) type=protobuf ;; esac
	# kitex tells its every step: that is of interest only when one fails.
	if ! said=$(bin/tools/kitex -module hongyan -gen-path "$2" -I "$(dirname "$1")" -type $type "$1" 2>&1); then
		printf '%s\n' "$said" >&2
		exit 1
	fi
}

for proto in idl/*.proto; do
	generate "$proto" idl
done
generate examples/orders/orders.proto examples/orders/gen
generate examples/stock/stock.thrift examples/stock/gen

# The example of an internal caller is written by an outsider: from a copy of the .proto, with
# a package of his own.
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
sed 's#^option go_package = .*#option go_package = "hongyan/examples/caller/gen/platform";#' \
	idl/platform.proto >"$outside/platform.proto"
generate "$outside/platform.proto" examples/caller/gen

go run ./idl/gen .
