"""Tables for a terminal."""

from collections.abc import Sequence

from .visible_text import visible_cell


def text_table(heads: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Lay out a table for a terminal; the first ``left`` columns are set to the left."""
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
