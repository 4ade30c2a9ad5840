"""The commands for shards and for this machine: inspect, pull, regroup, verify, doctor."""

from dataclasses import asdict
from pathlib import Path

import click

from climbstream.loader.core.console import counted, text_table
from climbstream.loader.core.errors import ClimbError, IntegrityError, UsageError
from climbstream.loader.core.files import COPY_FIRST, refuse_url
from climbstream.loader.formats.cluster_tables import (
    clusters_text,
    copies_text,
    license_counts_text,
    license_text,
)
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import AXES, PULL, Manifest, left_out_by_pull
from climbstream.loader.formats.mixture import Mixture, some_names
from climbstream.loader.tools.doctor import diagnose

from .completion import PLACE, SOURCE
from .main import timeout_option
from .options import INPUT, OUTPUT, grouping_option, json_option, show


@click.command()
@click.argument("directory", type=PLACE)
@grouping_option
@json_option
def inspect(directory: str, as_json: bool) -> None:
    """Show the clusters and sizes of the shard directory DIRECTORY (a folder or a URL)."""
    manifest, clusters = Manifest.load(directory), load_clusters(directory)
    not_pulled = left_out_by_pull(directory, manifest)
    facts = [
        f"licence: {license_text(manifest)}",
        license_counts_text(manifest),
        copies_text(clusters),
        f"not fetched (climb pull --mixture): {', '.join(not_pulled)}" if not_pulled else "",
    ]
    text = (
        f"{directory}: {manifest.tokens:,} tokens (vocabulary of {manifest.vocab_size:,}) in "
        f"{counted(len(manifest.clusters), 'cluster')}\n"
        + "\n".join(filter(None, facts))
        + f"\n\n{clusters_text(manifest, clusters)}"
    )
    value = {**manifest.to_json(), "about": [info.to_json() for info in clusters]}
    if not_pulled:
        value["not_pulled"] = not_pulled
    show(value, text, as_json=as_json)


@click.command()
@click.argument("source")
@click.argument("directory", type=OUTPUT)
@click.option(
    "--mixture",
    type=SOURCE,
    help="Mixture, a file or hf://OWNER/NAME: fetch only clusters with weight above 0.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be fetched; fetch nothing.")
@timeout_option(
    "Give up a file that has not arrived within this number of seconds.  [default: 240]"
)
@json_option
def pull(source: str, directory: Path, mixture: str | None, dry_run: bool, as_json: bool) -> None:
    """Fetch the shards at SOURCE into DIRECTORY.

    SOURCE is OWNER/NAME[@REVISION] of the Hub, or a URL. With --mixture, two things are not
    fetched: the shards of clusters without weight, and the list of all documents (the catalogue). A
    pull that was interrupted continues when the same command is run again. A later pull with
    another mixture fetches only what is missing.
    """
    # Imported here, and likewise in the commands below, so that other commands need not load
    # compiled code.
    from climbstream.loader.tools.pull import pull as fetch_shards

    weights = Mixture.load(mixture) if mixture else None
    pulled = fetch_shards(source, directory, weights, dry_run=dry_run)
    did = "would be fetched" if dry_run else "were fetched"
    text = (
        f"{pulled.source}: {counted(pulled.shards, 'shard')} of "
        f"{counted(len(pulled.clusters), 'cluster')}, {counted(pulled.bytes, 'byte')}, "
        f"of which {pulled.fetched:,} {did} to {directory}"
    )
    show(pulled.to_json(), text, as_json=as_json)


@click.command()
@click.argument("directory", type=PLACE)
@json_option
def verify(directory: str, as_json: bool) -> None:
    """Recompute every hash and count of DIRECTORY (a folder or a URL); exit 4 if one is wrong.

    Shards at a URL are read one after the other, and are not stored on disk.
    """
    from climbstream.loader.tools.verify import verify_directory

    verdict = verify_directory(directory)
    text = (
        f"{directory}: {counted(verdict.shards, 'shard')}, "
        f"{counted(verdict.documents, 'document')}, {counted(verdict.tokens, 'token')}\n"
        + ("\n".join(verdict.faults) or "everything is as it was written")
    )
    if verdict.not_pulled:
        names = some_names(verdict.not_pulled)
        text += f"\nnot checked, because climb pull --mixture did not fetch these: {names}"
    if verdict.unexpected:
        names = some_names(verdict.unexpected)
        text += f"\nnot listed in the manifest, so neither published nor pulled: {names}"
    show(asdict(verdict), text, as_json=as_json)
    if verdict.faults:
        pulled = (Path(directory) / PULL).is_file()
        remedy = "; the same climb pull again fetches what is missing or damaged" if pulled else ""
        raise IntegrityError(f"{counted(len(verdict.faults), 'fault')} in {directory}{remedy}")


@click.command()
@click.argument("directory", type=INPUT)
@click.option(
    "--by",
    required=True,
    help="topic, micro, tier, language or several, as topic,tier; or a JSON file of the groups: "
    '{"sea": ["c00", "c07"], "food": ["c01"]}.',
)
@click.option(
    "--name",
    help="Name of the grouping.  [default: its axes, as in topic-tier, or the file's name]",
)
@json_option
def regroup(directory: Path, by: str, name: str | None, as_json: bool) -> None:
    """Merge the clusters of DIRECTORY into fewer groups without rewriting any shard.

    --by says what the groups are. A JSON file can name the clusters of each group. Cells
    (clusters that climb build --tiers or --cells micro made) can also be grouped by what they have
    in common: topic, quality tier, and, if the cells have them, language or micro-cluster.

    The grouping is written to DIRECTORY/groupings/NAME. To use it, name this folder in place of
    DIRECTORY wherever shards are read, or pass --grouping NAME to inspect, train, search and
    export. Each group then has one weight, as if it were a cluster, and all tokens of a group are
    equally likely to be served.
    """
    from climbstream.loader.tools.regroup import axes_of, groups_of, read_groups
    from climbstream.loader.tools.regroup import regroup as write_grouping

    refuse_url(by, COPY_FIRST)
    if axes := axes_of(by):
        grouping = groups_of(Manifest.load(directory), axes)
    elif Path(by).exists():
        grouping = read_groups(Path(by))
    else:
        raise UsageError(
            f"--by {by} is neither a file nor an axis; the axes of cells are {', '.join(AXES)}"
        )
    folder = write_grouping(directory, name or "-".join(axes or [Path(by).stem]), grouping)
    manifest = Manifest.load(folder)
    show(manifest.to_json(), f"{folder}\n\n{clusters_text(manifest, [])}", as_json=as_json)


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: versions of packages, whether they conflict, disk space and devices."""
    diagnosis = diagnose()
    facts = {**diagnosis.facts, **{p: v or "not installed" for p, v in diagnosis.versions.items()}}
    text = text_table(("what", "is"), list(facts.items()), left=2)
    show(asdict(diagnosis), "\n".join([text, *diagnosis.troubles]), as_json=as_json)
    if diagnosis.troubles:
        raise ClimbError(f"{counted(len(diagnosis.troubles), 'problem')} on this machine")
