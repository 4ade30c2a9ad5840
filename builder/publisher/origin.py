"""Origin: lines of a card that say where the text came from, and what was left out.

All facts are from the manifest, which has the names of sources, not their full paths.
"""

from collections import Counter
from collections.abc import Iterator

from climbstream.builder.dataset_card import cell
from climbstream.builder.report.losses import counts_of
from climbstream.builder.settings import EVERY
from climbstream.loader.core.console import counted
from climbstream.loader.formats.clusters import reason_title
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import some_names

_LISTED = 20
"""Maximum number of labels that a table lists: those with the most documents."""


def origin_lines(manifest: Manifest) -> list[str]:
    """Return the lines of the card's section on the sources of the text."""
    appended = manifest.provenance.get("appended", ())
    sources = [*manifest.provenance.get("sources", ())]
    sources += [name for append in appended for name in append["sources"]]
    read = manifest.conservation[0]["in"]["documents"] if manifest.conservation else 0
    if not sources or not read:
        return []
    origin = f"{counted(read, 'document')} of {counted(len(sources), 'source')}"
    return [
        "## Where the text came from",
        "",
        " ".join([f"{origin}: {some_names(sources)}.", *_rules(manifest)]),
        "",
        *_labels(manifest),
        *_left_out(manifest),
    ]


def _rules(manifest: Manifest) -> Iterator[str]:
    """Yield sentences on the settings by which documents were left out."""
    settings = manifest.provenance.get("settings", {})
    if settings.get("languages", EVERY) != EVERY:
        yield f"Languages: {', '.join(settings['languages'])}."
    if licenses := settings.get("licenses"):
        names = some_names([name.removeprefix("!") for name in licenses])
        kind = "left out" if licenses[0].startswith("!") else "kept"
        yield f"Licences that were {kind}: {names}."
    if tests := manifest.provenance.get("tasks") or settings.get("decontaminate"):
        outcome = "are marked, and stay" if settings.get("mark_contaminated") else "were left out"
        yield f"Documents with test questions of {some_names([*tests])} {outcome}."


def _labels(manifest: Manifest) -> list[str]:
    """Return the lines of a table of documents by label; no lines if no document has a label."""
    labels = counts_of(manifest).get("label", {})
    if not {*labels} - {""}:
        return []
    ordered = sorted(labels.items(), key=lambda item: -item[1]["documents"])
    rows = [
        f"| {cell(name) or 'no label'} | {n['documents']:,} | {n['kept']:,} | {n['kept_bytes']:,} |"
        for name, n in ordered[:_LISTED]
    ]
    head = ["| label | documents read | documents kept | bytes kept |", "| --- | --- | --- | --- |"]
    more = len(ordered) - _LISTED
    return [*head, *rows, *([f"| {more:,} more | | | |"] if more > 0 else []), ""]


def _left_out(manifest: Manifest) -> list[str]:
    """Return the lines of a table: each reason for leaving out documents, and their number."""
    reasons: Counter[str] = Counter()
    for stage in manifest.conservation:
        for reason, sizes in stage["dropped"].items():
            reasons[reason_title(reason)] += sizes["documents"]
    if not reasons:
        return []
    rows = [f"| {reason} | {count:,} |" for reason, count in reasons.most_common()]
    return ["| left out because | documents |", "| --- | --- |", *rows, ""]
