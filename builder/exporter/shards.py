"""Export of all documents, in the layouts that other trainers read.

``parquet`` is the layout of NVIDIA's ClimbLab, and ``jsonl`` is the layout of ClimbMix; `climb
import` reads both. ``megatron`` is the indexed data set of Megatron. ``mosaic`` is only a YAML file
of streams, because mosaicml-streaming reads the shards of climbstream directly.

Each file is written whole or not at all, and a file that exists is not written again.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from climbstream.builder.cluster_names import table_folder
from climbstream.builder.dataset_card import ExportContents, write_beside
from climbstream.builder.workdir import open_workdir
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import write_bytes, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.mosaic import stream_arguments

from .columns import CatalogueColumns, check_columns, open_columns
from .job import ExportJob, done_file
from .megatron import blend_words, prefixes, write_indexed
from .rows import OWN, Rows, rows_of

logger = get_logger(__name__)

LAYOUTS = ("parquet", "jsonl", "megatron", "mosaic")
DONE = ".export.json"
BLENDS = {"megatron": "blend.txt", "mosaic": "streams.yaml"}
"""Name of the file with the mixture, by layout."""

_MOST_FILES = 100
"""Maximum number of files: per cluster for ``parquet``, in total for ``jsonl``. NVIDIA's data sets
have this number of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """A file to write, and the shards whose documents it will contain."""

    directory: ShardDirectory
    path: Path
    shards: dict[int, range]
    """Numbers of the shards, by the number of the cluster."""
    rows: Rows
    """How documents become rows; not used for Megatron, whose files have no rows."""
    columns: dict[int, CatalogueColumns]
    """Reader of further columns, by number of the cluster; empty: rows have no further columns."""


def export_shards(
    directory: str | ShardDirectory,
    out: str | Path,
    to: str,
    mixture: Mixture | None = None,
    *,
    text: bool = False,
    columns: Sequence[str] = (),
    workers: int | None = None,
) -> str | None:
    """Write a shard directory in another trainer's format; return the mixture in that format.

    The mixture is returned as a string: for Megatron the value of ``--data-path``, for
    mosaicml-streaming a YAML document of streams. The mixture is also written to a file in ``out``;
    paths in this file are relative to ``out``. ``parquet`` and ``jsonl`` cannot express a mixture;
    for them, None is returned.

    Args:
        directory: A shard directory, as a folder or URL.
        out: Folder for the files; it is created if it does not exist.
        to: One of `LAYOUTS`: ``parquet``, ``jsonl``, ``megatron`` or ``mosaic``.
        mixture: Weights of the clusters; default: each cluster's share of all tokens.
        text: Whether rows contain text instead of tokens; only for ``parquet`` and ``jsonl``.
        columns: Columns of the catalogue that rows have in addition, such as ``exact_copies``; only
            for ``parquet`` and ``jsonl``. In JSON, bytes are written as hexadecimal digits.
        workers: Number of processes; by default one per core.

    Example::

        export_shards("shards", Path("megatron"), "megatron", Mixture.load("mixture.json"))

    Raises:
        UsageError: The layout cannot express a mixture, or cannot contain text or columns, or there
            is no tokenizer to decode text with, or the catalogue has no such column.
        InvalidDataError: ``out`` contains something else, or the mixture is for other clusters.
        IntegrityError: The hash of a shard differs from the hash in its index, or a document has no
            end token.
        LockedError: Another process works on ``out``.
    """
    out, shards = Path(out), ShardDirectory.open(directory)
    job, manifest = (
        ExportJob(shards=shards, out=out, to=to, text=text, workers=workers),
        shards.manifest,
    )
    if mixture is not None and to not in BLENDS:
        raise UsageError(
            f"--to {to} writes all documents, so the mixture has no effect; add --tokens to draw "
            f"documents by the mixture, leave out --mixture, or export to {' or '.join(BLENDS)}"
        )
    rows = rows_of(shards, to, text=text)
    _check_columns(to, columns)
    _check_pulled(shards, to, mixture)
    if columns:
        check_columns(shards, columns)
    blend = _blend(job, mixture or manifest.token_shares)
    plan = {
        "exporter": 1,
        "to": to,
        **({"text": True} if text else {}),
        **({"columns": [*columns]} if columns else {}),
        "shards": manifest.fingerprint,
        "license": manifest.license,
        "vocab_size": manifest.vocab_size,
        "eos_id": manifest.eos_id,
    }
    with open_workdir(out, ".export", plan, partial(_finished_plan, out)) as work:
        if work is not None:
            if to != "mosaic":  # mosaicml-streaming reads the shards themselves
                _write_files(job, rows, columns)
            write_beside(shards, out, _contents(job, rows.labels))
            write_json(out / DONE, plan)
        if blend is not None:
            inside = _blend(replace(job, out=Path()), mixture or manifest.token_shares) or ""
            write_bytes(out / BLENDS[to], inside.encode() + b"\n")
    return blend


def _check_columns(to: str, columns: Sequence[str]) -> None:
    """Raise `UsageError` if rows of the layout ``to`` cannot have the columns ``columns``."""
    if columns and to not in ("parquet", "jsonl"):
        raise UsageError(f"--to {to} has no columns; export columns to parquet or jsonl")
    if taken := [name for name in columns if name in OWN or columns.count(name) > 1]:
        raise UsageError(
            f"--columns cannot add {', '.join(dict.fromkeys(taken))}; name each column once, and "
            f"none of those that rows always have: {', '.join(OWN)}"
        )


