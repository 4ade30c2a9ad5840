#!/usr/bin/env bash
# Our shards in the real mosaicml-streaming, its shards in ours, and our export in Megatron; see
# interop.py.
#
#   make interop                  build 3 MB of text of this machine, then compare
#   make interop SHARDS=folder    compare a shard directory that is there already
#
# BIN names the folder of `climb` and `python`; default: .venv/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
theirs=.venv-peers/streaming
bench/environment.sh "$theirs" torch==2.13.0 mosaicml-streaming==0.13.0
megatron=.venv-peers/megatron
bench/environment.sh "$megatron" torch==2.13.0 megatron-core==0.16.1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# That library keeps lock files in the folder for temporary files: let them go with the rest.
export TMPDIR=$work
shards=${SHARDS:-}
if [[ -z $shards ]]; then
    shards=$work/shards
    "$bin/climb" build python:3 --out "$shards" >/dev/null
fi
"$bin/python" bench/interop.py ours "$shards" "$work"
"$theirs/bin/python" bench/interop.py theirs "$shards" "$work"
"$bin/python" bench/interop.py compare "$shards" "$work"
"$bin/climb" export "$shards" --to megatron --out "$work/megatron" >/dev/null
"$megatron/bin/python" bench/interop.py megatron "$shards" "$work"
