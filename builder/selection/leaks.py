"""Leaks: how many held-out documents are contained in documents that stay.

For example, a chapter is held out, and a book that contains the chapter stays. The book is no copy
of the chapter, so it was not held out with the chapter.
"""

import shlex
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.contamination.index import ItemIndex, load_index
from climbstream.builder.contamination.tasks import Item, Task
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import in_order
from climbstream.loader.core.console import Progress, counted
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.manifest import HELDOUT

from .dropped import draw_dropped
from .reasons import HELD_OUT, stays
from .selection import Selection

logger = get_logger(__name__)

_ITEMS, _CHARACTERS = 1000, 1 << 25
"""Maximum number of held-out documents that are looked for, and of their characters. So the index
fits into the memory of each process."""


def tell_leaks(selection: Selection, out: Path) -> None:
    """Log a warning if documents that stay contain the text of held-out documents.

    The warning has the command that lists these documents when the shards in ``out`` are complete.
    If there are more than `_ITEMS` held-out documents, a sample of them is looked for.
    """
    if HELD_OUT not in selection.reasons:
        return
    items = _sample(selection)
    path = selection.work / "held_out.npz"
    ItemIndex.of([Task(HELD_OUT, items)]).save(path)
    leaking: set[int] = set()
    documents = 0
    with Progress("look for held-out text", None, "documents") as progress:
        for count, holding, numbers in selection.each(partial(_find_items, index=path)):
            leaking |= numbers
            documents += holding
            progress.add(count)
    if leaking:
        contain = "contains" if documents == 1 else "contain"
        logger.warning(
            f"  {counted(documents, 'document')} of the shards {contain} held-out text, of "
            f"{len(leaking):,} of {counted(len(items), 'held-out document')} (the first of these: "
            f"{items[min(leaking)].id}); when the build is complete, `climb contamination "
            f"{shlex.quote(str(out))} {shlex.quote(str(out / HELDOUT))}` lists them, and "
            "docs/contamination.md says how to leave them out"
        )


def _sample(selection: Selection) -> tuple[Item, ...]:
    """Return held-out documents of all languages and labels, as items to look for."""
    rows: dict[int, list[int]] = {}
    for number, row in sorted(draw_dropped(selection, _ITEMS)[HELD_OUT]):
        rows.setdefault(number, []).append(row)
    tasks = [(selection.partitions[number], np.array(mine)) for number, mine in rows.items()]
    items = [item for some in in_order(selection.engine, _read_items, tasks) for item in some]
    sizes = accumulate(len(item.question) for item in items)
    return tuple(item for item, size in zip(items, sizes, strict=True) if size <= _CHARACTERS)


def _read_items(task: tuple[Partition, NDArray[np.int64]]) -> list[Item]:
    partition, rows = task
    documents = partition.take(rows, "id", "text").to_pylist()
    return [Item(document["id"], document["text"]) for document in documents]


def _find_items(partition: Partition, index: Path) -> tuple[int, int, set[int]]:
    """Return three values: the number of documents that stay, how many contain items, and which."""
    items = load_index(index)
    staying = stays(partition)
    holding, found = 0, set[int]()
    for rows, table in partition.row_groups("text"):
        texts = table["text"].filter(staying[rows]).to_pylist()
        for matches in items.find_all(texts):
            holding += bool(matches)
            found |= {match.item for match in matches}
    return int(staying.sum()), holding, found
