"""Array files: several NumPy arrays in one file, each of which can be mapped into memory.

The first line is a JSON object. It has, by name of each array, the type, the shape, and the first
byte, counted from the end of that line. Then come the arrays, in C order.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.files import atomic_path, naming, open_regular

_ALIGNMENT = 64
"""Each array begins at a multiple of so many bytes."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` to ``path``, whole or not at all.

    Raises:
        ValueError: An array holds Python objects.
    """
    head: dict[str, tuple[str, tuple[int, ...], int]] = {}
    end = 0
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which are not written")
        head[name] = array.dtype.str, array.shape, end
        end = _aligned(end + array.nbytes)
    line = json.dumps(head).encode()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(line.ljust(_aligned(len(line) + 1) - 1) + b"\n")
        start = file.tell()
        for name, array in arrays.items():
            file.write(b"\0" * (start + head[name][2] - file.tell()))
            file.write(np.ascontiguousarray(array).data)


def names_in(path: Path) -> tuple[str, ...]:
    """Return the names of the arrays in ``path``; none if there is no such file."""
    try:
        return tuple(_head(path)[0])
    except FileNotFoundError:
        return ()


def read_array(path: Path, name: str, *, mapped: bool = False) -> NDArray[Any]:
    """Read an array, or map it into memory.

    Raises:
        FileNotFoundError: There is no such file, or it holds no such array.
    """
    head, start = _head(path)
    if name not in head:
        raise FileNotFoundError(f"{path} holds no array {name}")
    kind, shape, begin = head[name]
    dtype = np.dtype(kind)
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, dtype)
    with naming(path):
        if mapped:
            return np.memmap(path, dtype, "r", start + begin, tuple(shape))
        return np.fromfile(path, dtype, count, offset=start + begin).reshape(shape)


def _head(path: Path) -> tuple[dict[str, Any], int]:
    """Return what the first line of ``path`` says, and its length."""
    with naming(path), open_regular(path) as file:
        line = file.readline()
    return json.loads(line), len(line)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
