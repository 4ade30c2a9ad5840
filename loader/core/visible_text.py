"""Visible text: escape characters that would steer a terminal.

Identifiers, labels, reasons, file names and answers of servers may hold any character. All output
passes through `visible` where it is written, so no other code has to escape output.
"""

import json
import re
from typing import Any

# Control characters except tab and line feed, DEL, C1, marks that reorder a line, line separators,
# and lone surrogates, which could not be encoded.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return ``text`` with escapes for the characters that steer a terminal.

    >>> print(visible("red: \x1b[31m, reversed: \u202e"))
    red: \x1b[31m, reversed: \u202e
    """
    return _STEERING.sub(_written_out, text)


def visible_cell(text: str) -> str:
    r"""Return ``text`` as `visible` does, with line feeds and tabs escaped as well.

    >>> print(visible_cell("one\ttwo\n"))
    one\ttwo\n
    """
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def visible_json(value: Any) -> str:
    """Return ``value`` as one line of JSON, with characters that steer a terminal escaped."""
    return _STEERING.sub(_as_json, json.dumps(value, ensure_ascii=False))


def _written_out(match: re.Match[str]) -> str:
    return f"\\x{code:02x}" if (code := ord(match[0])) < 0x100 else _as_json(match)


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
