"""The catalogue: where each document is stored, or why it was dropped. Also: held-out documents."""

import json
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from climbstream.builder.clustering.cells import unit_of
from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import in_order, run_short_in_order
from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.selection.dedup import SIGNATURE, Seen
from climbstream.builder.selection.reasons import HELD_OUT, REASONS, REPEATED, why_of
from climbstream.builder.selection.selection import Selection
from climbstream.builder.settings import CONTAMINATED, EQUAL_TEXT, SCORES
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.files import atomic_path, write_bytes
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.catalogue import row_groups
from climbstream.loader.formats.heldout import FEW_ITEMS
from climbstream.loader.formats.manifest import HELDOUT, part_name
from climbstream.loader.formats.mixture import some_names

from .catalogue_parts import Slice, join_slices, slice_path
from .shards import WrittenCluster

logger = get_logger(__name__)

_LABELS = 10
"""Maximum number of known domains of held-out text that a message names."""
_FEW = 2 * FEW_ITEMS
"""Minimum number of held-out documents of a domain for a reliable score of a mixture. A search uses
only about half of their text for scores."""
_COPIES = ("exact_copies", "near_copies", "source_count")
"""Columns with the array ``copies`` of a partition."""
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("cluster", pa.string()),
        ("why", pa.string()),
        ("copy_of", pa.int64()),
        ("exact_copies", pa.int32()),
        ("near_copies", pa.int32()),
        ("source_count", pa.int32()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("tokens", pa.int32()),
        ("bytes", pa.int32()),
        ("micro", pa.int32()),
        *((name, pa.float32()) for name in SCORES),
        ("label", pa.string()),
        ("license", pa.string()),
        ("language", pa.string()),
        ("script", pa.string()),
        ("origin", pa.string()),
        ("text_hash", pa.binary(16)),
        ("signature", pa.binary(SIGNATURE)),
    ]
)


