#!/usr/bin/env bash
# Make a virtual environment of another loader, once: environment.sh FOLDER REQUIREMENT...
set -euo pipefail
folder=$1
shift
wanted=$*
[[ $(cat "$folder/.installed" 2>/dev/null) != "$wanted" ]] || exit 0

echo "install $wanted into $folder, once"
rm -rf "$folder"
"${PYTHON:-python3}" -m venv "$folder"
# All at once, so that what they need fits the torch that is named.
"$folder/bin/pip" install --disable-pip-version-check --quiet "$@"
# mosaicml-streaming imports torchvision for its image sets only, and a torchvision that was
# compiled for another torch breaks that import: put names without content in its place.
if [[ $wanted == *mosaicml-streaming* ]]; then
    "$folder/bin/pip" uninstall --disable-pip-version-check --quiet --yes torchvision
    packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$packages/torchvision/transforms"
    touch "$packages/torchvision/__init__.py" "$packages/torchvision/transforms/__init__.py"
    echo 'class VisionDataset: ...' >"$packages/torchvision/datasets.py"
    echo 'class CIFAR10: ...' >>"$packages/torchvision/datasets.py"
    echo 'def to_tensor(): ...' >"$packages/torchvision/transforms/functional.py"
fi
echo "$wanted" >"$folder/.installed"
