"""Published data sets: which of the files that ``climb publish`` wrote have no documents to read.

``climb publish --what parquet`` writes the documents of each cluster to ``parquet/``, and the same
documents, shuffled, to ``shuffled/``. ``--what all`` adds both folders to a shard directory.
"""

import re
from collections.abc import Iterable

SHUFFLED = "the same documents as in parquet/, shuffled"
"""Reason for leaving out shuffled tables, if the tables of clusters are there too."""
SHARDS = "of a shard directory, which climb pull copies"
"""Reason for leaving out a file of a shard directory that is at a URL."""
MIXTURE = "of a mixture that is published with the documents"
"""Reason for leaving out a mixture, and the files of its search, beside tables."""
_OF_MIXTURE = re.compile(r"mixture\.json|search/.+")
_OF_CLUSTERS = re.compile(r"(.*/|)parquet/cluster_[^/]+/[^/]+\.parquet")
_SHUFFLED = re.compile(r"(.*/|)shuffled/part_[0-9]+\.parquet")
_TABLES = re.compile(r"(parquet/cluster_[^/]+|shuffled)/[^/]+\.parquet")
_INDEX = re.compile(r"(.*/|)clusters/.+/index\.json")
_MANIFEST = "manifest.json"


def without_documents(paths: Iterable[str]) -> dict[str, str]:
    """Return why files below one folder or URL are left out, by path; other files may be read.

    ``paths`` are all files below the folder or URL. They are never files of a local shard
    directory, because such a directory is no source at all; see `find_sources`.

    >>> without_documents(["x/parquet/cluster_0/0.parquet", "x/shuffled/part_0.parquet"])
    {'x/shuffled/part_0.parquet': 'the same documents as in parquet/, shuffled'}
    """
    names = {*paths}
    divided = {match[1] for name in names if (match := _OF_CLUSTERS.fullmatch(name))}
    tops = {match[1] for name in names if (match := _INDEX.fullmatch(name))}
    reasons: dict[str, str] = {}
    for top in {top for top in tops if f"{top}{_MANIFEST}" in names}:
        below = (name for name in names if name.startswith(top))
        reasons |= {name: SHARDS for name in below if not _TABLES.fullmatch(name[len(top) :])}
    shuffled = {name: match[1] for name in names if (match := _SHUFFLED.fullmatch(name))}
    reasons |= {name: SHUFFLED for name, top in shuffled.items() if top in divided}
    for top in {*divided, *shuffled.values()}:
        below = (name for name in names - reasons.keys() if name.startswith(top))
        reasons |= {name: MIXTURE for name in below if _OF_MIXTURE.fullmatch(name[len(top) :])}
    return reasons
