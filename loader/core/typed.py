"""Typed: convert JSON from outside to the types of a format, or raise an error that says where.

Files are not trusted: a file may hold no JSON, endless nesting, numbers too large for any type, or
text instead of a number. `parse_json` returns plain JSON values, `convert` the type of a format;
both raise only `InvalidDataError`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_origin

import msgspec
from msgspec import Meta

from .errors import IntegrityError, InvalidDataError

T = TypeVar("T")

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""A whole number that an int64 holds, 0 or more."""
Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A whole number that an int64 holds."""
Finite = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]
"""A number that is neither infinite nor NaN."""

_DEEPEST = 100
"""Most levels of lists and objects; our own files have about ten."""
_SHOWN = 80
"""Longest value in a message, in characters."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes, name: str) -> Any:
    """Read JSON from ``data``, the content of ``name``: a file, or one line of a file.

    If an object has a key twice, the last one counts, as in every reader of JSON.

    Raises:
        InvalidDataError: It is not JSON, is nested too deeply, or has too long a number.
    """
    return _parse(data, name, "strict")


def parse_line(data: bytes, name: str) -> Any:
    """Read a line of a log like `parse_json`, also if it has bytes that are not UTF-8.

    Such bytes become lone surrogates, as in the arguments of a command. A log is never rewritten,
    so a line that is in it must stay readable.
    """
    return _parse(data, name, "surrogateescape")


def _parse(data: bytes, name: str, errors: str) -> Any:
    try:
        value = json.loads(data.decode(json.detect_encoding(data), errors))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDataError(f"{name} is not JSON: line {line} is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidDataError(f"{name} is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidDataError(f"{name} is nested too deeply") from None
    except ValueError:
        raise InvalidDataError(f"{name} holds a number of thousands of digits") from None
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise InvalidDataError(f"{name} is nested over {_DEEPEST} levels deep")


def convert(value: Any, kind: type[T], what: str) -> T:
    """Return ``value``, plain JSON, as type ``kind``; messages call it a ``what``.

    A dataclass is made of an object that has its fields and no others. A whole number may stand
    for a float; no other type stands for another.

    Raises:
        InvalidDataError: The type is wrong; the message names the field, its type and its value.
    """
    try:
        result: T = msgspec.convert(value, kind, strict=True, dec_hook=_counter)
    except msgspec.ValidationError as error:
        raise InvalidDataError(f"this is no {what}: {explain(error)}") from None
    except UnicodeEncodeError:
        raise InvalidDataError(f"this is no {what}: a name in it is not UTF-8") from None
    _check_names(value, result, what)
    return result


def _counter(kind: Any, value: Any) -> Any:
    """Make the counts of a field of type ``Counter``, which msgspec does not know."""
    if get_origin(kind) is not Counter:
        raise NotImplementedError
    return Counter(msgspec.convert(value, dict[str, Count], strict=True))


def located(read: Callable[[Any], T], value: Any, where: str) -> T:
    """Return ``read(value)``; the message of its error begins with ``where``."""
    try:
        return read(value)
    except (InvalidDataError, IntegrityError) as error:
        raise type(error)(f"{where}: {error}") from None


def check_version(value: Any, version: int, what: str) -> dict[str, Any]:
    """Return the fields of ``value``, JSON of a ``what``, without their version.

    Raises:
        InvalidDataError: It is no object, or of another version.
    """
    if not isinstance(value, dict) or "version" not in value:
        raise InvalidDataError(f"this is no {what}: it is no object with a version")
    others = dict(value)
    if type(file_version := others.pop("version")) is not int or file_version != version:
        raise InvalidDataError(
            f"the {what} has version {short(file_version)}; this climbstream reads {version}"
        )
    return others


def explain(error: msgspec.ValidationError) -> str:
    """Return what msgspec says is wrong: ``clusters[3].tokens: expected int, got str``."""
    said, _, path = str(error).replace("`", "").partition(" - at ")
    said = f"{said[:1].lower()}{said[1:]}"
    return f"{path.removeprefix('$').removeprefix('.')}: {said}" if path else said


def short(value: object) -> str:
    """Return ``value`` as JSON for a message; of a long value only the beginning."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def valid_text(text: str) -> str:
    r"""Return ``text`` with U+FFFD for characters that UTF-8 cannot hold.

    >>> valid_text("caf\udcff")
    'caf�'
    """
    return _SURROGATE.sub("\ufffd", text)


@cache
def _names(kind: Any) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))


def _check_names(value: Any, result: Any, what: str) -> None:
    """Raise `InvalidDataError` if an object in ``value`` has a field that its dataclass lacks."""
    if is_dataclass(result) and isinstance(value, dict):
        kind: Any = type(result)
        if unknown := value.keys() - _names(kind):
            raise InvalidDataError(f"this is no {what}: there is no field {short(min(unknown))}")
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                _check_names(inner, getattr(result, name), what)
    elif isinstance(result, list | tuple) and result and is_dataclass(result[0]):
        for inner, made in zip(value, result, strict=True):
            _check_names(inner, made, what)
