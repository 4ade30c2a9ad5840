"""The command ``climb build``.

The modules that do the work take seconds to import. They are imported inside the functions that use
them, so that ``--help`` and errors in the options appear without this delay.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from climbstream.builder.settings import (
    CELLS,
    IDS,
    PARTITION_MIB,
    SCORES,
    THRESHOLDS,
    TIER_SCORES,
    BuildSettings,
)
from climbstream.loader.cli.completion import PLACE, SOURCE
from climbstream.loader.cli.main import slurm_print_option, task_timeout_option
from climbstream.loader.cli.options import COUNT, INPUT, Fraction, json_option, show
from climbstream.loader.core.engines.engine import ENGINES
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import COPY_FIRST, read_json, refuse_url
from climbstream.loader.formats.cluster_tables import clusters_text
from climbstream.loader.formats.clusters import load_clusters, score_title

from .scratch import scratch_option

_SCORE = (
    "SCORE=column:NAME, or SCORE=FILE, a fastText model; SCORE: "
    + ", ".join(map(score_title, SCORES))
    + "."
)
_IDS = (
    "Where documents with a repeated identifier are left out: in a file (source), in all sources "
    "(global), nowhere (none).  [default: source]"
)
_TEXT_LINES = "Each line of a .txt file is a document.  [default: each file]"
_LANGUAGES = "Languages to keep, as de,fr,code.  [default: *, all]"
_CELLS = (
    "topic: store each cluster, divided by --tiers if given. micro: store each micro-cluster "
    "separately.  [default: topic]"
)
_TIERS = (
    "Number of quality tiers; each cluster is divided into parts (cells), by tier and language."
)
_TIER_SCORE = "Score by which documents are put into tiers.  [default: mean]"
_LICENSES = (
    "Licences to keep: NAME,NAME or FILE with one name per line. !NAME: leave this licence out."
)
_PRESETS = "Least mean scores of clusters from CLIMB, for scores of CLIMB's own classifiers."


def _default(least: dict[str, float]) -> str:
    """Return the thresholds ``least`` as help text, in the form that the options accept."""
    pairs = (f"{score_title(name)}={low:g}" for name, low in least.items())
    return f"  [default: {', '.join(pairs)}]"


_LEAST = (
    "SCORE=N,…: leave out documents whose score is below N. SCORE is overall, educational, "
    "informational or ad-free." + _default(BuildSettings().min_document_score)
)
_LEAST_MEAN = "SCORE=N,…: leave out micro-clusters whose mean score is below N." + _default(
    BuildSettings().min_cluster_score
)
_DECONTAMINATE = "Leave out documents that contain questions of this task: a file, or lm-eval=NAME."
_CONFIG = "JSON file of settings, as --print-config prints it. Options of the command override it."
_PARTITION_MIB = "MiB of text per task.  [default: 4 to 128, by the size of the corpus]"
_KEEP_IDS = (
    "File of identifiers, one per line; # begins no comment: keep these documents, whatever their "
    "scores. Held-out documents, their copies, contaminated documents, and those with an "
    "identifier that was seen before stay out."
)
_TRUST = "Run code that comes with the model of --embed st:NAME."
_TEXT = (
    "Column of the text. NAME,NAME: the first of these columns that a record has.  [default: text]"
)


def _least(_context: click.Context, _option: click.Parameter, value: tuple[str, ...]) -> Any:
    least = {}
    for pair in ",".join(value).split(",") if value else ():
        name, _, number = pair.partition("=")
        try:
            least[name.strip()] = float(number)
        except ValueError:
            raise click.BadParameter(
                f"{pair}: write SCORE=NUMBER, such as overall=1.5,ad-free=2"
            ) from None
    return least or None


def _read_lines(option: str, path: Path) -> list[str]:
    """Return the lines of the file ``path`` without empty and repeated lines, for ``option``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read: {error}") from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _read_licenses(value: str) -> list[str]:
    """Return the licences in the file ``value``; without such a file, those in the text ``value``.

    In a file, each line is a licence, and lines that begin with ``#`` are comments. In a text,
    licences are separated by commas.
    """
    refuse_url(value, COPY_FIRST)
    path = Path(value)
    if path.is_file() or path.suffix == ".txt":
        lines = _read_lines("--licenses", path)
        names = [line for line in lines if not line.startswith("#")]
    else:
        names = [name.strip() for name in value.split(",")]
    if not names:
        raise UsageError(f"--licenses {value} names no licence; write one on each line")
    return names


