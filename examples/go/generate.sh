#!/bin/sh
# Makes taxonv1/ of the released API. Needs protoc, protoc-gen-go and protoc-gen-go-grpc; no .proto files of others, since
# the released contract holds them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=taxon/v1/classification_service.proto
name="M$proto=taxon.example/classify/taxonv1"
protoc --descriptor_set_in="$here/../../proto/released/v1.binpb" \
    --go_out="$here" --go_opt=module=taxon.example/classify,"$name" \
    --go-grpc_out="$here" --go-grpc_opt=module=taxon.example/classify,"$name" "$proto"
