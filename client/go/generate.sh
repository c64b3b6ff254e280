#!/bin/sh
# Writes client/go/gen anew from proto/: the checked-in Go code of the task, query and datasource services.
#
# Needs Go, Python 3 and, at the first run, the Go proxy and PyPI. The tools are kept at pinned versions below
# ${CARGO_TARGET_DIR:-<repository>/target}/tools, so the output is the same on every machine.
set -eu

GRPCIO_TOOLS=1.85.1        # brings protoc
PROTOC_GEN_GO=v1.36.12     # as google.golang.org/protobuf in go.mod
PROTOC_GEN_GO_GRPC=v1.6.2

here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
tools=${CARGO_TARGET_DIR:-$repository/target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
venv=$tools/grpcio-tools-$GRPCIO_TOOLS
plugins=$tools/protoc-gen-go-$PROTOC_GEN_GO-grpc-$PROTOC_GEN_GO_GRPC

# Each directory appears under its name only when it is complete: an interrupted run leaves none behind.
if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "grpcio-tools==$GRPCIO_TOOLS"
    touch "$venv/complete"
fi
if [ ! -e "$plugins/complete" ]; then
    mkdir -p "$plugins"
    GOBIN=$plugins GOFLAGS= go install "google.golang.org/protobuf/cmd/protoc-gen-go@$PROTOC_GEN_GO"
    GOBIN=$plugins GOFLAGS= go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$PROTOC_GEN_GO_GRPC"
    touch "$plugins/complete"
fi

output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
# The workers' own protocol (trilith/worker/v1) is not for clients.
cd "$repository/proto"
"$venv/bin/python" -m grpc_tools.protoc --proto_path=. \
    --plugin=protoc-gen-go="$plugins/protoc-gen-go" --plugin=protoc-gen-go-grpc="$plugins/protoc-gen-go-grpc" \
    --go_out="$output" --go-grpc_out="$output" \
    --go_opt=module=github.com/trilith-db/trilith/client/go \
    --go-grpc_opt=module=github.com/trilith-db/trilith/client/go \
    trilith/task/v1/*.proto trilith/query/v1/*.proto trilith/datasource/v1/*.proto

# The header names the protoc that ran. It says nothing of the code, and would change it with the machine's tools.
find "$output/gen" -name '*.go' -exec sed -i -E '/^\/\/ (	|- )protoc +(v[0-9]|\(unknown\))/d' {} +

rm -rf "$here/gen"
mv "$output/gen" "$here/gen"
