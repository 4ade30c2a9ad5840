"""The command ``climb dropped``: what a build left out, by reason, language and label."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

from climbstream.builder.corpus.ingest import BAD_RECORDS
from climbstream.builder.selection.dropped import SAMPLED
from climbstream.builder.selection.reasons import (
    BY_LICENSE,
    LOW_SCORE,
    PRUNED,
    REPEATED,
    RESERVED,
    number_below,
)
from climbstream.builder.settings import CONTAMINATED, SCORES
from climbstream.builder.workdir import UNBOUND
from climbstream.loader.cli.options import INPUT, json_option, show
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.catalogue import row_groups
from climbstream.loader.formats.clusters import reason_title, score_title
from climbstream.loader.formats.licenses import license_name
from climbstream.loader.formats.manifest import CLUSTERS, MANIFEST, Manifest, part_paths
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import WORK

from .originals import add_originals

logger = get_logger(__name__)

_COLUMNS = ("id", "why", "label", "bytes", "origin", *SCORES)
_LATER = ("language", "script", "license", "micro", "copy_of", "text_hash", CONTAMINATED)
"""Columns that the catalogue (the table of all documents) lacks if an earlier version wrote it, or
if no test questions were looked for; their values are then None."""

_HEADS = ("id", "reason", "language", "scores", "origin")
_NAMED = 12
"""Maximum number of reasons, languages or labels that a message names."""
_IDS = (
    "Print only identifiers, one per line, for --keep-ids. Held-out documents, their copies, "
    "contaminated documents, and those whose identifier was seen before are printed only with "
    "--why."
)

Row = dict[str, Any]


@click.command()
@click.argument("directory", type=INPUT)
@click.option(
    "--why", help="Show only documents whose reason contains this text, such as 'low overall'."
)
@click.option("--language", help="Show only documents in this language, such as de.")
@click.option("--label", help="Show only documents of this known domain.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=3,
    help="Number of documents to show for each reason.",
)
@click.option(
    "--list", "listed", is_flag=True, help="List all documents with their scores, one per line."
)
@click.option("--ids", is_flag=True, help=_IDS)
@json_option
def dropped(
    directory: Path,
    why: str | None,
    language: str | None,
    label: str | None,
    sample: int,
    listed: bool,
    ids: bool,
    as_json: bool,
) -> None:
    """Show what the build of DIRECTORY left out: counts, samples, or all documents.

    To keep some of these documents, write their identifiers to a file with --ids. Delete the lines
    of documents that should stay out, and build a new directory with --keep-ids FILE. Documents
    that are held out, their copies, documents with test questions, and documents whose identifier
    an earlier document has, stay out in any case.
    """
    if listed and ids:
        raise UsageError("--list and --ids are two ways to print documents; choose one")
    rows = read_dropped(directory)
    texts = _stored_texts(directory, rows)
    _check_filter("--language", language, [row["language"] for row in rows])
    _check_filter("--label", label, [row["label"] for row in rows])
    rows = [
        row
        for row in _of_reason(rows, why)
        if language in (None, row["language"]) and label in (None, row["label"])
    ]
    if ids:
        rows = rows if why else _without_reserved(rows)
        text = "\n".join(_identifiers(rows))
        if Manifest.load(directory).provenance.get("appended"):
            logger.info(
                "an append takes no --keep-ids: to bring these documents back, build a new "
                "directory from all sources, also those of appends"
            )
    elif listed:
        text = "\n".join(["\t".join(_HEADS), *map(_line, rows)])
    else:
        unread = _unread(directory) if (why, language, label) == (None, None, None) else []
        text = "\n".join([_summary(rows, texts, sample), *unread])
    show(rows, text, as_json=as_json)


def _of_reason(rows: list[Row], why: str | None) -> list[Row]:
    """Return the rows whose reason contains the text ``why``; all rows if it is None.

    Raises:
        UsageError: No row has such a reason; the message names the reasons that rows have.
    """
    reasons = {row["why"]: reason_title(row["why"]) for row in rows}
    wanted = [reason for reason, title in reasons.items() if why is None or why in reason + title]
    if reasons and not wanted:
        raise UsageError(
            f"--why {why}: no document was left out for this; "
            f"the reasons are {_listed(reasons[row['why']] for row in rows)}"
        )
    return [row for row in rows if row["why"] in wanted]


def _check_filter(option: str, value: str | None, values: list[str | None]) -> None:
    """Raise `UsageError` if ``value`` is not None and is not one of ``values``."""
    if value is not None and values and value not in values:
        raise UsageError(
            f"{option} {value}: no document that was left out has this value; possible values are "
            f"{_listed(value or '-' for value in values)}"
        )


def _listed(values: Iterable[str]) -> str:
    """Return the most frequent ``values`` as text, each with the number of its occurrences."""
    return some_names([f"{name} {n:,}" for name, n in Counter(values).most_common()], _NAMED)


def _without_reserved(rows: list[Row]) -> list[Row]:
    """Return the rows of documents that --keep-ids can bring back; log the number of other rows."""
    others = Counter(_reserved(row) for row in rows)
    del others[""]
    if others:
        why = ", ".join(f"{reason} {n:,}" for reason, n in others.items())
        logger.info(
            f"not printed, because --keep-ids cannot bring these documents back: {why}; --why "
            "prints them"
        )
    return [row for row in rows if not _reserved(row)]


def _identifiers(rows: list[Row]) -> list[str]:
    """Return each identifier of ``rows`` once; log how many are those of several documents."""
    names = Counter(row["id"] for row in rows)
    if several := [name for name, n in names.items() if n > 1]:
        logger.info(
            f"{counted(len(several), 'identifier')} printed once, though several documents that "
            f"were left out have it (the first: {several[0]}); --keep-ids keeps them all"
        )
    return [*names]


def _reserved(row: Row) -> str:
    """Return why no build keeps this document, even if --keep-ids names it; "" if a build can."""
    if row["why"] == REPEATED[0]:
        return f"{row['why']} (build with --ids none to keep them)"
    if row["why"] in RESERVED:
        return str(row["why"])
    return f"copy of {row['original_why']}" if row["original_why"] in RESERVED else ""


def read_dropped(directory: Path) -> list[Row]:
    """Return the catalogue's rows of documents that were left out, in the catalogue's order.

    The catalogue is the table of all documents of the directory.

    Raises:
        InvalidDataError: The directory has no catalogue.
    """
    if not (directory / MANIFEST).exists() and (directory / WORK / UNBOUND).exists():
        raise InvalidDataError(
            f"{directory} has no shards, so it has no list of documents. A full build writes this "
            "list; climb build --dry-run --json prints samples"
        )
    Manifest.load(directory)
    paths = part_paths(directory)
    if not paths:
        raise InvalidDataError(
            f"{directory} has no list of documents; name a directory that `climb build` made"
        )
    rows: list[Row] = []
    for path in paths:
        there = pq.read_schema(path).names
        names = [*_COLUMNS, *(name for name in _LATER if name in there)]
        for table in row_groups(path, names):
            found = table.filter(table["why"].is_valid()).to_pylist()
            rows += [{**dict.fromkeys(_LATER), **row} for row in found if row["why"]]
    add_originals(paths, rows)
    _add_limits(directory, rows)
    return rows


def _add_limits(directory: Path, rows: list[Row]) -> None:
    """Add the keys ``pruned`` and ``below`` to each of ``rows``.

    ``pruned`` is why its micro-cluster is pruned. ``below`` is its score that is too low, with the
    limit. Both are texts, or None.
    """
    why = _description(directory).get("map", {}).get("why", {})
    settings = Manifest.load(directory).provenance.get("settings", {})
    least = settings.get("min_document_score", {})
    scores = {reason: name for name, reason in LOW_SCORE.items() if name in least}
    for row in rows:
        row["pruned"] = why.get(str(row["micro"])) if row["why"] == PRUNED else None
        row["below"] = None
        if (name := scores.get(row["why"])) and row[name] is not None:
            row["below"] = f"{number_below(row[name], least[name])}, below {least[name]:g}"


def _stored_texts(directory: Path, rows: list[Row]) -> dict[str, str]:
    """Return the beginnings of texts that the build stored of ``rows``, by origin."""
    origins: dict[str, list[str]] = {}
    for row in rows:
        origins.setdefault(row["id"], []).append(row["origin"])
    texts = {}
    for document in chain.from_iterable(_description(directory).get("dropped", {}).values()):
        # Earlier versions stored no origin, and several documents may have the same identifier.
        known = [document["origin"]] if "origin" in document else origins.get(document["id"], [])
        if len(known) == 1:
            texts[known[0]] = document["text"]
    return texts


def _description(directory: Path) -> dict[str, Any]:
    """Return what ``clusters.json`` says; empty if there is no such file."""
    path = directory / CLUSTERS
    return read_json(path) if path.exists() else {}


def _line(row: Row) -> str:
    scores = " ".join(
        f"{score_title(name)} {row[name]:.1f}" for name in SCORES if row[name] is not None
    )
    return f"{row['id']}\t{_why(row)}\t{row['language'] or '-'}\t{scores}\t{row['origin']}"


def _why(row: Row) -> str:
    """Return why a document was left out, with what decided: licence, item, scores or original."""
    detail = ""
    if row["why"] in BY_LICENSE:
        detail = license_name(row["license"] or "")
    elif row["why"] == CONTAMINATED:
        detail = row[CONTAMINATED] or ""
    elif row["pruned"] or row["below"]:
        detail = row["pruned"] or row["below"]
    elif row["original"] is not None:
        detail = row["original"]
        if row["original_why"]:
            detail += f", itself left out: {reason_title(row['original_why'])}"
    return reason_title(row["why"]) + (f": {detail}" if detail else "")


def _summary(rows: list[Row], texts: dict[str, str], sample: int) -> str:
    """Return the counts of ``rows`` by reason, and ``sample`` rows of each reason, as text.

    ``texts`` are the beginnings of texts by origin.
    """
    size = sum(row["bytes"] or 0 for row in rows)
    lacking = 0
    lines = [f"{counted(len(rows), 'document')} left out, {counted(size, 'byte')}"]
    for reason, count in Counter(row["why"] for row in rows).most_common():
        mine = [row for row in rows if row["why"] == reason]
        kinds = Counter(
            license_name(row["license"] or "") if reason in BY_LICENSE else row["language"] or "-"
            for row in mine
        ).most_common(8)
        lines.append(
            f"{count:,}: {reason_title(reason)} ({', '.join(f'{n} {k:,}' for n, k in kinds)})"
        )
        lines += _of_left_out(mine)
        if items := [row[CONTAMINATED] for row in mine if row["why"] == CONTAMINATED]:
            lines.append(f"  documents by test question: {_listed(item or '-' for item in items)}")
        mine.sort(
            key=lambda row: row["origin"] not in texts
        )  # documents with known text come first
        for row in mine[:sample]:
            lines.append(f"  {_line(row)}")
            if row["origin"] in texts:
                lines.append(f"    {texts[row['origin']]}")
            else:
                lacking += 1
    if lacking:
        lines.append(
            f"{counted(lacking, 'document')} without text: a build stores the text of at most "
            f"{SAMPLED} documents of each reason, from all languages and known domains; --list "
            "says where each document is"
        )
    return "\n".join(lines)


def _unread(directory: Path) -> list[str]:
    """Return a line on records that could not be used and that the catalogue lacks; [] if none."""
    read = Manifest.load(directory).conservation[:1]
    bad = {reason: size["documents"] for stage in read for reason, size in stage["dropped"].items()}
    if not bad:
        return []
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in bad.items())
    return [
        f"{counted(sum(bad.values()), 'record')} could not be used, and are not listed above: "
        f"{reasons}; {directory / BAD_RECORDS} says where the first ones are"
    ]


def _of_left_out(copies: list[Row]) -> list[str]:
    """Return a line that counts the ``copies`` of documents that are left out; [] if none are."""
    why = Counter(reason_title(row["original_why"]) for row in copies if row["original_why"])
    if not why:
        return []
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in why.most_common())
    return [f"  {why.total():,} of these repeat a document that is itself left out: {reasons}"]
