"""Typed: convert JSON from files to the types of a format; errors name the faulty field.

Files are not trusted: a file may hold no JSON, endless nesting, numbers too large for any type, or
text instead of a number. `parse_json` returns plain JSON values, and `convert` returns an object of
a format's type. Both functions raise only `InvalidDataError`.
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
"""A whole number of 0 or more that fits into an int64."""
Whole = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A whole number that fits into an int64."""
Finite = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]
"""A number that is neither infinite nor NaN."""

_DEEPEST = 100
"""Largest depth of nested lists and objects; our own files have about ten levels."""
_SHOWN = 80
"""Number of characters after which a value in a message is cut."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes, name: str) -> Any:
    """Return the JSON value in ``data``, the content of ``name``: a file, or one line of a file.

    If an object has a key twice, the last value counts, as in Python's own JSON reader.

    Raises:
        InvalidDataError: ``data`` is not JSON, is nested too deeply, or has too long a number.
    """
    return _parse(data, name, "strict")


def parse_line(data: bytes, name: str) -> Any:
    """Read a line of a log like `parse_json`, but accept bytes that are not UTF-8.

    Bytes that are not UTF-8 become lone surrogates, as in the arguments of a command. A log is
    never rewritten, so each of its lines must stay readable.
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
    """Convert ``value``, plain JSON, to the type ``kind``; error messages call it a ``what``.

    An object becomes a dataclass only if all its keys are fields of that dataclass. A whole number
    is accepted as a float; no other conversion between types is made.

    Raises:
        InvalidDataError: A type is wrong, or a field is unknown or missing; the message names it.
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
    """Convert ``value`` to a ``Counter`` for a field of that type, which msgspec does not know."""
    if get_origin(kind) is not Counter:
        raise NotImplementedError
    return Counter(msgspec.convert(value, dict[str, Count], strict=True))


def located(read: Callable[[Any], T], value: Any, where: str) -> T:
    """Return ``read(value)``; if it raises, ``where`` is put before the message of the error."""
    try:
        return read(value)
    except (InvalidDataError, IntegrityError) as error:
        raise type(error)(f"{where}: {error}") from None


def check_version(value: Any, version: int, what: str) -> dict[str, Any]:
    """Check the version of ``value``, the JSON object of a ``what``; return its other fields.

    Raises:
        InvalidDataError: ``value`` is no object with a version, or its version is not ``version``.
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
    """Return msgspec's message, field first: ``clusters[3].tokens: expected int, got str``."""
    said, _, path = str(error).replace("`", "").partition(" - at ")
    said = f"{said[:1].lower()}{said[1:]}"
    return f"{path.removeprefix('$').removeprefix('.')}: {said}" if path else said


def short(value: object) -> str:
    """Return the ``repr`` of ``value`` for a message, cut after 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def valid_text(text: str) -> str:
    r"""Return ``text`` with U+FFFD in place of lone surrogates, which UTF-8 cannot encode.

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
