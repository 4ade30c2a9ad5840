"""Shard folders: where the shards of a publication are, if it is divided.

The Hub limits the number of files in a folder and in a data set. So a publication with many shards
is divided: the shards of a cluster are in several folders, and some folders are in further data
sets. The manifest, in the first data set, lists the folders and the further data sets.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.core.typed import Count, short

_DATA_SET = re.compile(r"hf://datasets/[\w][\w.-]*/[\w][\w.-]*@[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """A folder with consecutive shards of a cluster.

    The first shard of the cluster's next folder is the one after the last shard of this folder.
    """

    shards: Count
    """Number of shards in the folder."""
    data_set: Count
    """0: the folder is in the data set that has the manifest; k: it is in further data set k."""


def folder_path(cluster: str, number: int, count: int) -> str:
    """Return the path of folder ``number`` of a cluster, relative to the root of its data set.

    ``count`` is the number of folders of the cluster.

    >>> folder_path("c03", 0, 1), folder_path("c03", 1, 2)
    ('clusters/c03', 'clusters/c03/00001')
    """
    return f"clusters/{cluster}" if count == 1 else f"clusters/{cluster}/{number:05d}"


def find_folder(cluster: str, folders: Sequence[ShardFolder], shard: int) -> int:
    """Return which of the ``folders`` of a cluster has shard number ``shard``.

    Raises:
        IntegrityError: The folders do not have this shard.
    """
    ends = [*accumulate(folder.shards for folder in folders)]
    if shard >= ends[-1]:
        raise IntegrityError(
            f"the manifest lists folders of cluster {cluster} with {ends[-1]:,} shards, and shard "
            f"{shard:,} is asked for; it was published in part: publish it again"
        )
    return bisect_right(ends, shard)


def check_division(
    clusters: Collection[str],
    folders: Mapping[str, Sequence[ShardFolder]],
    data_sets: Sequence[str],
) -> None:
    """Raise `InvalidDataError` unless ``folders`` are for ``clusters`` and in ``data_sets``."""
    for place in data_sets:
        if not _DATA_SET.fullmatch(place):
            raise InvalidDataError(
                f"{short(place)} is not the URL of a data set, hf://datasets/OWNER/NAME@COMMIT"
            )
    for name, some in folders.items():
        if name not in clusters or not some:
            raise InvalidDataError(
                f"the manifest lists {len(some)} folders of a cluster {short(name)}"
            )
        if (most := max(folder.data_set for folder in some)) > len(data_sets):
            raise InvalidDataError(
                f"shards of cluster {name} are said to be in data set {most} of {len(data_sets)}"
            )
