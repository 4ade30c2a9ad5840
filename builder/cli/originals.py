"""Originals: which document each dropped copy repeats, and whether that document stays."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from climbstream.builder.selection.reasons import BY_LICENSE, NEAR, REASONS
from climbstream.builder.settings import EQUAL_TEXT
from climbstream.loader.formats.catalogue import row_groups

Row = dict[str, Any]

_NOT_COMPARED = (*REASONS[1 : REASONS.index(EQUAL_TEXT) + 1], *BY_LICENSE)
"""Reasons of documents that cannot be originals: they were dropped before texts were compared, or
are copies themselves."""


def add_originals(parts: Sequence[Path], rows: Sequence[Row]) -> None:
    """Add the keys ``original`` and ``original_why`` to each of ``rows``.

    For a dropped copy, ``original`` is the identifier of the document that it repeats. If that
    document is left out too, ``original_why`` is the reason; if it stays, ``original_why`` is None.
    For other rows, both are None. ``rows`` must be all dropped documents of the catalogue in
    ``parts``, with the keys ``why``, ``copy_of`` and ``text_hash``. The keys ``copy_of`` and
    ``text_hash`` are removed.
    """
    texts = {row["text_hash"] for row in rows if row["why"] == EQUAL_TEXT} - {None}
    numbers = {row["copy_of"] for row in rows if row["why"] == NEAR} - {None}
    by_number, by_text = _read_originals(parts, numbers, texts) if texts or numbers else ({}, {})
    for row in rows:
        number, text = row.pop("copy_of"), row.pop("text_hash")
        original: Row = {}
        if row["why"] == NEAR:
            original = by_number.get(number, {})
        elif row["why"] == EQUAL_TEXT:
            original = by_text.get(text, {})
            if original.get("why") == NEAR:
                original = by_number.get(original["copy_of"], {})
        row["original"], row["original_why"] = original.get("id"), original.get("why")


def _read_originals(
    parts: Sequence[Path], numbers: set[int], texts: set[bytes]
) -> tuple[dict[int, Row], dict[bytes, Row]]:
    """Return the documents with these ``numbers``, by number, and the originals of ``texts``.

    ``texts`` are hashes of texts. The original of a text is the first document with this text that
    was not dropped for a reason in `_NOT_COMPARED`.
    """
    by_number: dict[int, Row] = {}
    by_text: dict[bytes, Row] = {}
    wanted = np.array(sorted(numbers), np.int64)
    hashes = pa.array(sorted(texts), pa.binary(16))
    first = 0
    columns = ["id", "why", "copy_of", "text_hash"]
    for table in chain.from_iterable(row_groups(part, columns) for part in parts):
        here = wanted[slice(*np.searchsorted(wanted, [first, first + len(table)]).tolist())]
        found = table.take(here - first).to_pylist()
        by_number.update(zip(here.tolist(), found, strict=True))
        compared = pc.invert(pc.is_in(table["why"], pa.array(_NOT_COMPARED)))
        same = pc.and_(compared, pc.is_in(table["text_hash"], hashes))
        for row in table.filter(same).to_pylist():
            by_text.setdefault(row["text_hash"], row)
        first += len(table)
    return by_number, by_text
