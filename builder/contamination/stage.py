"""Stage of a build: find documents that contain an item of the tasks that the build keeps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.engines.engine import Engine, run_stage

from .index import load_index


@dataclass(frozen=True, slots=True)
class ContaminationTask:
    """Input of `look_for_items`: a partition, and the file with the index of items."""

    partition: Partition
    index: Path


def find_contaminated(engine: Engine, partitions: Sequence[Partition], index: Path) -> None:
    """Write ``contaminated`` to each partition: which task and item each document contains.

    The array is str ``[n]``. For a document without items, its text is "". If a document contains
    several items, the text names the item with the largest share.
    """
    tasks = (ContaminationTask(partition, index) for partition in partitions)
    run_stage(engine, "look for test questions", "documents", look_for_items, tasks)


def look_for_items(task: ContaminationTask) -> int:
    """Write the array of `find_contaminated` to one partition; return its number of documents."""
    partition = task.partition
    if not partition.has("contaminated"):
        index = load_index(task.index)
        names = []
        for _, table in partition.row_groups("text"):
            for matches in index.find_all(table["text"].to_pylist()):
                best = max(matches, key=lambda match: (match.share, -match.item), default=None)
                names.append("" if best is None else index.name(best.item))
        partition.write("contaminated", np.array(names, np.str_))
    return len(partition)
