"""Tabular: return rows as a data frame of pandas or polars, as Markdown, or as CSV."""

import csv
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UsageError
from .files import write_bytes

LIBRARIES = ("pandas", "polars")


class Tabular:
    """A base class for objects that can be shown as a table; a subclass defines `to_rows`."""

    __slots__ = ()

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the rows, each as a dict of values by column; all rows have the same columns."""
        raise NotImplementedError

    def to_frame(self, library: str = "pandas") -> Any:
        """Return the rows as a ``DataFrame`` of ``pandas`` or ``polars``.

        Raises:
            UsageError: ``library`` is neither ``pandas`` nor ``polars``, or is not installed.
        """
        if library not in LIBRARIES:
            raise UsageError(
                f"data frames of {library!r} are not supported; choose one of "
                f"{', '.join(LIBRARIES)}"
            )
        try:
            module = importlib.import_module(library)
        except ImportError:
            raise UsageError(f"{library} is not installed; pip install {library}") from None
        return module.DataFrame(self.to_rows())

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV text; if ``path`` is given, also write the text to this file."""
        rows = self.to_rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if path is not None:
            write_bytes(Path(path), text.getvalue().encode())
        return text.getvalue()

    def to_markdown(self) -> str:
        """Return the rows as a Markdown table."""
        rows = self.to_rows()
        columns = _columns(rows)
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell(row[column]) for column in columns] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else []


def _cell(value: object) -> str:
    """Return ``value`` as the text of a cell in a Markdown table; "" for None."""
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
