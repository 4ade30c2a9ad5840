"""Console: messages and progress on stderr, and texts and tables for people to read."""

import math
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from .visible_text import visible, visible_cell


def say(message: str) -> None:
    """Write ``message`` as a line to stderr, because stdout is only for results."""
    sys.stderr.write(visible(message) + "\n")
    sys.stderr.flush()


class Progress:
    """Shows the progress of a piece of work: units done, rate, time elapsed and time left.

    On a terminal one line is rewritten; elsewhere a line is written every ten seconds, so that
    logs stay readable.

    Args:
        what: Name of the work, with which the line begins.
        total: Number of units of the work; None: unknown.
        unit: Name of the units, such as "tokens".
        done: Number of units that were done before; they do not count in the rate.
        stream: Where the line is written; default: stderr.
        part: Name of a part of the work, such as "round 2", if the units are those of a part. The
            line then says that the elapsed time is that of the part.
        later: Number of units that follow this work; the time left includes the time for them.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        done: int = 0,
        stream: TextIO | None = None,
        part: str = "",
        later: int = 0,
    ) -> None:
        self._what = what
        self._part = part
        self._total = total
        self._later = later
        self._unit = unit
        self._done = self._before = done
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._period = 0.2 if self._live else 10.0
        self._start = self._rated = self._shown = time.monotonic()
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show(ending="" if kind is None else " · stopped", end="\n", ended=kind is None)

    def skip(self, units: int) -> None:
        """Add ``units`` that were done earlier, for example in a run before.

        They count as done, but not in the rate, which is measured from now on.
        """
        self._done += units
        self._before = self._done
        self._rated = time.monotonic()

    def add(self, units: int, note: str = "") -> None:
        """Add ``units`` that were done now; ``note`` is shown at the end of the line."""
        self._done += units
        now = time.monotonic()
        if now - self._shown >= self._period:
            self._shown = now
            self._show(note and f" · {note}", end="" if self._live else "\n")

    def _show(self, ending: str, end: str, *, ended: bool = False) -> None:
        now = time.monotonic()
        seconds, rated = now - self._start, self._done - self._before
        rate = rated / max(now - self._rated, 1e-9)
        parts = [f"{self._what}: {short_number(self._done)}"]
        if self._total is not None:
            parts[0] += f"/{short_number(self._total)}"
        one = (self._done if self._total is None else self._total) == 1
        parts[0] += f" {_singular(self._unit) if one else self._unit}"
        if rated or not self._done:
            parts.append(
                f"{short_number(rate)}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s each"
            )
        ended = ended or self._done == self._total
        if ended:
            parts.append(f"{self._part} in {duration(seconds)}".lstrip())
        else:
            parts.append(f"{duration(seconds)} elapsed{self._part and f' in {self._part}'}")
        if self._total is not None and self._done < self._total and rate and not ended:
            left = f"{duration((self._total - self._done + self._later) / rate)} left"
            if self._later:
                left += f", with {short_number(self._later)} {self._unit} that follow"
            parts.append(left)
        start = "\r\x1b[K" if self._live else ""
        line = visible_cell(" · ".join(parts) + ending)
        if self._live or line != self._line:  # a log does not need the same line twice
            self._stream.write(start + line + end)
            self._stream.flush()
        self._line = line


def _singular(unit: str) -> str:
    """Return the singular of ``unit``.

    >>> _singular("documents"), _singular("proxies")
    ('document', 'proxy')
    """
    return f"{unit.removesuffix('ies')}y" if unit.endswith("ies") else unit.removesuffix("s")


def duration(seconds: float) -> str:
    """Return ``seconds`` as a text for people.

    >>> duration(7.25), duration(67), duration(7380)
    ('7.2 s', '1 min 07 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(n: int, what: str, plural: str = "") -> str:
    """Return a text with the number ``n`` and the noun ``what``, in the plural unless ``n`` is 1.

    ``plural`` is the plural of ``what``; default: ``what`` with an s.

    >>> counted(1, "document"), counted(1200, "document"), counted(0, "proxy", "proxies")
    ('1 document', '1,200 documents', '0 proxies')
    """
    return f"{n:,} {what if n == 1 else plural or f'{what}s'}"


def short_number(value: float) -> str:
    """Return ``value`` as a text of at most four digits; from 10,000 on, with k, M, G or T.

    >>> short_number(9_999), short_number(12_345), short_number(2_345_678_901)
    ('9999', '12.3k', '2.35G')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if letter == "k" else size)
            return f"{scaled:.3g}{letter}" if scaled < 100 else f"{scaled:.0f}{letter}"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def decimals(sds: Sequence[float], values: Sequence[float]) -> int:
    """Return how many decimals to show of ``values`` that have the standard deviations ``sds``.

    With this number of decimals, the smallest standard deviation shows one digit; standard
    deviations that are only rounding errors are ignored. The number is 6 at most, and at least 3 if
    all values are below 100, else at least 1.

    >>> decimals([0.0031], [3.1149]), decimals([1e-17], [3.1149])
    (3, 3)
    """
    largest = max(map(abs, values), default=0)
    least = 3 if largest < 100 else 1
    # A standard deviation that is only a rounding error of the values is ignored.
    least_sd = min((sd for sd in sds if 1e-9 * largest < sd < math.inf), default=1.0)
    return min(6, max(least, math.ceil(-math.log10(least_sd))))


def with_error(value: float, sd: float | None, digits: int) -> str:
    """Return the text ``value ± sd`` with ``digits`` decimals.

    If the standard deviation ``sd`` is None or infinite, the text is only ``value``.

    >>> with_error(3.1149, 0.0031, 3), with_error(0.026, None, 3), with_error(-1e-9, None, 3)
    ('3.115 ± .003', '.026', '.000')
    """
    text = _plain(value, digits)
    return text if sd is None or math.isinf(sd) else f"{text} ± {_plain(sd, digits)}"


def _plain(value: float, digits: int) -> str:
    text = f"{value:z.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def text_table(heads: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Return a table for a terminal.

    The first ``left`` columns are aligned to the left, the others to the right.
    """
    cells = [
        [visible_cell(head) for head in heads],
        *([visible_cell(str(value)) for value in row] for row in rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = (
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)
