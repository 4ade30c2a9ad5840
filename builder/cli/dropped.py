"""The command ``climb dropped``: what a build left out, by reason, language and label."""

from collections import Counter
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

from climbstream.builder.licenses import license_name
from climbstream.builder.selection.reasons import LICENSE
from climbstream.builder.settings import SCORES
from climbstream.loader.cli.options import INPUT, json_option, show
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.catalogue import read_parquet
from climbstream.loader.formats.clusters import reason_title, score_title
from climbstream.loader.formats.manifest import Manifest, part_paths

_COLUMNS = ("id", "why", "label", "bytes", "origin", *SCORES)
_LATER = ("language", "script", "license")
"""Columns that a build by an earlier version did not write; their values are then None."""

Row = dict[str, Any]


@click.command()
@click.argument("directory", type=INPUT)
@click.option("--why", help="Only reasons that contain this text, as 'low overall'.")
@click.option("--language", help="Only documents in this language, as de.")
@click.option("--label", help="Only documents of this known domain.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=3, help="Documents to show for each reason."
)
@click.option(
    "--list", "listed", is_flag=True, help="List all documents with their scores, one per line."
)
@click.option("--ids", is_flag=True, help="Print only identifiers, one per line, for --keep-ids.")
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

    To keep some of these documents, write their identifiers to a file with --ids, delete the lines
    of documents that should stay out, and build a new directory with --keep-ids FILE.
    """
    rows = [
        row
        for row in read_dropped(directory)
        if (why is None or why in row["why"] or why in reason_title(row["why"]))
        and language in (None, row["language"])
        and label in (None, row["label"])
    ]
    if ids:
        text = "\n".join(row["id"] for row in rows)
    elif listed:
        text = "\n".join(map(_line, rows))
    else:
        text = _summary(directory, rows, sample)
    show(rows, text, as_json=as_json)


def read_dropped(directory: Path) -> list[Row]:
    """Return the catalogue's row of each document that was left out, in the catalogue's order.

    Raises:
        InvalidDataError: The directory has no catalogue.
    """
    Manifest.load(directory)
    paths = part_paths(directory)
    if not paths:
        raise InvalidDataError(
            f"{directory} lists no documents; name a directory that `climb build` made"
        )
    rows: list[Row] = []
    for path in paths:
        there = pq.read_schema(path).names
        names = [*_COLUMNS, *(name for name in _LATER if name in there)]
        found = read_parquet(path, names).to_pylist()
        rows += [{**dict.fromkeys(_LATER), **row} for row in found if row["why"]]
    return rows


def _line(row: Row) -> str:
    scores = " ".join(
        f"{score_title(name)} {row[name]:.1f}" for name in SCORES if row[name] is not None
    )
    return f"{row['id']}\t{_why(row)}\t{row['language'] or '-'}\t{scores}\t{row['origin']}"


def _why(row: Row) -> str:
    """Return the reason why a document was left out; for a licence, with the licence's name."""
    by_license = f": {license_name(row['license'] or '')}" if row["why"] == LICENSE else ""
    return f"{reason_title(row['why'])}{by_license}"


def _summary(directory: Path, rows: list[Row], sample: int) -> str:
    """Return the counts of ``rows`` by reason, and ``sample`` rows of each reason, as text."""
    path = directory / "clusters.json"
    texts = {
        document["id"]: document["text"]
        for some in (read_json(path).get("dropped", {}) if path.exists() else {}).values()
        for document in some
    }
    size = sum(row["bytes"] or 0 for row in rows)
    lines = [f"{counted(len(rows), 'document')} left out, {counted(size, 'byte')}"]
    for reason, count in Counter(row["why"] for row in rows).most_common():
        mine = [row for row in rows if row["why"] == reason]
        kinds = Counter(
            license_name(row["license"] or "") if reason == LICENSE else row["language"] or "-"
            for row in mine
        ).most_common(8)
        lines.append(
            f"{count:,}: {reason_title(reason)} ({', '.join(f'{n} {k:,}' for n, k in kinds)})"
        )
        mine.sort(key=lambda row: row["id"] not in texts)  # documents with known text come first
        for row in mine[:sample]:
            lines.append(f"  {_line(row)}")
            if row["id"] in texts:
                lines.append(f"    {texts[row['id']]}")
    return "\n".join(lines)
