#!/usr/bin/env bash
# Our shards in the real mosaicml-streaming, and its shards in ours; see interop.py.
#
#   make interop                  build 3 MB of text of this machine, then compare
#   make interop SHARDS=folder    compare a shard directory that is there already
#
# BIN names the folder of `climb` and `python`; default: .venv/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
theirs=.venv-interop
versions='mosaicml-streaming==0.13.0 torch==2.13.0'

if [[ $(cat "$theirs/.installed" 2>/dev/null) != "$versions" ]]; then
    echo "install $versions into $theirs, once"
    rm -rf "$theirs"
    "${PYTHON:-python3}" -m venv "$theirs"
    # shellcheck disable=SC2086 # two words
    "$theirs/bin/pip" install --disable-pip-version-check --quiet $versions
    # mosaicml-streaming imports torchvision for its image sets only, and a torchvision that was
    # compiled for another torch breaks that import: put names without content in its place.
    "$theirs/bin/pip" uninstall --disable-pip-version-check --quiet --yes torchvision
    packages=$("$theirs/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$packages/torchvision/transforms"
    touch "$packages/torchvision/__init__.py" "$packages/torchvision/transforms/__init__.py"
    echo 'class VisionDataset: ...' >"$packages/torchvision/datasets.py"
    echo 'class CIFAR10: ...' >>"$packages/torchvision/datasets.py"
    echo 'def to_tensor(): ...' >"$packages/torchvision/transforms/functional.py"
    echo "$versions" >"$theirs/.installed"
fi

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
