"""Near copies: some of them beside the documents that stay in their place, for the report."""

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
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.html_page import paragraph, quotation, section
from climbstream.loader.core.typed import convert
from climbstream.loader.formats.catalogue import read_parquet
from climbstream.loader.formats.documents import read_shard
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
from climbstream.loader.formats.tokenizer import read_tokenizer

Document = dict[str, str]
"""``id`` and ``text``."""
_PAIRS, _PAIR_LENGTH, _BEFORE = 8, 500, 120
"""Limits for the near copies that are shown beside their originals: the number of pairs, the
characters of each text, and the characters before the first difference, if it comes late."""


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A near copy and the document that stays in its place, cut to what the report shows."""

    copy: Document
    original: Document
    note: str
    """A sentence on what is not shown of both; "" if there is none."""


@dataclass(frozen=True, slots=True)
class NearCopies:
    """The near copies that the report of a directory shows."""

    build: tuple[NearCopy, ...] = ()
    append: tuple[NearCopy, ...] = ()
    """Those of the last append; empty before the first append."""

    def to_json(self) -> dict[str, Any]:
        """Return the near copies as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "NearCopies":
        """Read what `to_json` returned; None, as in directories of earlier versions, is empty.

        Raises:
            InvalidDataError: ``value`` is no such value.
        """
        return cls() if value is None else convert(value, cls, "near copies")

    def sections(self) -> list[str]:
        """Return a section of the report for the build, and one for the last append."""
        when = (" of the first build", " of the last append") if self.append else ("", "")
        note = "Each beside the document that stays in its place; words that differ are marked."
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
    """Return some near copies with their originals, which ``parts`` of the catalogue name.

    Tasks read the documents. An original that is in no shard has no text, so it is not shown.

    Args:
        engine: Where tasks run.
        parts: Parts of the catalogue that list the near copies.
        first: Number of the first document in ``parts``.
        sources: Partitions of new documents or, of documents that were in the directory before an
            append, parts of the catalogue.
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
    """Return the rows of a part of the catalogue, and the first near copies: row and original."""
    originals = read_parquet(part, ["copy_of"])["copy_of"]
    rows = np.flatnonzero(np.array(originals.is_valid()))[:_PAIRS]
    return len(originals), [*zip(rows.tolist(), originals.take(rows).to_pylist(), strict=True)]


def _read_document(place: tuple[Partition | Path, int]) -> Document:
    """Read a document of a partition, or one that a part of the catalogue lists."""
    source, row = place
    if isinstance(source, Path):
        return _read_stored(source, row)
    return dict(source.take(np.array([row]), "id", "text").to_pylist()[0])


def _read_stored(part: Path, row: int) -> Document:
    """Read the document in row ``row`` of a part of the catalogue from its shard, by the tokenizer.

    The text is "" if the document is in no shard.
    """
    table = read_parquet(part, ["id", "cluster", "shard", "row"])
    (listed,) = table.slice(row, 1).to_pylist()
    if listed["shard"] is None:
        return {"id": listed["id"], "text": ""}
    directory = part.parents[1]
    manifest = Manifest.load(directory)
    (cluster,) = (each for each in manifest.clusters if each.name == listed["cluster"])
    shard = load_index(directory, manifest, cluster).shards[listed["shard"]]
    view = read_shard(cluster_folder(directory, cluster.name), shard, manifest.dtype)
    tokens = view.document(listed["row"], manifest.dtype).tolist()
    if tokens[-1:] == [manifest.eos_id]:
        tokens.pop()
    text = read_tokenizer(directory).decode(tokens, skip_special_tokens=False)
    return {"id": listed["id"], "text": text}


def near_copy(copy: Document, original: Document) -> NearCopy:
    """Cut a near copy and its original to the same part: the beginning, or where they differ."""
    one, other = (_one_line(document["text"]) for document in (copy, original))
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    begin, cut, note = 0, "", ""
    if one == other:
        note = "These differ only in white space, or in how accents are written."
    elif at > _PAIR_LENGTH - _BEFORE:
        begin, cut = at - _BEFORE, "… "
        note = f"The first {at:,} characters are equal; here they differ first."
    ours, theirs = (
        {"id": document["id"], "text": cut + opening(text[begin:], _PAIR_LENGTH)}
        for document, text in ((copy, one), (original, other))
    )
    return NearCopy(ours, theirs, note)


def _one_line(text: str) -> str:
    """Return ``text`` on one line, with accents written in one way."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _shown(pair: NearCopy) -> str:
    """Show a near copy beside its original."""
    note = paragraph(pair.note) if pair.note else ""
    return f'{note}<div class="sides">{_pair(pair.copy, pair.original)}</div>'


_ALONE = "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]\s*|[^\s{_ALONE}]+\s*|\s+")
"""A word; or a character of Chinese or Japanese, which put no spaces between words."""


def _pair(copy: Document, original: Document) -> str:
    """Show two documents, and mark the words that only one of them has.

    Where a text is cut off makes no difference.
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
