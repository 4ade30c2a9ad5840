"""Typed: convert JSON from files to the types of a format; errors name the wrong field.

Files are not trusted. For example, a file may not be JSON, may be nested without end, or may have a
text in place of a number. `parse_json` returns plain JSON values, and `convert` turns these into an
object of a given type. Both functions raise only `InvalidDataError`.
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
"""Largest accepted depth of nested lists and objects; our own files have about ten levels."""
_SHOWN = 80
"""Largest length of a value in a message, in characters; longer values are cut."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(data: bytes, name: str) -> Any:
    """Return the JSON value in ``data``, the content of a file or of a line of a file.

    ``name`` names the file or line in messages. If an object has a key twice, the last value
    counts, as in Python's own JSON reader.

    Raises:
        InvalidDataError: ``data`` is not JSON, is nested too deeply, or has too long a number.
    """
    return _parse(data, name, "strict")


def parse_line(data: bytes, name: str) -> Any:
    """Return the JSON value in a line of a log, which need not be valid UTF-8.

    Bytes that are not UTF-8 become lone surrogates, as in the arguments of a command. Such a line
    must stay readable, because a log is never rewritten.

    Raises the same errors as `parse_json`.
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
        raise InvalidDataError(f"{name} holds a number with thousands of digits") from None
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
    """Return ``value``, plain JSON values, as an object of the type ``kind``.

    For a dataclass, the keys of a JSON object must be fields of the dataclass. A whole number is
    accepted in place of a float; otherwise types must match. ``what`` says in messages what
    ``value`` should be, such as "manifest".

    Raises:
        InvalidDataError: A type is wrong, or a field is unknown or missing; the message names the
            field.
    """
    try:
        result: T = msgspec.convert(value, kind, strict=True, dec_hook=_counter)
    except msgspec.ValidationError as error:
        raise InvalidDataError(f"this is not a valid {what}: {explain(error)}") from None
    except UnicodeEncodeError:
        raise InvalidDataError(f"this is not a valid {what}: a name in it is not UTF-8") from None
    _check_names(value, result, what)
    return result


def _counter(kind: Any, value: Any) -> Any:
    """Return ``value`` as a ``Counter`` if ``kind`` is this type, which msgspec does not know."""
    if get_origin(kind) is not Counter:
        raise NotImplementedError
    return Counter(msgspec.convert(value, dict[str, Count], strict=True))


def located(read: Callable[[Any], T], value: Any, where: str) -> T:
    """Return ``read(value)``; put ``where`` before the message of an error in the data."""
    try:
        return read(value)
    except (InvalidDataError, IntegrityError) as error:
        raise type(error)(f"{where}: {error}") from None


def check_version(value: Any, version: int, what: str) -> dict[str, Any]:
    """Check the version of ``value``, a JSON object, and return its other fields.

    ``what`` says in messages what ``value`` should be, such as "manifest".

    Raises:
        InvalidDataError: ``value`` is no object with a version, or its version is not ``version``.
    """
    if not isinstance(value, dict) or "version" not in value:
        raise InvalidDataError(f"this is not a valid {what}: it is not an object with a version")
    others = dict(value)
    if type(file_version := others.pop("version")) is not int or file_version != version:
        raise InvalidDataError(
            f"the {what} has version {short(file_version)}; this climbstream reads {version}"
        )
    return others


def explain(error: msgspec.ValidationError) -> str:
    """Return the message of ``error`` with the field first.

    For example: ``clusters[3].tokens: expected int, got str``.
    """
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
            raise InvalidDataError(
                f"this is not a valid {what}: there is no field {short(min(unknown))}"
            )
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                _check_names(inner, getattr(result, name), what)
    elif isinstance(result, list | tuple) and result and is_dataclass(result[0]):
        for inner, made in zip(value, result, strict=True):
            _check_names(inner, made, what)