def _check_pulled(shards: ShardDirectory, to: str, mixture: Mixture | None) -> None:
    """Raise `InvalidDataError` if a pull with a mixture left out a cluster that is exported.

    The streams of ``mosaic`` need only the clusters with weight.
    """
    if to == "mosaic":
        weights = (mixture or shards.manifest.token_shares).weights
        names = [name for name in shards.names if weights.get(name)]
        shards.check_pulled(names, ", or give a mixture without them (--mixture FILE)")
    elif to == "megatron":
        shards.check_pulled(shards.names)
    else:
        shards.check_pulled(
            shards.names, ", or draw documents without them: --tokens N --mixture FILE"
        )


def _finished_plan(out: Path) -> object | None:
    """Return the plan of the finished export in ``out``; None if there is no such export."""
    done = done_file(out, DONE)
    return read_plan(done) if done.exists() else None


def _write_files(job: ExportJob, rows: Rows, columns: Sequence[str]) -> None:
    manifest = job.shards.manifest
    if job.to == "megatron" and manifest.eos_id is None:
        logger.warning(
            "documents have no end token, so Megatron cannot see where they end in a row"
        )
    write = write_megatron if job.to == "megatron" else write_rows
    with (
        LocalEngine(job.workers) as engine,
        Progress("export", manifest.tokens, "tokens") as progress,
    ):
        reader = open_columns(engine, job.shards, columns) if columns else None
        if reader is not None:
            rows = replace(rows, more=reader.schema)
        names = job.shards.names
        tasks = (
            FileTask(
                directory=job.shards,
                path=job.out / path,
                shards=shards,
                rows=rows,
                columns={k: reader.part(names[k], n) for k, n in shards.items()} if reader else {},
            )
            for path, shards in _files(job, rows.labels)
        )
        for _, tokens in engine.run(write, tasks):
            progress.add(tokens)


def _files(job: ExportJob, labels: Sequence[int | str]) -> Iterator[tuple[Path, dict[int, range]]]:
    """Yield the path of each file to write, and the file's shards by number of the cluster."""
    counts = [len(job.shards.index(name).shards) for name in job.shards.names]
    kind = "" if job.text else ".tokenized"
    if job.to == "parquet":
        for k, (label, count) in enumerate(zip(labels, counts, strict=True)):
            for number, part in enumerate(_cut(count, max(1, min(count, _MOST_FILES)))):
                name = f"cluster_{label}_{number:03d}{kind}.parquet"
                yield Path(table_folder(label), name), {k: part}
    if job.to == "jsonl":
        parts = min(max(counts), _MOST_FILES) or 1
        # Each part has its share of every cluster.
        cuts = [_cut(count, parts) for count in counts]
        for i in range(parts):
            yield Path(f"part_{i}{kind}.jsonl"), {k: cut[i] for k, cut in enumerate(cuts)}
    if job.to == "megatron":
        for k, prefix in enumerate(prefixes(job.shards.names)):
            yield Path(prefix), {k: range(counts[k])}


def _cut(count: int, parts: int) -> list[range]:
    """Cut the numbers 0 to ``count`` - 1 into ``parts`` ranges of nearly equal lengths."""
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def _documents(task: FileTask) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Yield, for each shard of ``task``, the number of its cluster, and its documents."""
    for k, numbers in task.shards.items():
        for documents in task.directory.documents(task.directory.names[k], numbers):
            yield k, documents


def write_rows(task: FileTask) -> int:
    """Write a file of rows; return how many tokens were written, 0 if the file exists already."""
    if task.path.exists():
        return 0
    parts = (([k] * len(documents), documents) for k, documents in _documents(task))
    if not task.columns:
        return task.rows.write(task.path, parts)
    more = (
        table
        for k, numbers in task.shards.items()
        for table in task.columns[k].read(task.directory.names[k], numbers)
    )
    return task.rows.write(task.path, parts, more)


def write_megatron(task: FileTask) -> int:
    """Write a cluster for Megatron; return how many tokens were written, 0 if its files exist."""
    # The index is written last: if it exists, both files are complete.
    if task.path.with_name(f"{task.path.name}.idx").exists():
        return 0
    parts = (documents for _, documents in _documents(task))
    manifest = task.directory.manifest
    return write_indexed(task.path, parts, manifest.dtype, manifest.eos_id)


def _contents(job: ExportJob, labels: Sequence[int | str]) -> ExportContents:
    """Return what the card says about the files of an export."""
    kind = "" if job.text else ".tokenized"
    if job.to == "parquet":
        folders = [table_folder(label) for label in labels]
        return ExportContents(
            files="one folder of tables per cluster",
            configs={folder: f"{folder}/*.parquet" for folder in folders},
        )
    if job.to == "jsonl":
        return ExportContents(
            files=f"`part_*{kind}.jsonl`, each with its share of every cluster",
            configs={"default": f"part_*{kind}.jsonl"},
        )
    if job.to == "megatron":
        names = ", ".join(f"`{prefix}`" for prefix in prefixes(job.shards.names))
        return ExportContents(
            files=f"`PREFIX.bin` and `PREFIX.idx` for each of the prefixes {names}; `blend.txt` "
            "has the value of `--data-path`, for a Megatron that is started in this folder"
        )
    return ExportContents(
        files="`streams.yaml`, the streams of mosaicml-streaming, which caches shards in `cache`, "
        "below the folder in which it is started"
    )


def _blend(job: ExportJob, mixture: Mixture) -> str | None:
    """Return the mixture in the format of the layout; None if the layout cannot express one."""
    if job.to == "megatron":
        return blend_words(job.shards.manifest, mixture, job.out)
    if job.to == "mosaic":
        arguments = stream_arguments(job.shards, mixture, job.out / "cache")
        streams = {value["remote"].rpartition("/")[2]: value for value in arguments}
        return str(yaml.safe_dump({"streams": streams}, sort_keys=False)).rstrip("\n")
    return None