def _split(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
    return None if value is None else [name.strip() for name in value.split(",")]


def _list(_context: click.Context, _option: click.Parameter, value: tuple[str, ...]) -> Any:
    return list(value) or None


def _pairs(_context: click.Context, _option: click.Parameter, value: tuple[str, ...]) -> Any:
    for pair in value:
        if "=" not in pair:
            raise click.BadParameter(f"{pair}: write SCORE=column:NAME or SCORE=FILE")
    return dict(pair.split("=", 1) for pair in value) or None


def _require(sources: tuple[str, ...], out: str | None) -> None:
    """Raise click's error for a missing argument if there is no source or no ``out``."""
    for name, value in (("SOURCES...", sources), ("--out", out)):
        if not value:
            kind = "option" if name.startswith("--") else "argument"
            raise click.MissingParameter(param_hint=f"'{name}'", param_type=kind)


@click.command()
@click.argument("sources", nargs=-1, type=SOURCE, metavar="SOURCES...")
@click.option("--out", type=PLACE, help="Shard directory, a folder or s3://…  [required]")
@scratch_option
@click.option("--clusters", type=int, help="Number of clusters after merging.  [default: 20]")
@click.option("--cells", type=click.Choice(CELLS), help=_CELLS)
@click.option("--tiers", type=int, help=_TIERS)
@click.option("--tier-score", type=click.Choice([*map(score_title, TIER_SCORES)]), help=_TIER_SCORE)
@click.option("--text", help=_TEXT)
@click.option("--id", help="Column of the identifier.  [default: id]")
@click.option("--ids", type=click.Choice(IDS), help=_IDS)
@click.option("--license", help="Column of the licence.  [default: license]")
@click.option(
    "--label", help="Column of a known domain; folder: the folder of the file.  [default: label]"
)
@click.option("--text-lines", is_flag=True, default=None, help=_TEXT_LINES)
@click.option(
    "--micro-clusters",
    type=int,
    help="Number of micro-clusters, before merging.  [default: by size of the sample]",
)
@click.option(
    "--merge-height",
    type=float,
    help="Merge up to this Ward distance instead of to a number of --clusters.",
)
@click.option("--balanced", is_flag=True, default=None, help="Make clusters of more even sizes.")
@click.option(
    "--restarts", type=int, help="Number of starts of k-means; the best is used.  [default: 2]"
)
@click.option(
    "--sample",
    type=COUNT,
    help="Number of documents that clusters and the tokenizer are fitted on.  [default: 32000]",
)
@click.option("--thresholds", type=click.Choice(list(THRESHOLDS)), help=_PRESETS)
@click.option("--languages", callback=_split, help=_LANGUAGES)
@click.option("--licenses", help=_LICENSES)
@click.option("--min-document-score", multiple=True, callback=_least, help=_LEAST)
@click.option("--min-cluster-score", multiple=True, callback=_least, help=_LEAST_MEAN)
@click.option("--keep-ids", type=INPUT, help=_KEEP_IDS)
@click.option("--decontaminate", multiple=True, callback=_list, help=_DECONTAMINATE)
@click.option(
    "--mark-contaminated",
    is_flag=True,
    default=None,
    help="Mark contaminated documents, but keep them.",
)
@click.option("--no-prune", is_flag=True, default=None, help="Keep documents of every quality.")
@click.option(
    "--near-duplicates",
    type=float,
    help="Least similarity of near copies, 0.5 to 1.  [default: 0.8]",
)
@click.option(
    "--keep-duplicates", is_flag=True, default=None, help="Count duplicates, but keep them."
)
@click.option("--keep", callback=_split, help="COL,COL: columns to copy to documents/*.parquet.")
@click.option("--embed", help="tfidf, st:NAME, m2v:NAME or column:NAME.  [default: tfidf]")
@click.option("--trust-remote-code", is_flag=True, default=None, help=_TRUST)
@click.option("--score", "scores", multiple=True, callback=_pairs, help=_SCORE)
@click.option("--tokenizer", help="Hugging Face tokenizer.  [default: train a BPE]")
@click.option(
    "--vocab-size",
    type=COUNT,
    help="Vocabulary size, if a tokenizer is trained.  [default: 32768]",
)
@click.option(
    "--eos-token",
    help="Name of the token that ends a document.  [default: what the tokenizer's files say]",
)
@click.option("--eos-id", type=int, help="Number of the token that ends a document.")
@click.option("--no-eos", is_flag=True, default=None, help="Do not end documents with a token.")
@click.option(
    "--holdout",
    type=Fraction(),
    help="Fraction of documents held out for evaluation.  [default: 0]",
)
@click.option("--seed", type=int, help="Seed of all samples.  [default: 17]")
@click.option("--config", type=INPUT, help=_CONFIG)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print all settings in the form that --config reads, and exit.",
)
@click.option(
    "--strict", is_flag=True, help="End with an error if a record or file cannot be used."
)
@click.option("--engine", type=click.Choice(ENGINES), default="local", help="Where tasks run.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of tasks that run at the same time.  [default: one per core]",
)
@click.option("--partition-mib", type=click.IntRange(*PARTITION_MIB), help=_PARTITION_MIB)
@slurm_print_option
@task_timeout_option
@click.option("--append", is_flag=True, help="Add SOURCES to the clusters of a finished --out.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would be left out, with samples; write no shards."
)
@json_option
def build(
    sources: tuple[str, ...],
    out: str | None,
    scratch: Path | None,
    config: Path | None,
    print_config: bool,
    engine: str,
    workers: int | None,
    partition_mib: int | None,
    append: bool,
    dry_run: bool,
    strict: bool,
    thresholds: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Turn SOURCES into clusters and token shards.

    A source is a file, folder, glob or URL, a data set of the Hub (hub:NAME), or the text of
    installed Python packages (python:). Files are jsonl, json, txt, csv, tsv, parquet or arrow
    (also compressed: .gz, .zst, .bz2, .xz). A column may be nested in another column: --label
    meta.domain. After reading, records and files that are not used are listed, one line per reason.
    A build that was interrupted continues when the same command is run again.
    """
    if not print_config:
        _require(sources, out)
    given = {name: value for name, value in given.items() if value is not None}
    if "keep_ids" in given:
        given["keep_ids"] = _read_lines("--keep-ids", given["keep_ids"])
    if "licenses" in given:
        given["licenses"] = _read_licenses(given["licenses"])
    if thresholds:
        given = {"min_cluster_score": THRESHOLDS[thresholds], "min_document_score": {}} | given
    trusted = append and given.pop("trust_remote_code", False)
    if append and (config or given or dry_run):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given) or (
            "--config" if config else "--dry-run"
        )
        raise UsageError(f"--append uses the settings that {out} was built with; leave out {names}")
    if append and scratch:
        raise UsageError(
            "--scratch is for an --out of s3://…, and --append is for a folder; leave out one of "
            "them"
        )
    settings = read_json(config) if config else {}
    if not isinstance(settings, dict):
        raise InvalidDataError(
            f"{config} is not a JSON object of settings; climb build --print-config prints one"
        )
    settings |= given
    checked = BuildSettings.from_json(settings)
    if print_config:
        click.echo(json.dumps(asdict(checked), indent=1, ensure_ascii=False))
        return
    assert out is not None  # _require has checked it
    how: dict[str, Any] = {
        "workers": workers,
        "engine": engine,
        "strict": strict,
        "partition_mib": partition_mib,
    }
    if dry_run:
        from climbstream.builder.pipeline import dry_run as run_dry  # noqa: PLC0415
        from climbstream.builder.selection.preview import preview_text  # noqa: PLC0415

        found = run_dry(sources, out, checked, scratch=scratch, **how)
        show(found, preview_text(found), as_json=as_json)
        return
    if append:
        from climbstream.builder.appender import append as run_append  # noqa: PLC0415

        manifest = run_append(sources, out, **how, trust_remote_code=trusted)
    else:
        from climbstream.builder.pipeline import build as run_build  # noqa: PLC0415

        manifest = run_build(sources, out, checked, scratch=scratch, **how)
    text = clusters_text(manifest, load_clusters(out))
    about = f"{out} · report: {out.rstrip('/')}/report.html"
    show(manifest.to_json(), f"{text}\n\n{about}", as_json=as_json)
