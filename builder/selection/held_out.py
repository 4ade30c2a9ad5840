"""Held-out documents: the hash of a text decides; a near copy is held out with its original."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.files import atomic_path
from climbstream.loader.core.permutation import derive_key

from .dedup import Seen
from .exchange import Block, Source, cut_blocks, read_whole_part, starts_of, write_parts
from .reasons import HELD_OUT, PRUNED, stays_until
from .selection import Rule, Selection

_NUMBER = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class DrawTask:
    """Input of one step of `held_out_rule`, for one ``block`` of consecutive documents.

    ``folder`` has the files that the tasks of all blocks exchange.
    """

    block: Block[Source]
    folder: Path
    starts: NDArray[np.int64]
    """Number of the first document of each block, ``[blocks + 1]``."""
    before: int
    """Number of documents that were in the directory before an append."""
    settings: BuildSettings


def held_out_rule(selection: Selection, settings: BuildSettings, seen: Seen) -> Rule:
    """Return the rule that holds out documents; copies are held out together.

    The hash of a document's text decides whether the document is drawn, that is, held out. So of
    exact copies, all are drawn or none. Near copies may stay if the settings keep duplicates or
    name documents. For a near copy that stays, the hash of its original decides. The original may
    be in another partition, or in the directory before an append. So tasks exchange the numbers of
    originals in files.
    """
    folder = None
    if settings.near_duplicates is not None and (settings.keep_duplicates or selection.spared):
        folder = selection.work / "held out"
        sources: list[Source] = [*seen.parts, *selection.partitions]
        blocks = cut_blocks(sources, [*seen.counts, *selection.counts()])
        starts = starts_of(blocks)
        tasks = [DrawTask(block, folder, starts, seen.total, settings) for block in blocks]
        for function in (name_originals, draw_originals):
            for _ in selection.engine.run(function, tasks):
                pass
    return Rule(HELD_OUT, (HELD_OUT,), partial(_held_out, settings=settings, folder=folder))


def name_originals(task: DrawTask) -> None:
    """Write the numbers of the originals of those near copies in a block that stay."""
    numbers = [np.empty(0, np.int64)]
    for source, begin, _ in task.block.parts():
        if task.block.start + begin >= task.before:
            partition = cast("Partition", source)
            original = partition.read("original")
            numbers.append(original[(original >= 0) & stays_until(partition, PRUNED)])
    ordered = np.unique(np.concatenate(numbers)).astype(_NUMBER)
    ends = np.searchsorted(ordered, task.starts[1:])
    write_parts(task.folder / f"originals-{task.block.number}", ends, [ordered])


def draw_originals(task: DrawTask) -> None:
    """Write the numbers of those originals in a block that are drawn.

    Only the originals that `name_originals` wrote are considered.
    """
    count = len(task.starts) - 1
    paths = [task.folder / f"originals-{number}" for number in range(count)]
    numbers = np.unique(read_whole_part(paths, task.block.number, count, _NUMBER))
    drawn = [np.empty(0, np.int64)]
    for source, begin, end in task.block.parts():
        first, stop = task.block.start + begin, task.block.start + end
        ours = numbers[slice(*np.searchsorted(numbers, [first, stop]).tolist())]
        if len(ours):
            hashes = source.read("text_hashes", mapped=True)[ours - first]
            drawn.append(ours[_is_drawn(hashes, task.settings)])
    path = task.folder / f"drawn-{task.block.number}.npy"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(drawn))


def _held_out(
    partition: Partition, settings: BuildSettings, folder: Path | None
) -> NDArray[np.str_]:
    drawn = _is_drawn(partition.read("text_hashes"), settings)
    if folder is not None:
        original = partition.read("original")
        drawn = np.where(original < 0, drawn, np.isin(original, _read_drawn(folder)))
    return np.where(drawn, HELD_OUT, "")


def _read_drawn(folder: Path) -> NDArray[np.int64]:
    parts: Sequence[NDArray[np.int64]] = [np.load(path) for path in folder.glob("drawn-*.npy")]
    return np.concatenate(parts)


def _is_drawn(hashes: NDArray[Any], settings: BuildSettings) -> NDArray[np.bool_]:
    """Return which texts are drawn, bool ``[n]``, by their ``hashes``, uint64 ``[n, 2]``."""
    drawn = hashes[:, 0] ^ np.uint64(derive_key(settings.seed, HELD_OUT))
    return np.asarray(drawn < settings.holdout * 2.0**64, np.bool_)
