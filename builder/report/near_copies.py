"""Near copies in the report: some of them are shown beside the documents that are kept instead.

The catalogue is the table of all documents of a directory, stored in several files (parts).
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import each, in_order
from climbstream.builder.features.words import opening
from climbstream.builder.settings import EQUAL_TEXT
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.html_page import paragraph, quotation, section
from climbstream.loader.core.typed import convert
from climbstream.loader.formats.catalogue import read_parquet
from climbstream.loader.formats.directory import ShardDirectory

Document = dict[str, str]
"""A document, as ``id`` and ``text``."""
_PAIRS, _PAIR_LENGTH, _BEFORE = 8, 500, 120
"""Limits for near copies that are shown beside their originals: the number of pairs, and the number
of characters of each text. The third number is for texts that are not shown from their beginning:
how many characters before the first difference are shown."""


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A near copy and the document that is kept instead, both cut to what the report shows."""

    copy: Document
    original: Document
    note: str
    """A sentence on differences or text that the report does not show; "" if none is needed."""


@dataclass(frozen=True, slots=True)
class NearCopies:
    """The near copies that the report of a directory shows."""

    build: tuple[NearCopy, ...] = ()
    append: tuple[NearCopy, ...] = ()
    """Near copies that the last append found; empty if there was no append."""

    def to_json(self) -> dict[str, Any]:
        """Return the near copies as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "NearCopies":
        """Return the near copies in ``value``, which `to_json` returned; none if ``value`` is None.

        Raises:
            InvalidDataError: ``value`` is neither None (an earlier version) nor what `to_json`
                returns.
        """
        return cls() if value is None else convert(value, cls, "near copies")

    def sections(self) -> list[str]:
        """Return the report's sections on near copies: of the build, and of the last append."""
        when = (" of the first build", " of the last append") if self.append else ("", "")
        note = (
            "Each near copy is beside its original, the better document, which is kept. Words "
            "that differ are marked."
        )
        return [
            section(f"Near copies{of}", paragraph(note), "".join(map(_shown, copies)))
            for of, copies in zip(when, (self.build, self.append), strict=True)
            if copies
        ]


def find_copies(
    engine: Engine,
    parts: Sequence[Path],
    first: int,
    sources: Sequence[Partition | Path],
    counts: Sequence[int],
) -> tuple[NearCopy, ...]:
    """Return some near copies that ``parts`` of the catalogue list, with their originals.

    Tasks read the documents. If an original is in no shard, its text cannot be read, and the pair
    is left out.

    Args:
        engine: Where tasks run.
        parts: Parts of the catalogue that list the near copies.
        first: Number of the first document in ``parts``.
        sources: Where the texts are read: partitions for new documents; parts of the catalogue for
            documents that were in the directory before an append.
        counts: Number of documents of each of ``sources``.
    """
    ends = np.cumsum(counts)
    numbers: list[int] = []
    for count, pairs in each(engine, parts, _find_copies):
        for row, original in pairs[: _PAIRS - len(numbers) // 2]:
            numbers += [first + row, original]
        if len(numbers) == 2 * _PAIRS:
            break  # no need to read the other parts
        first += count
    found = np.searchsorted(ends, numbers, side="right").tolist()
    begins = np.concatenate([[0], ends])[found]
    rows = (np.array(numbers, np.int64) - begins).tolist()
    places = [(sources[i], row) for i, row in zip(found, rows, strict=True)]
    documents = [*in_order(engine, _read_document, places)]
    pairs_found = zip(documents[::2], documents[1::2], strict=True)
    return tuple(near_copy(copy, original) for copy, original in pairs_found if original["text"])


def _find_copies(part: Path) -> tuple[int, list[tuple[int, int]]]:
    """Return the number of rows of a part, and its first near copies as (row, original)."""
    table = read_parquet(part, ["copy_of", "why"])
    originals = table["copy_of"]
    exact = np.array(table["why"].to_pylist()) == EQUAL_TEXT
    rows = np.flatnonzero(np.array(originals.is_valid()) & ~exact)[:_PAIRS]
    return len(originals), [*zip(rows.tolist(), originals.take(rows).to_pylist(), strict=True)]


def _read_document(place: tuple[Partition | Path, int]) -> Document:
    """Return a document, read from a partition or from the shard that a catalogue part names."""
    source, row = place
    if isinstance(source, Path):
        return _read_stored(source, row)
    return dict(source.take(np.array([row]), "id", "text").to_pylist()[0])


def _read_stored(part: Path, row: int) -> Document:
    """Return the document that row ``row`` of a part lists; its tokens in the shard are decoded.

    The text is "" if the document is in no shard.
    """
    table = read_parquet(part, ["id", "cluster", "shard", "row"])
    (listed,) = table.slice(row, 1).to_pylist()
    if listed["shard"] is None:
        return {"id": listed["id"], "text": ""}
    shards = ShardDirectory(part.parents[1])
    (documents,) = shards.documents(listed["cluster"], [listed["shard"]])
    tokens = documents[listed["row"]].tolist()
    if tokens[-1:] == [shards.manifest.eos_id]:
        tokens.pop()
    text = shards.tokenizer().decode(tokens, skip_special_tokens=False)
    return {"id": listed["id"], "text": text}


def near_copy(copy: Document, original: Document) -> NearCopy:
    """Return both texts, cut to the same part: their beginning, or their first difference."""
    one, other = (_one_line(document["text"]) for document in (copy, original))
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    begin, cut, note = 0, "", ""
    if one == other:
        note = "These differ only in white space, or in how accents are written."
    elif at > _PAIR_LENGTH - _BEFORE:
        begin, cut = at - _BEFORE, "… "
        note = f"The first {at:,} characters are equal; the first difference is shown here."
    ours, theirs = (
        {"id": document["id"], "text": cut + opening(text[begin:], _PAIR_LENGTH)}
        for document, text in ((copy, one), (original, other))
    )
    return NearCopy(ours, theirs, note)


def _one_line(text: str) -> str:
    """Return ``text`` on one line, in the Unicode form NFC."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _shown(pair: NearCopy) -> str:
    """Return HTML that shows a near copy beside its original."""
    note = paragraph(pair.note) if pair.note else ""
    return f'{note}<div class="sides">{_pair(pair.copy, pair.original)}</div>'


_ALONE = "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]\s*|[^\s{_ALONE}]+\s*|\s+")
"""A word; in Chinese and Japanese, which have no spaces between words, a character."""


def _pair(copy: Document, original: Document) -> str:
    """Return HTML that shows two documents, and marks the words that only one of them has.

    A word at which a text is cut off is not marked.
    """
    words = [_WORD.findall(document["text"]) for document in (copy, original)]
    matcher = SequenceMatcher(None, words[0], words[1], autojunk=False)
    blocks = matcher.get_matching_blocks()
    sides = []
    for side, (document, own) in enumerate(zip((copy, original), words, strict=True)):
        same = {block[side] + i for block in blocks for i in range(block.size)}
        text = "".join(
            escape(word) if i in same or word.endswith("…") else f"<mark>{escape(word)}</mark>"
            for i, word in enumerate(own)
        )
        sides.append(quotation(document["id"], document["text"], text))
    return "".join(sides)
