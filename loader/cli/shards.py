"""The commands of the loader: inspect, pull, verify, weights, doctor."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from climbstream.loader.core.errors import ClimbError, IntegrityError, UsageError
from climbstream.loader.core.table import text_table
from climbstream.loader.formats.clusters import clusters_text, load_clusters
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import Mixture, some_names
from climbstream.loader.tools.doctor import diagnose
from climbstream.loader.tools.pull import pull as fetch_shards
from climbstream.loader.weights.interpolation import MOST_STEPS
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import REQUEST, ask, blend, open_run
from climbstream.loader.weights.sources import read_request
from climbstream.loader.weights.update import Change

from .main import json_option, show, split_number


@click.command()
@click.argument("directory")
@json_option
def inspect(directory: str, as_json: bool) -> None:
    """Say what the shard directory DIRECTORY holds, a folder or a URL."""
    manifest, clusters = Manifest.load(directory), load_clusters(directory)
    text = (
        f"{directory}: {manifest.tokens:,} tokens of {manifest.vocab_size:,} kinds in "
        f"{len(manifest.clusters)} clusters\nlicence: {manifest.license}\n\n"
        f"{clusters_text(manifest, clusters)}"
    )
    value = {**manifest.to_json(), "about": [info.to_json() for info in clusters]}
    show(value, text, as_json=as_json)


@click.command()
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--mixture", help="File, or OWNER/NAME on the Hub as hf://…: fetch what it weighs.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and do nothing.")
@json_option
def pull(source: str, directory: Path, mixture: str | None, dry_run: bool, as_json: bool) -> None:
    """Bring the shards SOURCE to DIRECTORY: OWNER/NAME[@REVISION] of the Hub, or a URL.

    Of clusters to which the mixture gives no weight, nothing but the index is fetched. A pull that
    was interrupted goes on when the same command is run again, and one with another mixture fetches
    what is missing for that.
    """
    weights = Mixture.load(mixture) if mixture else None
    found = fetch_shards(source, directory, weights, dry_run=dry_run)
    did = "would be fetched" if dry_run else "were fetched"
    text = (
        f"{found.source}: {found.shards:,} shards of {len(found.clusters)} clusters, "
        f"{found.bytes:,} bytes, of which {found.fetched:,} {did} to {directory}"
    )
    show(found.to_json(), text, as_json=as_json)


@click.command()
@click.argument("directory")
@json_option
def verify(directory: str, as_json: bool) -> None:
    """Recompute every hash and count of DIRECTORY, a folder or a URL; exit 4 if one is wrong.

    Shards behind a URL are read one after the other, and none is kept.
    """
    from climbstream.loader.tools.verify import verify_directory  # noqa: PLC0415 - the other commands need no compiler

    verdict = verify_directory(directory)
    text = (
        f"{directory}: {verdict.shards} shards, {verdict.documents:,} documents, "
        f"{verdict.tokens:,} tokens\n" + ("\n".join(verdict.faults) or "all is as it was written")
    )
    if verdict.unexpected:
        names = some_names(verdict.unexpected)
        text += f"\nnot of the manifest, so neither published nor pulled: {names}"
    show(asdict(verdict), text, as_json=as_json)
    if verdict.faults:
        raise IntegrityError(f"{len(verdict.faults)} faults in {directory}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("named", nargs=-1, metavar="[CLUSTER=WEIGHT]...")
@click.option("--only", is_flag=True, help="Give all other clusters nothing, and scale these.")
@click.option("--ramp", type=click.IntRange(0, MOST_STEPS), help="Steps to get there, in a line.")
@click.option("--why", default="", help="Reason, for the log.")
@json_option
def weights(
    run: Path, named: Sequence[str], only: bool, ramp: int | None, why: str, as_json: bool
) -> None:
    """Show the weights of the job in the folder RUN, or ask it for others.

    Named clusters get the share of tokens that is said (c03=0.4), the others share the rest as they
    do now. The job takes them up by itself.
    """
    log = open_run(run)
    if not named:
        if only or ramp is not None or why:
            raise UsageError("--only, --ramp and --why go with weights; name some, as c03=0.4")
        show(_log_value(run, log), _log_text(run, log), as_json=as_json)
        return
    change = Change(blend(log, _shares(named), only=only), ramp or 0, why)
    path = ask(run, change, log.head)
    way = f"in {change.ramp:,} steps" if change.ramp else "at once"
    text = (
        f"asked in {path}, to be followed {way} after record {log.records[-1].v}:\n\n"
        f"{_mixture_table(change.mixture)}"
    )
    show({"file": str(path), **change.to_json(), "after": log.head}, text, as_json=as_json)


def _shares(named: Sequence[str]) -> dict[str, float]:
    """Read ``c03=0.4``, each cluster once."""
    shares: dict[str, float] = {}
    for word in named:
        try:
            name, share = split_number(word)
        except ValueError:
            message = f"{word!r} is no weight; say CLUSTER=WEIGHT, as c03=0.4"
            raise UsageError(message) from None
        if name in shares:
            raise UsageError(f"cluster {name} is named twice; name it once")
        shares[name] = share
    return shares


def _log_value(run: Path, log: WeightsLog) -> dict[str, Any]:
    """Return a weights log for programs."""
    last = log.records[-1]
    waiting = _waiting(run, log)
    return {
        "run": str(run),
        "head": log.head,
        "weights": log.mixture(last.at_step + last.steps).weights,
        "records": [record.to_json() for record in log.records],
        "asked": waiting.to_json() if waiting else None,
    }


def _log_text(run: Path, log: WeightsLog) -> str:
    """Lay out a weights log for people: what holds in the end, and how it came to it."""
    last = log.records[-1]
    rows = [
        (r.v, f"{r.at_step:,}", r.kind, f"{r.steps:,}" if r.steps else "", r.hash[:8], r.why)
        for r in log.records
    ]
    holds = last.at_step + last.steps
    return (
        f"{run}: {len(rows)} records; from step {holds:,} on hold\n\n"
        f"{_mixture_table(log.mixture(holds))}\n\n"
        + (f"used up: {', '.join(last.capped)}\n\n" if last.capped else "")
        + text_table(("record", "at step", "kind", "steps", "hash", "why"), rows, left=6)
        + ("\n\nother weights are asked for and not yet followed" if _waiting(run, log) else "")
    )


def _waiting(run: Path, log: WeightsLog) -> Change | None:
    """Return what was asked after the last record, and is not followed yet."""
    try:
        request = read_request(run / REQUEST)
    except (ClimbError, OSError):
        return None
    return request.change if request.after == log.head else None


def _mixture_table(mixture: Mixture) -> str:
    return text_table(
        ("cluster", "weight"),
        [(name, f"{w:.4%}") for name, w in sorted(mixture.weights.items())],
    )


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
