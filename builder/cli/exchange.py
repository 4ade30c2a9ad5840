"""The commands ``climb import``, ``climb export`` and ``climb publish``."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from climbstream.builder.cluster_names import cluster_labels, table_folder
from climbstream.builder.exporter.job import ExportJob
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.exporter.shards import BLENDS, LAYOUTS, export_shards
from climbstream.builder.importer.pipeline import import_corpus
from climbstream.builder.importer.settings import ImportSettings
from climbstream.builder.publisher.repo_files import (
    MOST_FILES,
    MOST_IN_FOLDER,
    WHAT,
    DataSetPlan,
    Publication,
    PublishSettings,
    check_limits,
    check_ready,
    collect,
    keep_preview,
    plan_of,
    size_of,
)
from climbstream.builder.publisher.upload import Publisher
from climbstream.loader.cli.completion import PLACE, SOURCE
from climbstream.loader.cli.main import slurm_print_option, task_timeout_option, timeout_option
from climbstream.loader.cli.options import COUNT, INPUT, OUTPUT, grouping_option, json_option, show
from climbstream.loader.core.console import counted, say, text_table
from climbstream.loader.core.engines.engine import ENGINES
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.formats.cluster_tables import clusters_text, license_text
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.mixture import Mixture, some_names
from climbstream.loader.tools.verify import verify_directory

from .scratch import scratch_option

_LISTED = 200
"""If a publication has more files than this, a dry run lists folders."""


@click.command("import")
@click.argument("sources", nargs=-1, required=True, type=SOURCE, metavar="SOURCES...")
@click.option("--out", type=PLACE, required=True, help="Shard directory, a folder or s3://…")
@scratch_option
@click.option(
    "--cluster", help="Column that names the cluster.  [default: cluster_id, cluster, or folder]"
)
@click.option("--folders", is_flag=True, help="The folder of a file is the cluster of its rows.")
@click.option(
    "--use",
    type=click.Choice(["tokens", "text"]),
    help="What to read from the rows.  [default: tokens if there are any]",
)
@click.option("--tokens", default="tokens", show_default=True, help="Column of token ids.")
@click.option("--text", default="text", show_default=True, help="Column of text.")
@click.option(
    "--tokenizer",
    help="Hugging Face tokenizer that made the tokens or, with --use text, that is to make them.",
)
@click.option("--vocab-size", type=COUNT, help="Vocabulary size; all token ids are smaller.")
@click.option("--eos-token", help="Name of the token that ends a document.")
@click.option("--eos-id", type=int, help="Number of the token that ends a document; -1: none.")
@click.option("--no-eos", is_flag=True, help="Do not end documents with a token.")
@click.option(
    "--license", help="Licence of the corpus, in addition to the licences that it states itself."
)
@click.option("--engine", type=click.Choice(ENGINES), default="local", help="Where tasks run.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes.  [default: one per core]"
)
@slurm_print_option
@task_timeout_option
@json_option
def import_(
    sources: tuple[str, ...],
    out: str,
    scratch: Path | None,
    engine: str,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn SOURCES, a corpus that is already clustered, into token shards.

    A source is a file, folder, glob or URL of parquet, jsonl, csv or arrow, or a data set of the
    Hub (hub:NAME or hub:NAME@CONFIG). It may be NVIDIA's ClimbLab or ClimbMix, a mirror of these,
    or any other corpus whose rows or folders name the cluster. An import that was interrupted
    continues when the same command is run again.
    """
    settings = ImportSettings(**options)
    manifest = import_corpus(
        sources, out, settings, workers=workers, engine=engine, scratch=scratch
    )
    text = clusters_text(manifest, load_clusters(out))
    about = f"{out} · licence: {license_text(manifest)} · report: {out.rstrip('/')}/report.html"
    show(manifest.to_json(), f"{text}\n\n{about}", as_json=as_json)


