"""Losses in the report: what is kept of each language, and samples of what was left out."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import each, in_order
from climbstream.builder.features.words import opening
from climbstream.builder.settings import SCORES
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.html_page import (
    direction,
    isolated,
    paragraph,
    quotation,
    section,
    table,
)
from climbstream.loader.formats.catalogue import read_parquet
from climbstream.loader.formats.clusters import reason_title, score_title
from climbstream.loader.formats.manifest import Manifest, part_paths

Document = dict[str, str]
"""``id`` and ``text``."""
_SHOWN = 40
"""Number of languages and of scripts that are listed, the largest first."""
_PAIRS, _PAIR_LENGTH, _BEFORE = 8, 500, 120
"""Limits for the near copies that are shown beside their originals: the number of pairs, the
characters of each text, and the characters before the first difference, if it comes late."""


def counts_of(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's counts of what was kept of each language, script and label."""
    return next((s["kept"] for s in manifest.conservation if "kept" in s), {})


def loss_sections(
    counts: Mapping[str, Any],
    samples: Mapping[str, Sequence[Any]],
    why: Mapping[int, str],
    pairs: Sequence[tuple[Document, Document]] = (),
    *,
    appended: bool = False,
) -> list[str]:
    """Return sections on languages, dropped documents, near copies and pruned micro-clusters.

    ``appended`` says that an append has added documents. The section with samples then says that no
    added documents are shown.
    """
    sections = []
    if counts.get("language"):
        tables = [_kept(what, counts[what]) for what in ("language", "script")]
        note = "und is text whose language was not found, and code are programs."
        sections.append(section("Languages", paragraph(note), *tables))
    if samples:
        note = (
            "Some documents for each reason, with scores from 0 to 5; higher is better, "
            "also of ad-free. climb dropped lists them, and --keep-ids keeps some."
        )
        if appended:
            note += (
                " These are of the first build. Documents that were added later are not shown, nor "
                "are near copies beside their originals."
            )
        sections.append(section("Left out", paragraph(note), _samples(samples)))
    if pairs:
        note = "Each beside the document that stays in its place; words that differ are marked."
        shown = "".join(map(_side_by_side, pairs))
        sections.append(section("Near copies", paragraph(note), shown))
    if why:
        sections.append(section("Micro-clusters pruned", _pruned(why, samples)))
    return sections


def _kept(what: str, names: Mapping[str, Any]) -> str:
    largest = sorted(names.items(), key=lambda item: -item[1]["documents"])[:_SHOWN]
    rows = [
        (
            f"<code>{escape(name)}</code>",
            f"{entry['documents']:,}",
            f"{entry['kept']:,}",
            f"{entry['kept'] / max(entry['documents'], 1):.1%}",
            f"{entry['kept_bytes'] / 1e6:,.2f}",
        )
        for name, entry in largest
    ]
    heads = (what, "documents", "kept", "part", "MB kept")
    return table(heads, rows, numbers=(1, 2, 3, 4))


def near_copies(
    engine: Engine, out: Path, partitions: Sequence[Partition], counts: Sequence[int]
) -> list[tuple[Document, Document]]:
    """Return some near copies with their originals, which the catalogue in ``out`` names.

    Tasks read the documents. ``counts`` has the number of documents of each partition.
    """
    ends = np.cumsum(counts)
    numbers: list[int] = []
    first = 0
    for count, pairs in each(engine, part_paths(out), _find_copies):
        for row, original in pairs[: _PAIRS - len(numbers) // 2]:
            numbers += [first + row, original]
        if len(numbers) == 2 * _PAIRS:
            break  # no need to read the other parts
        first += count
    found = np.searchsorted(ends, numbers, side="right").tolist()
    begins = np.concatenate([[0], ends])[found]
    rows = (np.array(numbers, np.int64) - begins).tolist()
    places = [(partitions[i], row) for i, row in zip(found, rows, strict=True)]
    documents = [*in_order(engine, _read_document, places)]
    return [*zip(documents[::2], documents[1::2], strict=True)]


def _find_copies(part: Path) -> tuple[int, list[tuple[int, int]]]:
    """Return the rows of a part of the catalogue, and the first near copies: row and original."""
    originals = read_parquet(part, ["copy_of"])["copy_of"]
    rows = np.flatnonzero(np.array(originals.is_valid()))[:_PAIRS]
    return len(originals), [*zip(rows.tolist(), originals.take(rows).to_pylist(), strict=True)]


def _read_document(place: tuple[Partition, int]) -> Document:
    """Read a document of a partition."""
    partition, row = place
    return dict(partition.take(np.array([row]), "id", "text").to_pylist()[0])


def _side_by_side(documents: tuple[Document, Document]) -> str:
    """Show a near copy beside its original, from the beginning or from where they differ."""
    one, other = (_one_line(document["text"]) for document in documents)
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    begin, cut, note = 0, "", ""
    if one == other:
        note = paragraph("These differ only in white space, or in how accents are written.")
    elif at > _PAIR_LENGTH - _BEFORE:
        begin, cut = at - _BEFORE, "… "
        note = paragraph(f"The first {at:,} characters are equal; here they differ first.")
    shown = [
        {"id": document["id"], "text": cut + opening(text[begin:], _PAIR_LENGTH)}
        for document, text in zip(documents, (one, other), strict=True)
    ]
    return f'{note}<div class="sides">{_pair(*shown)}</div>'


def _one_line(text: str) -> str:
    """Return ``text`` on one line, with accents written in one way."""
    return " ".join(unicodedata.normalize("NFC", text).split())


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


def _samples(samples: Mapping[str, Sequence[Any]]) -> str:
    rows = [
        (escape(reason_title(reason)), *_sample(sample))
        for reason, some in sorted(samples.items())
        for sample in some[:4]
    ]
    heads = ("reason", "document", "text", *map(score_title, SCORES))
    return table(heads, rows, numbers=tuple(range(3, 3 + len(SCORES))), texts=(2,))


def _sample(sample: Mapping[str, Any]) -> tuple[str | tuple[str, str], ...]:
    name = ('class="id"', isolated(sample["id"]))
    return (name, _shown(sample["text"]), *(f"{sample[score]:.1f}" for score in SCORES))


def _shown(text: str) -> str:
    """Show text of any direction in a cell."""
    return f"<div{direction(text)}>{escape(text)}</div>"


def _pruned(why: Mapping[int, str], samples: Mapping[str, Sequence[Any]]) -> str:
    shown: dict[int, str] = {}
    for sample in samples.get("pruned cluster", ()):
        shown.setdefault(sample["micro"], _shown(sample["text"]))
    rows = [(f"{micro}", escape(reason), shown.get(micro, "")) for micro, reason in why.items()]
    return table(("micro-cluster", "reason", "a document of it"), rows, texts=(1, 2))
