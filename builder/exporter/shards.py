"""Export: a shard directory in the layouts that other trainers read.

``parquet`` is the layout of NVIDIA's ClimbLab and ``jsonl`` that of ClimbMix, which `climb import`
reads back; ``megatron`` is Megatron's own; mosaicml-streaming reads our shards as they are, so
``mosaic`` is a YAML of streams alone. Files are written whole, and those that are there are done.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from climbstream.builder.cluster_names import table_folder
from climbstream.builder.dataset_card import write_beside
from climbstream.builder.workdir import open_workdir
from climbstream.loader.core.console import Progress, say
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import write_bytes, write_json
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.documents import cluster_documents
from climbstream.loader.formats.manifest import Manifest, load_index
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.mosaic import stream_arguments
from climbstream.loader.storage.store import Store

from .megatron import blend, prefixes, write_indexed
from .rows import Rows, rows_of

LAYOUTS = ("parquet", "jsonl", "megatron", "mosaic")
DONE = "export.json"
BLENDS = {"megatron": "blend.txt", "mosaic": "streams.yaml"}
"""File of the mixture, by layout."""

_MOST_FILES = 100
"""Files of a cluster, and parts of ClimbMix: as NVIDIA publishes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """A file to write: some shards of some clusters."""

    directory: str
    manifest: Manifest
    path: Path
    shards: dict[int, range]
    """Numbers of the shards, by the number of the cluster."""
    rows: Rows
    """How they are written, if not for Megatron."""


def export_shards(
    directory: str,
    out: Path,
    to: str,
    mixture: Mixture | None = None,
    *,
    text: bool = False,
    workers: int | None = None,
) -> str | None:
    """Write a shard directory in the format of another trainer, and return its mixture there.

    The mixture is a string: for Megatron the words of ``--data-path``, for mosaicml-streaming a
    YAML of streams, both written to ``out`` too. It is None for ``parquet`` and ``jsonl``, which
    have no place for one.

    Args:
        directory: A shard directory, as a folder or URL.
        out: Folder for the files; it is made if need be.
        to: One of `LAYOUTS`: ``parquet``, ``jsonl``, ``megatron`` or ``mosaic``.
        mixture: By default the token shares.
        text: Whether rows hold text in place of tokens; for ``parquet`` and ``jsonl``.
        workers: Processes, by default one a core.

    Example::

        export_shards("shards", Path("megatron"), "megatron", Mixture.load("mixture.json"))

    Raises:
        UsageError: The layout has no place for a mixture, or for text, or no tokenizer is known.
        InvalidDataError: ``out`` holds something else, or the mixture is for other clusters.
        IntegrityError: A shard is not what it was, or a document has no end.
        LockedError: Another process works on ``out``.
    """
    manifest = Manifest.load(directory)
    if mixture is not None and to not in BLENDS:
        raise UsageError(
            f"--to {to} holds all documents, whatever a mixture says; say with --tokens how many "
            f"tokens are to be drawn by it, leave it out, or export to {' or '.join(BLENDS)}"
        )
    rows = rows_of(directory, manifest, to, text=text)
    said = _mixture_text(directory, manifest, mixture or manifest.token_shares, out, to)
    plan = {
        "exporter": 1,
        "to": to,
        **({"text": True} if text else {}),
        "shards": manifest.fingerprint,
        "license": manifest.license,
        "vocab_size": manifest.vocab_size,
        "eos_id": manifest.eos_id,
    }

    def finished() -> object | None:
        return read_plan(out / DONE) if (out / DONE).exists() else None

    with open_workdir(out, ".export", plan, finished) as work:
        if work is not None:
            tasks, write = _tasks(directory, manifest, out, to, rows)
            if to == "megatron" and manifest.eos_id is None:
                say("documents have no end token, so Megatron cannot see where they end in a row")
            with (
                LocalEngine(workers) as pool,
                Progress("export", manifest.tokens, "tokens") as progress,
            ):
                for _, tokens in pool.run(write, tasks):
                    progress.add(tokens)
            folders = [table_folder(k) for k in rows.labels] if to == "parquet" else []
            write_beside(directory, manifest, out, {folder: folder for folder in folders})
            write_json(out / DONE, plan)
        if said is not None:
            write_bytes(out / BLENDS[to], said.encode() + b"\n")
    return said


def _tasks(
    directory: str, manifest: Manifest, out: Path, to: str, rows: Rows
) -> tuple[list[FileTask], Callable[[FileTask], int]]:
    """List the files of a layout, and say what writes them."""
    counts = [len(load_index(Store.of(directory), manifest, c).shards) for c in manifest.clusters]
    kind = "" if rows.text_of else ".tokenized"

    def task(path: Path, shards: dict[int, range]) -> FileTask:
        return FileTask(
            directory=directory, manifest=manifest, path=out / path, shards=shards, rows=rows
        )

    if to == "parquet":
        return [
            task(
                Path(table_folder(label), f"cluster_{label}_{number:03d}{kind}.parquet"), {k: part}
            )
            for k, (label, count) in enumerate(zip(rows.labels, counts, strict=True))
            for number, part in enumerate(_cut(count, max(1, min(count, _MOST_FILES))))
        ], write_rows
    if to == "jsonl":
        parts = min(max(counts), _MOST_FILES) or 1
        # Each part has its share of every cluster.
        cuts = [_cut(count, parts) for count in counts]
        return [
            task(Path(f"part_{i}{kind}.jsonl"), {k: cut[i] for k, cut in enumerate(cuts)})
            for i in range(parts)
        ], write_rows
    if to == "megatron":
        return [
            task(Path(prefix), {k: range(counts[k])})
            for k, prefix in enumerate(prefixes(manifest.names))
        ], write_megatron
    return [], write_rows


def _cut(count: int, parts: int) -> list[range]:
    """Cut the numbers below ``count`` into ``parts`` runs, level within one."""
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def _documents(task: FileTask) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Give the documents of the shards of a file, a shard at a time, with the cluster's number."""
    for k, numbers in task.shards.items():
        for documents in cluster_documents(task.directory, task.manifest, k, numbers):
            yield k, documents


def write_rows(task: FileTask) -> int:
    """Write a file of ClimbLab or ClimbMix, unless it is there; return its tokens."""
    if task.path.exists():
        return 0
    parts = (([k] * len(documents), documents) for k, documents in _documents(task))
    return task.rows.write(task.path, parts)


def write_megatron(task: FileTask) -> int:
    """Write a cluster for Megatron, unless it is there; return its tokens."""
    # The index is written last.
    if task.path.with_name(f"{task.path.name}.idx").exists():
        return 0
    parts = (documents for _, documents in _documents(task))
    return write_indexed(task.path, parts, task.manifest.dtype, task.manifest.eos_id)


def _mixture_text(
    directory: str, manifest: Manifest, mixture: Mixture, out: Path, to: str
) -> str | None:
    """Say a mixture in a layout's own words."""
    if to == "megatron":
        return blend(manifest, mixture, out)
    if to == "mosaic":
        place = directory if "://" in directory else str(Path(directory).resolve())
        arguments = stream_arguments(place, mixture, out / "cache")
        streams = {value["remote"].rpartition("/")[2]: value for value in arguments}
        return str(yaml.safe_dump({"streams": streams}, sort_keys=False)).rstrip("\n")
    return None
