"""Array files: several NumPy arrays in one file, each of which can be mapped into memory.

The first line is a JSON object. The object maps the name of each array to the array's type, its
shape, and the position of its first byte. Positions are counted from the end of the first line. The
arrays follow, in C order.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import atomic_path, naming, open_regular, reading
from climbstream.loader.core.typed import Count, convert, parse_json

_ALIGNMENT = 64
"""Each array begins at a multiple of this number of bytes."""
_LONGEST = 1 << 16
"""Maximum number of bytes of a first line; `write_arrays` writes about a thousand."""
_WHAT = "file of arrays"
_REMEDY = "remove the working folder that contains it, and run the command again"

_Head = dict[str, tuple[str, tuple[Count, ...], Count]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` to ``path``, whole or not at all.

    Raises:
        ValueError: An array contains Python objects.
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
    """Return the names of the arrays in ``path``; an empty tuple if the file does not exist."""
    try:
        return tuple(_head(path)[0])
    except FileNotFoundError:
        return ()


def read_array(path: Path, name: str, *, mapped: bool = False) -> NDArray[Any]:
    """Read the array ``name`` from ``path``; if ``mapped``, map it into memory instead.

    Raises:
        FileNotFoundError: The file does not exist, or contains no array ``name``.
        InvalidDataError: The file is damaged, or cut short.
    """
    head, start = _head(path)
    if name not in head:
        raise FileNotFoundError(f"{path} holds no array {name}")
    kind, shape, begin = head[name]
    with reading(path, _WHAT), naming(path):
        dtype = np.dtype(kind)
        count = math.prod(shape)
        end, size = start + begin + count * dtype.itemsize, path.stat().st_size
        if size < end:
            raise InvalidDataError(
                f"{path} is cut short: it has {size:,} bytes, and {name} ends at {end:,}; {_REMEDY}"
            )
        if not count:
            return np.empty(shape, dtype)
        if mapped:
            return np.memmap(path, dtype, "r", start + begin, shape)
        return np.fromfile(path, dtype, count, offset=start + begin).reshape(shape)


def _head(path: Path) -> tuple[_Head, int]:
    """Return the object in the first line of ``path``, and the length of that line in bytes."""
    with naming(path), open_regular(path) as file:
        line = file.readline(_LONGEST)
    try:
        return convert(parse_json(line, str(path)), _Head, f"the first line of {path}"), len(line)
    except InvalidDataError as error:
        raise InvalidDataError(f"{error}; {_REMEDY}") from error


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