@click.command()
@click.argument("directory", type=PLACE)
@click.option("--to", type=click.Choice(LAYOUTS), required=True, help="Layout.")
@click.option("--out", type=OUTPUT, required=True, help="Folder to write.")
@click.option("--mixture", type=SOURCE, help="File, or hf://OWNER/NAME.  [default: token shares]")
@click.option("--tokens", type=COUNT, help="Tokens to draw by the mixture, shuffled.")
@click.option(
    "--text", is_flag=True, help="Write text, decoded by the tokenizer, in place of tokens."
)
@click.option(
    "--columns",
    help="Columns of the catalogue to add to rows, such as exact_copies,source_count.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes.  [default: one per core]"
)
@grouping_option
@task_timeout_option
@json_option
def export(
    directory: str,
    to: str,
    out: Path,
    mixture: str | None,
    tokens: int | None,
    text: bool,
    columns: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write the shards in DIRECTORY, a folder or URL, in a layout for other trainers.

    parquet is the layout of ClimbLab, and jsonl is the layout of ClimbMix. megatron writes .bin and
    .idx files and, for a mixture, the value of --data-path. mosaic writes only the YAML of streams
    for a mixture. With --tokens, parquet and jsonl contain documents that are drawn by the mixture
    and shuffled, as in ClimbMix.
    """
    weights = Mixture.load(mixture) if mixture else None
    value: dict[str, Any] = {"out": str(out), "to": to}
    shards = ShardDirectory(directory)
    names = [name.strip() for name in columns.split(",")] if columns else []
    if tokens is not None:
        if names:
            raise UsageError(
                "--columns works only in an export of all documents; leave out --tokens or "
                "--columns"
            )
        job = ExportJob(shards=shards, out=out, to=to, text=text, workers=workers)
        counts = export_mixture(job, weights, tokens)
        table = text_table(
            ("cluster", "tokens"), [(k, f"{n:,}") for k, n in counts.items()], left=1
        )
        say(_loading(out, None))
        show({**value, "tokens": counts}, f"{table}\n\n{out}", as_json=as_json)
        return
    blend = export_shards(shards, out, to, weights, text=text, columns=names, workers=workers)
    value["file"] = str(out / BLENDS[to]) if blend else None
    if blend is None:
        first = cluster_labels(shards.names)[0]
        say(_loading(out, table_folder(first) if to == "parquet" else None))
    else:
        say(f"{value['file']} has the same mixture, with paths relative to {out}")
    show({**value, "mixture": blend}, blend or str(out), as_json=as_json)


def _loading(out: Path, config: str | None) -> str:
    """Return a line that says how `datasets` loads the files of an export."""
    name = "" if config is None else f', "{config}"'
    return f'with datasets: load_dataset("{out}"{name}, split="train")'


@click.command()
@click.argument("directory", type=INPUT)
@click.argument("repo")
@click.option(
    "--what",
    type=click.Choice(list(WHAT)),
    default="shards",
    show_default=True,
    help="What to publish; see above.",
)
@click.option("--mixture", type=INPUT, help="Mixture file, or the folder of a search.")
@click.option("--tokens", type=COUNT, help="Tokens to draw by the mixture.")
@click.option(
    "--text", is_flag=True, help="Publish text in place of tokens; the licence must allow this."
)
@click.option(
    "--work",
    type=OUTPUT,
    help="Folder for the tables, which a later run uses again.  [default: a temporary folder]",
)
@click.option("--tag", help="Tag to set on the commit.")
@click.option("--private", is_flag=True, help="Make a new data set private; refuse a public one.")
@click.option("--heldout", is_flag=True, help="Publish the held-out text too.")
@click.option(
    "--license",
    "license_",
    help="Licence of documents that state none. With --what mixture: of the mixture.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be published, and write the card to --work; publish nothing, and do not "
    "check the login.",
)
@timeout_option(
    "Give up a step if the Hub does not answer for this number of seconds.  [default: 600]"
)
@json_option
def publish(
    directory: Path,
    repo: str,
    what: str,
    mixture: Path | None,
    tokens: int | None,
    text: bool,
    work: Path | None,
    tag: str | None,
    private: bool,
    heldout: bool,
    license_: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish the shard directory DIRECTORY as the data set REPO (OWNER/NAME) of the Hub.

    --what shards publishes the directory as it is, for climbstream and mosaicml-streaming. parquet
    publishes tables for load_dataset and the viewer of the Hub. Each cluster is a configuration
    with the name of the cluster; the configuration default has the documents of all clusters,
    shuffled. drawn publishes only the configuration default, with --tokens tokens that are drawn by
    the mixture. A mixture can be published with any of these, or alone.

    If there are more shards than a folder or a data set of the Hub takes, they are divided among
    folders, and among further data sets (OWNER/NAME-2 and so on); --dry-run shows the plan.

    Each data set is changed by one commit at the end; the data set that readers open is changed
    last. A publication that was interrupted continues when the same command is run again. Log in
    with HF_TOKEN or `hf auth login`.
    """
    settings = PublishSettings(
        what=what, mixture=mixture, tokens=tokens, text=text, heldout=heldout, license=license_
    )
    publisher = Publisher(repo)
    check_ready(directory)
    if not dry_run:
        publisher.check_login()
    verdict = verify_directory(directory, content=not dry_run)
    _refuse_faults(directory, verdict.faults)
    if verdict.not_pulled:
        raise InvalidDataError(
            f"{directory} was pulled with a mixture, and lacks {some_names(verdict.not_pulled)}; "
            "first run climb pull without --mixture, then publish"
        )
    if verdict.unexpected:
        say(
            "not published, because the manifest does not list them: "
            f"{some_names(verdict.unexpected)}"
        )
    with tempfile.TemporaryDirectory(prefix="climbstream-") as temporary:
        publication = collect(directory, repo, work or Path(temporary), settings)
        for note in publication.notes:
            say(note)
        if dry_run:
            _show_publication(publisher, publication, work, private=private, as_json=as_json)
            return
        published = publisher.publish(publication, private=private, tag=tag)
    summary = (
        f"{published.url} ({'private' if published.private else 'public'}): "
        f"{counted(published.files, 'file')}, {counted(published.bytes, 'byte')}, "
        f"{published.sent:,} sent · commit {published.commit} · licence: {publication.license}"
    )
    if publication.further:
        summary += f"\ndata sets: {', '.join(published.data_sets)}"
    show(published.to_json(), summary, as_json=as_json)


def _refuse_faults(directory: Path, faults: Sequence[str]) -> None:
    """Raise `IntegrityError` if there are ``faults``."""
    if faults:
        raise IntegrityError(
            f"{directory} has {counted(len(faults), 'fault')}, so it is not published; the first: "
            f"{faults[0]}"
        )


def _show_publication(
    publisher: Publisher,
    publication: Publication,
    work: Path | None,
    *,
    private: bool,
    as_json: bool,
) -> None:
    """Show what would be published; if ``work`` is given, also write the card there.

    ``private`` says whether a new data set would be private.

    Raises:
        UsageError: There are more files than the Hub takes.
    """
    card = keep_preview(publication, work) if work else None
    repo, plan = publisher.repo, plan_of(publisher.repo, publication)
    data_sets = [
        {"repo": one.repo, "files": {path: size_of(c) for path, c in sorted(files.items())}}
        for one, files in zip(plan, publication.each, strict=True)
    ]
    value = {
        "repo": repo,
        "url": publisher.url,
        "private_if_new": private,
        "license": publication.license,
        "bytes": publication.bytes,
        "files": data_sets[0]["files"],
        "data_sets": [{**asdict(one), **more} for one, more in zip(plan, data_sets, strict=True)],
        "limits": {"files": MOST_FILES, "files_in_folder": MOST_IN_FOLDER},
        "notes": publication.notes,
        "card": str(card) if card else None,
    }
    count = sum(one.files for one in plan)
    about = (
        f"{publisher.url}: {'private' if private else 'public'} if the data set is new; an "
        "existing one stays as it is\n"
        f"{counted(count, 'file')}, {counted(publication.bytes, 'byte')} · licence: "
        f"{publication.license} · nothing was sent, and the login was not checked · "
        f"card: {card or '--work DIR writes it'}\n"
        "checked: sizes of shards, hashes of other files; the publication also reads all shards"
    )
    text = f"{_contents_table(publication, plan)}\n\n{_plan_table(plan)}\n\n{about}"
    show(value, text, as_json=as_json)
    for files in publication.each:
        check_limits(files)


def _contents_table(publication: Publication, plan: Sequence[DataSetPlan]) -> str:
    """Return a table of the files; if there are many, a table of the folders."""
    rows: list[tuple[str, ...]] = []
    listed = sum(one.files for one in plan) <= _LISTED
    for one, files in zip(plan, publication.each, strict=True):
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for path, content in sorted(files.items()):
            name = path if listed else f"{path.rpartition('/')[0]}/"
            counts[name] += 1
            sizes[name] += size_of(content)
        rows += [(one.repo, name, f"{n:,}", f"{sizes[name]:,}") for name, n in counts.items()]
    heads = ("data set", "file" if listed else "folder", "files", "bytes")
    return text_table(heads, rows, left=2)


def _plan_table(plan: Sequence[DataSetPlan]) -> str:
    """Return a table of the data sets, with the limits of the Hub in its heads."""
    heads = (
        "data set",
        "folders",
        f"files (limit {MOST_FILES:,})",
        "bytes",
        f"files in the largest folder (limit {MOST_IN_FOLDER:,})",
        "largest folder",
    )
    rows = [
        (
            one.repo,
            f"{one.folders:,}",
            f"{one.files:,}",
            f"{one.bytes:,}",
            f"{one.largest_files:,}",
            one.largest_folder or ".",
        )
        for one in plan
    ]
    return text_table(heads, rows, left=1)
