"""Unpack: decompress files, and turn text in UTF-16 into UTF-8.

The format of a file is recognised by its first bytes, not by its name.
"""

import bz2
import codecs
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

import pyarrow as pa

from climbstream.loader.storage.s3_files import file_system

DAMAGE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""Errors that may occur when a damaged file is read."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BUFFER = 1 << 16


def _arrow(pack: str, stream: IO[bytes]) -> Any:
    # Unlike the readers of zstandard and gzip, this one reads joined frames, and raises an error
    # for half a frame.
    return pa.CompressedInputStream(pa.PythonFile(stream), pack)


_PACKS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    rb"\x1f\x8b": partial(_arrow, "gzip"),
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": partial(_arrow, "zstd"),
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.BZ2File,
    rb"\xfd7zXZ\0": lzma.LZMAFile,
}
"""For each format, a pattern of a file's first bytes, and the function that decompresses."""


@contextmanager
def unpacked(name: str) -> Iterator[io.BufferedReader]:
    """Open the file ``name``, a path or URL, and decompress it if its first bytes say so.

    Text in UTF-16 with a byte order mark is read as UTF-8.
    """
    system, path = file_system(name)
    with system.open(path, "rb") as file:
        stream = io.BufferedReader(file, _BUFFER)
        if (reader := _reader_of(stream)) is not None:
            stream = io.BufferedReader(reader(stream), _BUFFER)
        yield io.BufferedReader(_Utf8(stream), _BUFFER) if _is_utf16(stream) else stream


@contextmanager
def opened_plain(name: str) -> Iterator[io.BufferedReader | None]:
    """Open the file ``name``, a path or URL.

    The result is None if the file is compressed, is text in UTF-16, or cannot seek.
    """
    system, path = file_system(name)
    with system.open(path, "rb") as file:
        stream = io.BufferedReader(file, _BUFFER)
        plain = stream.seekable() and _reader_of(stream) is None and not _is_utf16(stream)
        yield stream if plain else None


def _reader_of(stream: io.BufferedReader) -> Callable[[IO[bytes]], Any] | None:
    head = stream.peek(16)
    return next((r for magic, r in _PACKS.items() if re.match(magic, head)), None)


def _is_utf16(stream: io.BufferedReader) -> bool:
    return stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Utf8(io.RawIOBase):
    """The text of a stream in UTF-16 as bytes in UTF-8; lone surrogates are no valid UTF-8."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``, and return the number of bytes; 0 at the end."""
        data = b"more"
        while not self._rest and data:
            data = self._stream.read(_BUFFER)
            text = self._decoder.decode(data, final=not data)
            self._rest = text.encode(errors="surrogatepass")
        view = memoryview(buffer)
        part, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(part)] = part
        return len(part)


def lines_of(
    stream: IO[bytes], longest: int, begin: int = 0, end: int | None = None
) -> Iterator[bytes | None]:
    r"""Yield the lines of ``stream``, split at ``\n`` alone.

    Only lines that begin at byte ``begin`` or later and, if ``end`` is given, before byte ``end``
    are yielded. For a line of more than ``longest`` bytes, None is yielded.
    """
    read = partial(stream.readline, longest + 1)
    at = _seek_line(stream, begin, end) if begin else 0
    while (end is None or at < end) and (line := read()):
        at += len(line)
        if len(line) <= longest or line.endswith(b"\n"):
            yield line
            continue
        while rest := read():
            at += len(rest)
            if rest.endswith(b"\n"):
                break
        yield None


def _seek_line(stream: IO[bytes], begin: int, end: int | None) -> int:
    """Go to the first line that begins at ``begin`` or later, and return its position.

    If no line begins before ``end``, the position is ``end`` or later.
    """
    at = stream.seek(begin - 1)
    while (end is None or at < end) and (part := stream.readline(_BUFFER)):
        at += len(part)
        if part.endswith(b"\n"):
            break
    return at


@contextmanager
def seekable(stream: io.BufferedReader) -> Iterator[IO[bytes]]:
    """Yield ``stream`` or, if it cannot seek, a temporary file with its content."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file
