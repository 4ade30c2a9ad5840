"""The commands of the loader: inspect, verify, doctor."""

from dataclasses import asdict
from pathlib import Path

import click

from .cli import json_option, show, text_table
from .clusters import load_clusters
from .doctor import diagnose
from .errors import ClimbError, IntegrityError
from .manifest import Manifest
from .verify import verify_directory

_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))


@click.command()
@_DIRECTORY
@json_option
def inspect(directory: Path, as_json: bool) -> None:
    """Say what the shard directory DIRECTORY holds."""
    manifest = Manifest.load(directory)
    about = {info.name: info for info in load_clusters(directory)}
    rows = []
    for cluster in manifest.clusters:
        info = about.get(cluster.name)
        rows.append(
            (
                cluster.name,
                ", ".join(info.terms[:5]) if info else "",
                f"{cluster.documents:,}",
                f"{cluster.tokens:,}",
                f"{cluster.tokens / manifest.tokens:.1%}",
                f"{info.quality['overall']:.1f}" if info else "",
            )
        )
    text = (
        f"{directory}: {manifest.tokens:,} tokens of {manifest.vocab_size:,} kinds in "
        f"{len(rows)} clusters\nlicence: {manifest.license}\n\n"
        + text_table(("cluster", "words", "documents", "tokens", "share", "quality"), rows, left=2)
    )
    value = {**manifest.to_json(), "about": [info.to_json() for info in about.values()]}
    show(value, text, as_json=as_json)


@click.command()
@_DIRECTORY
@json_option
def verify(directory: Path, as_json: bool) -> None:
    """Recompute every hash and count of DIRECTORY; exit 4 if one is wrong."""
    verdict = verify_directory(directory)
    text = (
        f"{directory}: {verdict.shards} shards, {verdict.documents:,} documents, "
        f"{verdict.tokens:,} tokens\n" + ("\n".join(verdict.faults) or "all is as it was written")
    )
    show(asdict(verdict), text, as_json=as_json)
    if verdict.faults:
        raise IntegrityError(f"{len(verdict.faults)} faults in {directory}")


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check versions, clashes, disk and devices of this machine."""
    found = diagnose()
    facts = {**found.facts, **{p: v or "not installed" for p, v in found.versions.items()}}
    text = text_table(("what", "is"), list(facts.items()), left=2)
    show(asdict(found), "\n".join([text, *found.troubles]), as_json=as_json)
    if found.troubles:
        raise ClimbError(f"{len(found.troubles)} troubles on this machine")
