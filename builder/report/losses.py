"""Losses in the report: how much of each language is kept, and samples of what was left out."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from climbstream.builder.settings import SCORES
from climbstream.loader.core.html_page import (
    direction,
    isolated,
    paragraph,
    section,
    table,
)
from climbstream.loader.formats.clusters import reason_title, score_title
from climbstream.loader.formats.manifest import Manifest

from .near_copies import NearCopies

_SHOWN = 40
"""Maximum number of languages, and of scripts, that are listed: those with the most documents."""
_NONE = NearCopies()


def counts_of(manifest: Manifest) -> dict[str, Any]:
    """Return how much of each language, script and label was kept, from the manifest."""
    return next((s["kept"] for s in manifest.conservation if "kept" in s), {})


def loss_sections(
    counts: Mapping[str, Any],
    samples: Mapping[str, Sequence[Any]],
    why: Mapping[int, str],
    copies: NearCopies = _NONE,
    *,
    appended: bool = False,
) -> list[str]:
    """Return sections on languages, dropped documents, near copies and pruned micro-clusters.

    ``appended`` says that an append has added documents. The section with samples then says that
    none of these documents are among the samples.
    """
    sections = []
    if counts.get("language"):
        tables = [_kept(what, counts[what]) for what in ("language", "script")]
        note = "und: text whose language was not recognised. code: programs."
        sections.append(section("Languages", paragraph(note), *tables))
    if samples:
        note = (
            "Some documents for each reason. Scores are from 0 to 5, and higher is better "
            "(ad-free: less advertising). climb dropped lists all documents that were left out; "
            "climb build --keep-ids keeps the ones that you name, but none that were held out or "
            "contain a test question."
        )
        if appended:
            note += (
                " These documents are from the first build. Of documents that an append left out, "
                "only near copies are shown."
            )
        sections.append(section("Left out", paragraph(note), _samples(samples)))
    sections += copies.sections()
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
    """Return ``text`` as HTML for a table cell; it may run from right to left."""
    return f"<div{direction(text)}>{escape(text)}</div>"


def _pruned(why: Mapping[int, str], samples: Mapping[str, Sequence[Any]]) -> str:
    shown: dict[int, str] = {}
    for sample in samples.get("pruned cluster", ()):
        shown.setdefault(sample["micro"], _shown(sample["text"]))
    columns = 3 if shown else 2
    heads = ("micro-cluster", "reason", "one of its documents")[:columns]
    rows = [
        (f"{micro}", escape(reason), shown.get(micro, ""))[:columns]
        for micro, reason in why.items()
    ]
    return table(heads, rows, texts=(1, 2))
