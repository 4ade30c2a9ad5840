"""Losses in the report: what each language has left, and samples of what was left out."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from climbstream.builder.settings import SCORES
from climbstream.loader.core.html_page import paragraph, section, table
from climbstream.loader.formats.manifest import Manifest

_SHOWN = 40
"""Languages and scripts that are listed, the largest first."""


def counts_of(manifest: Manifest) -> dict[str, Any]:
    """Return what was kept by language, script and label, as the manifest has it."""
    return next((s["kept"] for s in manifest.conservation if "kept" in s), {})


def loss_sections(
    counts: Mapping[str, Any], samples: Mapping[str, Sequence[Any]], why: Mapping[int, str]
) -> list[str]:
    """Write the sections on languages, on what was dropped, and on micro-clusters pruned."""
    sections = []
    if counts.get("language"):
        tables = [_kept(what, counts[what]) for what in ("language", "script")]
        sections.append(section("Languages", *tables))
    if samples:
        note = (
            "Some documents for each reason, with scores from 0 to 5; higher is better in all, and "
            "5 in advertisement means none. `climb dropped` lists them, and --keep-ids keeps some."
        )
        sections.append(section("Left out", paragraph(note), _samples(samples)))
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
        (escape(reason), *_sample(sample))
        for reason, some in sorted(samples.items())
        for sample in some[:4]
    ]
    heads = ("reason", "document", "text", *SCORES)
    return table(heads, rows, numbers=tuple(range(3, 3 + len(SCORES))))


def _sample(sample: Mapping[str, Any]) -> tuple[str, ...]:
    # What is written from right to left stays so, whatever stands around it.
    text = f'<span dir="auto">{escape(sample["text"])}</span>'
    return (escape(sample["id"]), text, *(f"{sample[name]:.1f}" for name in SCORES))


def _pruned(why: Mapping[int, str], samples: Mapping[str, Sequence[Any]]) -> str:
    shown: dict[int, str] = {}
    for sample in samples.get("pruned cluster", ()):
        shown.setdefault(sample["micro"], f'<span dir="auto">{escape(sample["text"])}</span>')
    rows = [(f"{micro}", escape(reason), shown.get(micro, "")) for micro, reason in why.items()]
    return table(("micro-cluster", "reason", "a document of it"), rows)
