"""What is written to a terminal: characters that would steer it are shown, not obeyed.

Identifiers, labels, reasons, file names and what a server said are anybody's text. All output goes
through `visible`, where it is written; nothing else need think of it.
"""

import json
import re
from typing import Any

# Controls but tab and line feed, DEL, C1, what reorders a line, line separators, and halves of
# characters, which could not be encoded.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return ``text`` with the characters that steer a terminal written out.

    >>> print(visible("red: \x1b[31m, reversed: \u202e"))
    red: \x1b[31m, reversed: \u202e
    """
    return _STEERING.sub(_written_out, text)


def visible_cell(text: str) -> str:
    r"""Do what `visible` does, for text that stays on one line and in its column.

    >>> print(visible_cell("one\ttwo\n"))
    one\ttwo\n
    """
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def visible_json(value: Any) -> str:
    """Return ``value`` as one line of JSON that steers no terminal, and reads as the same value."""
    return _STEERING.sub(_as_json, json.dumps(value, ensure_ascii=False))


def _written_out(match: re.Match[str]) -> str:
    return f"\\x{code:02x}" if (code := ord(match[0])) < 0x100 else _as_json(match)


def _as_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
