"""Unpack: the bytes of a file as they were before they were packed, whatever its name says."""

import bz2
import io
import lzma
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import fsspec
import pyarrow as pa

DAMAGE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading a damaged file raises."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BUFFER = 1 << 16


def _arrow(pack: str, stream: IO[bytes]) -> Any:
    # Unlike those of zstandard and gzip, this reader takes all packs, and no part of one.
    return pa.CompressedInputStream(pa.PythonFile(stream), pack)


_PACKS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    rb"\x1f\x8b": partial(_arrow, "gzip"),
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": partial(_arrow, "zstd"),
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.BZ2File,
    rb"\xfd7zXZ\0": lzma.LZMAFile,
}
"""Readers by the first bytes of what they read."""


@contextmanager
def unpacked(name: str) -> Iterator[io.BufferedReader]:
    """Open the file ``name``, a path or URL; what its first bytes say to be packed is unpacked."""
    with fsspec.open(name, "rb") as file:
        stream = io.BufferedReader(file, _BUFFER)
        head = stream.peek(16)
        reader = next((r for magic, r in _PACKS.items() if re.match(magic, head)), None)
        yield stream if reader is None else io.BufferedReader(reader(stream), _BUFFER)


def lines_of(stream: IO[bytes], longest: int) -> Iterator[bytes | None]:
    r"""Give the lines of ``stream``, split at ``\n`` alone; None for one of more bytes."""
    read = partial(stream.readline, longest + 1)
    for line in iter(read, b""):
        if len(line) <= longest or line.endswith(b"\n"):
            yield line
            continue
        while (rest := read()) and not rest.endswith(b"\n"):
            pass
        yield None


@contextmanager
def seekable(stream: io.BufferedReader) -> Iterator[IO[bytes]]:
    """Give ``stream``, or, if it is unpacked on the way, a temporary file of what it holds."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file
