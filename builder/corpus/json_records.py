"""Read JSON records: one per line, in arrays, over several lines, or one right after another."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from .read_report import BadRecord
from .unpack import BYTE_ORDER_MARK, lines_of

NOT_JSON = "not JSON"
NOT_UTF8 = "not UTF-8"
_TOO_LONG = "a number of thousands of digits"
_TOO_DEEP = "nested too deeply"

_DECODE = msgspec.json.Decoder().decode
"""The parser of msgspec, which is twice as fast as Python's. It refuses some values that Python's
parser accepts. For all other values, both parsers return the same."""
_CHUNK = 1 << 16
_BETWEEN = re.compile(r"[\s,\[\]\ufeff\x1e]*")
"""Text between two values. Square brackets belong to this text, so that each item of an array is
read as a value."""
_NEXT = re.compile(r"[}\]]\s*,?\s*(?=\{)|\n(?=\s*\{)")
"""After a broken value, the next value may begin where this pattern ends."""
_CUT = 12
"""An error near the end of the text that was read so far may only mean that the value is
incomplete. If an error is at most this many characters before the end, more text is read, and the
value is parsed again."""

Value = tuple[str, Any]
"""Place of a record, and its value: JSON, or a `BadRecord`."""


def read_json_records(stream: io.BufferedReader, place: str, longest: int) -> Iterator[Value]:
    """Yield the place and the record for each JSON value in ``stream``.

    A record that is broken, or longer than ``longest`` bytes, is a `BadRecord`.
    """
    if has_lines(stream):
        yield from read_json_lines(lines_of(stream, longest), place, longest)
    else:
        yield from _read_values(stream, place, longest)


def has_lines(stream: io.BufferedReader) -> bool:
    """Whether ``stream``, of which nothing was read yet, has one record per line."""
    head = stream.peek(_CHUNK)
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not text.startswith(b"{"):
        return not text.startswith(b"[")
    line, end, _ = text.decode(errors="surrogateescape").partition("\n")
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return line[error.pos] != "{"
        return not (end and _is_cut(error, line.rstrip(), 0))
    except (ValueError, RecursionError):
        pass
    return True


def _is_cut(error: json.JSONDecodeError, text: str, near: int) -> bool:
    """Whether ``error`` may only mean that ``text`` ends before its last value does.

    This is possible if the error is at most ``near`` characters before the end of ``text``. It is
    not assumed for a string that does not end.
    """
    return error.pos >= len(text) - near and not error.msg.startswith("Unterminated")


def read_json_lines(
    lines: Iterable[bytes | None], place: str, longest: int, first: int = 1
) -> Iterator[Value]:
    """Yield the place and the record for each of ``lines``; ``first`` is the number of the first.

    A line that is None was longer than ``longest`` bytes. Empty lines are skipped.
    """
    for number, line in enumerate(lines, start=first):
        origin = f"{place}:{number}"
        if line is None:
            yield origin, BadRecord(origin, f"longer than {longest:,} bytes")
        elif data := line.rstrip(b"\r\n").removeprefix(BYTE_ORDER_MARK):
            yield origin, _parse(data, origin)


def _parse(line: bytes, origin: str) -> Any:
    try:
        return _DECODE(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _parse_slowly(line, origin)


def _parse_slowly(line: bytes, origin: str) -> Any:
    """Return the value of a line that msgspec refuses, as Python's own parser reads it.

    Python's parser also accepts NaN and large numbers. If it refuses the line too, the result is a
    `BadRecord`.
    """
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        return BadRecord(origin, NOT_UTF8)
    except json.JSONDecodeError:
        return BadRecord(origin, NOT_JSON)
    except ValueError:  # a number with more digits than Python converts
        return BadRecord(origin, _TOO_LONG)
    except RecursionError:
        return BadRecord(origin, _TOO_DEEP)


def _read_values(stream: io.BufferedReader, place: str, longest: int) -> Iterator[Value]:
    """Yield the place and the value of each record of a file in any layout.

    At most about one value of the file is in memory at a time.
    """
    text = _Text(stream)
    number = 0
    while text.skip():
        number += 1
        origin = f"{place}:{number}"
        value = text.take(longest)
        yield origin, BadRecord(origin, value.reason) if isinstance(value, _Broken) else value


class _Broken:
    """Stands for a value that cannot be read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Text:
    """The text of a file of JSON values; only a part of it is in memory."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._decode = json.JSONDecoder().raw_decode
        # Bytes that are not UTF-8 become lone surrogates, and lose only the value that they are in.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._held, self._at, self._ended = "", 0, False

    def skip(self) -> bool:
        """Go to the next value; return whether there is one."""
        while True:
            match = _BETWEEN.match(self._held, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._held) or not self._more():
                return self._at < len(self._held)

    def take(self, longest: int) -> Any:
        """Return the value that begins here, or `_Broken`; go to where the next value may begin."""
        reason, behind = NOT_JSON, self._at + 1
        while True:
            try:
                value, self._at = self._decode(self._held, self._at)
                return value
            except json.JSONDecodeError as error:
                open_end = error.msg.startswith("Unterminated") or _is_cut(error, self._held, _CUT)
                if open_end and len(self._held) - self._at <= longest and self._more():
                    continue
                behind = self._at + 1 if error.msg.startswith("Unterminated") else error.pos
            except ValueError:
                reason = _TOO_LONG
            except RecursionError:
                reason = _TOO_DEEP
            break
        if len(self._held) - self._at > longest:
            reason = f"longer than {longest:,} bytes"
        self._go_on(max(behind - 1, self._at + 1))
        return _Broken(reason)

    def _go_on(self, behind: int) -> None:
        """Go to the first place, at ``behind`` or later, where a value may begin."""
        self._at = behind
        while (match := _NEXT.search(self._held, self._at)) is None:
            self._at = max(self._at, len(self._held) - 64)
            if not self._more():
                self._at = len(self._held)
                return
        self._at = match.end()

    def _more(self) -> bool:
        """Read more, to double the text in memory; return False at the end of the file."""
        if self._ended:
            return False
        held = self._held[self._at :]
        data = self._stream.read(max(_CHUNK, len(held)))
        self._ended = not data
        self._held, self._at = held + self._decoder.decode(data, self._ended), 0
        return True