@dataclass(frozen=True, slots=True)
class ShardRun:
    """The consecutive shards of a cluster that contain the documents of one partition."""

    first: int
    """Number of the first of these shards."""
    starts: tuple[int, ...]
    """For each shard, the number of its first document. The partition's first document in the
    cluster has number 0, so the number is negative if the shard begins with documents of earlier
    partitions."""

    def places(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of each of the partition's ``count`` documents, both ``[count]``."""
        numbers = np.arange(count)
        starts = np.array(self.starts, np.int64)
        shard = np.searchsorted(starts, numbers, side="right") - 1
        return self.first + shard, numbers - starts[shard]


@dataclass(frozen=True, slots=True)
class Piece:
    """Documents ``first`` to ``stop`` - 1 of a partition, which a slice of the catalogue lists."""

    partition: Partition
    first: int
    stop: int
    places: dict[int, ShardRun]
    """The shards that contain the documents of the partition, by cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTask:
    """Input of `write_slice`: the ``pieces`` whose documents a slice of the catalogue lists."""

    pieces: tuple[Piece, ...]
    path: Path
    names: tuple[str, ...]
    keep: tuple[str, ...]
    """Columns of the corpus that the catalogue keeps."""


def write_catalogue(
    engine: Engine,
    out: Path,
    selection: Selection,
    written: Sequence[WrittenCluster],
    *,
    keep: Sequence[str] = (),
    first: int = 0,
    groups: int = 1,
) -> dict[str, str]:
    """Write ``documents/part-*.parquet``, numbered from ``first``; return their hashes by path.

    Tasks first write slices to the working folder. A slice lists the documents of ``groups`` row
    groups; at the end of a source or a span, it may have fewer. So slices do not depend on the size
    of partitions. Then `join_slices` joins consecutive slices to parts.

    The columns of the parts:

    - A dropped document has a reason, ``why``, and no ``cluster``, ``shard``, ``row`` or
      ``tokens``.
    - Documents are numbered in order over all parts. For a dropped copy, ``copy_of`` is the number
      of its original. For an original, columns say how many copies and sources it has; see
      `count_copies`.
    - An append finds near copies by ``signature``. A copy has no signature, because new documents
      are compared only with originals.
    - After an import, some columns are null: scores, hashes and, if the corpus has tokens, bytes.
    """
    stored = [*selection.each(_stored)]
    places = _follow(selection.partitions, stored, written)
    names = tuple(cluster.entry.name for cluster in written)
    tasks = (
        SliceTask(pieces=pieces, path=slice_path(out, number), names=names, keep=tuple(keep))
        for number, pieces in enumerate(_cut_slices(places, groups))
    )
    slices: list[Slice] = []
    with Progress("write catalogue", None, "documents") as progress:
        results = run_short_in_order(engine, write_slice, tasks, len(selection.partitions))
        for number, (documents, size) in enumerate(results):
            slices.append(Slice(slice_path(out, number), documents, size))
            progress.add(documents)
    return join_slices(engine, out, slices, first)


class _Stored(NamedTuple):
    """Numbers of documents of a partition that must be known before the catalogue is written."""

    clusters: list[int]
    """Numbers of the clusters that contain documents of the partition."""
    documents: list[int]
    """Number of documents in each of these clusters."""
    group_rows: list[int]
    """Number of all documents in each row group."""


def _stored(partition: Partition) -> _Stored:
    clusters = partition.read("clusters")[partition.read("order")]
    names, documents = np.unique(clusters, return_counts=True)
    return _Stored(names.tolist(), documents.tolist(), partition.group_rows().tolist())


_Places = tuple[Partition, list[int], dict[int, ShardRun]]
"""A partition, the number of its documents in each row group, and its shards by cluster."""


def _follow(
    partitions: Sequence[Partition], stored: Sequence[_Stored], written: Sequence[WrittenCluster]
) -> Iterator[_Places]:
    """Yield each partition, with the shards that contain its documents, by cluster."""
    ends = [[*accumulate(cluster.shard_samples)] for cluster in written]
    served = [0] * len(written)
    for partition, (clusters, documents, group_rows) in zip(partitions, stored, strict=True):
        places = {}
        for k, n in zip(clusters, documents, strict=True):
            first = bisect_right(ends[k], served[k])
            last = bisect_right(ends[k], served[k] + n - 1)
            begins = [0, *ends[k][:last]] if first == 0 else ends[k][first - 1 : last]
            starts = tuple(begin - served[k] for begin in begins)
            places[k] = ShardRun(written[k].first + first, starts)
            served[k] += n
        yield partition, group_rows, places


def _cut_slices(places: Iterable[_Places], groups: int) -> Iterator[tuple[Piece, ...]]:
    """Yield the pieces of each slice: ``groups`` row groups, or fewer if a source or span ends."""
    pieces: list[Piece] = []
    reading, held = "", 0
    for partition, counts, runs in places:
        if partition.reading != reading or held == groups:
            if pieces:
                yield tuple(pieces)
            pieces, held, reading = [], 0, partition.reading
        ends = [*accumulate(counts)]
        group = 0
        while group < len(counts):
            if held == groups:
                yield tuple(pieces)
                pieces, held = [], 0
            more = min(groups - held, len(counts) - group)
            first, stop = ends[group] - counts[group], ends[group + more - 1]
            pieces.append(Piece(partition, first, stop, runs))
            group, held = group + more, held + more
    if pieces:
        yield tuple(pieces)


def write_slice(task: SliceTask) -> tuple[int, int]:
    """Write one slice, unless it exists; return its number of documents, and its size in bytes."""
    if not task.path.exists():
        table = pa.concat_tables([_rows(piece, task) for piece in task.pieces])
        with atomic_path(task.path) as path:
            pq.write_table(table.combine_chunks(), path, compression="zstd")
    return int(pq.read_metadata(task.path).num_rows), task.path.stat().st_size


def _rows(piece: Piece, task: SliceTask) -> Any:
    """Return the rows of a piece, as an Arrow table."""
    partition = piece.partition
    why = why_of(partition)
    dropped = why > 0
    cluster, order = partition.read("clusters"), partition.read("order")
    tokens, shard, row = np.full((3, len(cluster)), -1, np.int32)
    tokens[order] = partition.read("lengths")
    for k, run in piece.places.items():
        ours = order[cluster[order] == k]
        shard[ours], row[ours] = run.places(len(ours))
    original, copy_of = _originals(partition, why)
    text = partition.columns("id", "label", "license", "origin")
    columns: dict[str, Any] = {
        "id": text["id"],
        "cluster": pa.array(np.array(["", *task.names])[cluster + 1], mask=dropped),
        "why": pa.array(np.array(REASONS)[why], mask=~dropped),
        "copy_of": pa.array(copy_of, mask=copy_of < 0),
        "shard": pa.array(shard, mask=dropped),
        "row": pa.array(row, mask=dropped),
        "tokens": pa.array(tokens, mask=dropped),
        "micro": partition.read("micro"),
        **{name: text[name] for name in ("label", "license", "origin")},
    }
    if partition.has("languages"):
        names = partition.read("languages").T.tolist()
        columns |= dict(zip(("language", "script"), names, strict=True))
    if partition.has("sizes"):
        columns["bytes"] = partition.read("sizes").astype(np.int32)
    if partition.has("scores"):
        columns |= dict(zip(SCORES, partition.read("scores").T.copy(), strict=True))
    if partition.has("text_hashes"):
        columns["text_hash"] = _binary(partition.read("text_hashes"))
    if partition.has("copies"):
        counts = partition.read("copies").T.copy()
        columns |= {
            name: pa.array(values, mask=values < 0)
            for name, values in zip(_COPIES, counts, strict=True)
        }
    if partition.has("original"):
        # An append compares new documents with one document of each group of near copies.
        alone = (original < 0) & ~np.isin(np.array(REASONS)[why], REPEATED)
        signatures = _binary(partition.read("signatures").T)
        columns["signature"] = pc.if_else(pa.array(alone), signatures, None)
    for field in _SCHEMA:
        columns.setdefault(field.name, pa.nulls(len(cluster), field.type))
    schema = _SCHEMA
    for number, name in enumerate(task.keep):
        schema = schema.append(pa.field(name, pa.string()))
        columns[name] = partition.columns(f"kept_{number}")[f"kept_{number}"]
    if partition.has(CONTAMINATED):
        items = partition.read(CONTAMINATED)
        schema = schema.append(pa.field(CONTAMINATED, pa.string()))
        columns[CONTAMINATED] = pa.array(items, mask=items == "")
    return pa.table(columns, schema=schema).slice(piece.first, piece.stop - piece.first)


def _originals(
    partition: Partition, why: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of the original of each near copy, and of each copy, both int64 ``[n]``.

    The number is -1 for documents that are no such copies.
    """
    near = np.full(len(why), -1, np.int64)
    if partition.has("original"):
        near = partition.read("original")
    if not partition.has("first"):
        return near, near
    exact = why == REASONS.index(EQUAL_TEXT)
    return near, np.where(exact, partition.read("first"), near)


def _binary(rows: NDArray[Any]) -> Any:
    """Return an Arrow array with the bytes of each row of ``rows``, ``[n, k]``."""
    width = rows.shape[1] * rows.dtype.itemsize
    data = pa.py_buffer(rows.tobytes())
    return pa.Array.from_buffers(pa.binary(width), len(rows), [None, data])


@dataclass(frozen=True, slots=True)
class SignedTask:
    """Input of `read_signatures`: a part of the catalogue, and a partition for the signatures."""

    path: Path
    partition: Partition


def read_signatures(task: SignedTask) -> int:
    """Copy signatures from a part of the catalogue to an array; return their number n.

    The array ``signatures`` is uint8 ``[SIGNATURE, n]``, in the form that `annotate` writes, with
    one signature per document. A copy (exact or near) has no signature in the catalogue. In the
    array, all bits of its signature are 1; such a signature is never compared.
    """
    if not task.partition.has("signatures"):
        found = [np.empty((0, SIGNATURE), np.uint8)]
        for table in row_groups(task.path, ["signature"]):
            filled = pc.fill_null(table["signature"], b"\xff" * SIGNATURE).to_pylist()
            found.append(np.frombuffer(b"".join(filled), np.uint8).reshape(-1, SIGNATURE))
        task.partition.write("signatures", np.ascontiguousarray(np.concatenate(found).T))
    return int(task.partition.read("signatures", mapped=True).shape[1])


@dataclass(frozen=True, slots=True)
class SeenPart:
    """A part of the catalogue as a source of hashes."""

    path: Path

    def read(self, name: str, *, mapped: bool = False) -> NDArray[Any]:  # noqa: ARG002
        """Return ``text_hashes`` or ``id_hashes``, uint64 ``[n, 2]``."""
        column = "id" if name == "id_hashes" else "text_hash"
        found = [np.empty((0, 2), np.uint64)]
        for table in row_groups(self.path, [column]):
            values = table[column].to_pylist()
            found.append(
                hash_texts(values)
                if column == "id"
                else np.frombuffer(b"".join(values), np.uint64).reshape(-1, 2)
            )
        return np.concatenate(found)


def read_seen(engine: Engine, out: Path, parts: int, work: Path | None) -> Seen:
    """Return hashes and signatures of the documents in the first ``parts`` parts of the catalogue.

    ``work`` is the folder to write the signatures to; None: signatures are not needed.
    """
    paths = [out / part_name(part) for part in range(parts)]
    near: list[Partition] = []
    if work is not None:
        tasks = [SignedTask(path, Partition(work / path.stem)) for path in paths]
        run_stage(engine, "read signatures", "documents", read_signatures, tasks)
        near = [task.partition for task in tasks]
    counts = list(in_order(engine, _count_rows, paths))
    return Seen([SeenPart(path) for path in paths], counts, near)


def _count_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def write_heldout(
    out: Path, selection: Selection, clusters: ClusterMap, names: Sequence[str]
) -> Counter[str]:
    """Write the file of documents that were held out for evaluation, with their clusters.

    Returns the number of held-out documents of each known domain.
    """
    if HELD_OUT not in selection.reasons:
        return Counter()
    folder = selection.work / "heldout"
    function = partial(_write_heldout_lines, folder=folder, clusters=clusters, names=tuple(names))
    parts, labels = [], Counter[str]()
    for lines, some in selection.each(function):
        parts += [lines] if lines is not None else []
        labels += some
    for _ in selection.engine.run(_join_lines, [(parts, out / HELDOUT)]):
        shutil.rmtree(folder)
    return labels


def tell_heldout(labels: Counter[str], domains: Iterable[str] = ()) -> None:
    """Log how many documents of each known domain are held out, the largest domains first.

    ``labels`` has the numbers by domain. ``domains`` are the domains of kept documents; those
    without held-out documents are named too.
    """
    if not labels:
        return
    missing = sorted({*domains} - labels.keys() - {""})
    listed = ", ".join(f"{name} {count:,}" for name, count in labels.most_common(_LABELS))
    more = f", {len(labels) - _LABELS:,} more" if len(labels) > _LABELS else ""
    least = min(labels.values())
    logger.info(f"  held-out documents by known domain: {listed}{more}")
    if missing:
        logger.info(
            f"  no document is held out of {some_names(missing)}, so there is no target "
            f"label={missing[0]}; a larger --holdout holds out more"
        )
    if least < _FEW:
        logger.info(
            f"  a domain with fewer than {_FEW} held-out documents makes an unreliable target, "
            "because only about half of their text scores a mixture; a larger --holdout holds out "
            "more"
        )


def _join_lines(task: tuple[Sequence[Path], Path]) -> None:
    """Write the lines of several files to one compressed file."""
    parts, whole = task
    with (
        atomic_path(whole) as path,
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as packed,
    ):
        for part in parts:
            packed.write(part.read_bytes())


def _write_heldout_lines(
    partition: Partition, folder: Path, clusters: ClusterMap, names: Sequence[str]
) -> tuple[Path | None, Counter[str]]:
    """Write the held-out documents of a partition as JSON lines.

    Returns two values: the path of the file (None if the partition has no held-out document), and
    the number of held-out documents of each known domain.
    """
    rows = np.flatnonzero(why_of(partition) == REASONS.index(HELD_OUT))
    if not len(rows):
        return None, Counter()
    homes = unit_of(partition, clusters)[rows].tolist()
    documents = partition.columns("id", "text", "label").take(rows).to_pylist()
    lines = folder / f"{partition.name}.jsonl"
    write_bytes(
        lines,
        b"".join(
            json.dumps({**document, "cluster": names[k]}, ensure_ascii=False).encode() + b"\n"
            for document, k in zip(documents, homes, strict=True)
        ),
    )
    return lines, Counter(document["label"] for document in documents if document["label"])
