#!/bin/sh
# Runs the pinned staticcheck over the given packages; builds it first when it is not there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
go -C "$root/tools" build -o ../bin/tools/ honnef.co/go/tools/cmd/staticcheck
exec "$root/bin/tools/staticcheck" "$@"
