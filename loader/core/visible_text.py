"""Visible text: put escapes in place of characters that would control a terminal.

Identifiers, labels, reasons, file names and answers of servers may contain any character. All
output passes through `visible` where it is written, so no other code needs to escape output.
"""

import json
import re
from typing import Any

# Control characters (C0, DEL and C1) except tab and line feed; characters that separate lines or
# reverse the direction of text; and lone surrogates, which cannot be encoded.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return ``text`` with escapes in place of characters that would control a terminal.

    >>> print(visible("red: \x1b[31m, reversed: \u202e"))
    red: \x1b[31m, reversed: \u202e
    """
    return _STEERING.sub(_written_out, text)


def visible_cell(text: str) -> str:
    r"""Return ``text`` as `visible` does, with escapes also for line feeds and tabs.

    >>> print(visible_cell("one\ttwo\n"))
    one\ttwo\n
    """
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def visible_json(value: Any) -> str:
    """Return ``value`` as one line of JSON that cannot control a terminal."""
    return _STEERING.sub(_as_json, json.dumps(value, ensure_ascii=False))


def _written_out(match: re.Match[str]) -> str:
    return f"\\x{code:02x}" if (code := ord(match[0])) < 0x100 else _as_json(match)


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
