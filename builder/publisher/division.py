"""Division: which folder, and which data set, each shard of a publication is sent to.

The Hub recommends limits for the number of files in a folder and in a data set. A division stays
below them, so that there is room for files that others add.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from climbstream.builder.dataset_card import CARD, license_metadata, write_card
from climbstream.loader.core.files import json_bytes
from climbstream.loader.formats.manifest import INDEX, Manifest
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.shard_folders import ShardFolder, folder_path

FOLDER_FILES, DATA_SET_FILES = 9_000, 95_000
"""Maximum numbers of files in a folder, and in a data set, to which shards are sent."""
PART_OF = "part_of.json"
"""File of a further data set that names the data set to which it belongs."""
_NO_COMMIT = "0" * 40
"""Stands for the commit of a further data set until this data set is published."""
_OF_FURTHER = 3
"""Number of files of a further data set beside those in ``clusters/``: the card, `PART_OF`, and the
``.gitattributes`` of the Hub."""

Files = dict[str, Path | bytes]
"""Content of files, as bytes or a local file, by path in a data set."""


def further_name(repo: str, number: int) -> str:
    """Return the name of further data set ``number`` (from 1) of the data set ``repo``.

    >>> further_name("someone/web", 1)
    'someone/web-2'
    """
    return f"{repo}-{number + 1}"


def with_commits(manifest: Manifest, repo: str, commits: Sequence[str]) -> Manifest:
    """Return ``manifest`` with the ``commits`` of the further data sets of ``repo``."""
    names = (further_name(repo, number) for number in range(1, len(commits) + 1))
    places = (f"hf://datasets/{n}@{commit}" for n, commit in zip(names, commits, strict=True))
    return replace(manifest, data_sets=tuple(places))


def assign_folders(counts: Mapping[str, int], others: int) -> dict[str, tuple[ShardFolder, ...]]:
    """Return the folders of each cluster whose shards do not all go to ``clusters/NAME``.

    A cluster gets a new folder when its folder is full. If the present data set has too little room
    for a folder, this folder and all later folders go to the next data set.

    Args:
        counts: Number of shards of each cluster.
        others: Number of files of the first data set, not counting shards and their indexes.
    """
    most = FOLDER_FILES - 1  # beside the index of the folder
    data_set, files = 0, others + len(counts)  # the first data set has an index of each cluster
    assigned: dict[str, tuple[ShardFolder, ...]] = {}
    for name, count in counts.items():
        folders = []
        for first in range(0, count, most):
            shards = min(most, count - first)
            if files + shards + 1 > DATA_SET_FILES:
                data_set, files = data_set + 1, _OF_FURTHER
            files += shards + 1
            folders.append(ShardFolder(shards, data_set))
        if folders and folders != [ShardFolder(count, 0)]:
            assigned[name] = tuple(folders)
    return assigned


def divide(
    files: Files,
    manifest: Manifest,
    indexes: Mapping[str, Sequence[ShardEntry]],
    repo: str,
    license_: str,
) -> tuple[Manifest, tuple[Files, ...]]:
    """Divide the shards in ``files`` among folders, and among further data sets if necessary.

    Shards that go to another folder get a new path in ``files``. Shards that go to a further data
    set are removed from ``files``. Returns (manifest, further). The manifest says where all shards
    are, but does not yet have the commits of the further data sets. ``further`` has the files of
    each further data set.

    Args:
        files: The files of the publication, with all shards of a cluster in ``clusters/NAME``.
        manifest: The manifest of the publication.
        indexes: The shards of each cluster.
        repo: Name of the data set, ``OWNER/NAME``.
        license_: Licence that the cards of the further data sets state.
    """
    shards = sum(map(len, indexes.values()))
    others = len(files) - shards - len(indexes) + 2  # the card and .gitattributes come in addition
    assigned = assign_folders({name: len(some) for name, some in indexes.items()}, others)
    count = max((folder.data_set for some in assigned.values() for folder in some), default=0)
    data_sets: list[Files] = [files, *({} for _ in range(count))]
    for name, folders in assigned.items():
        for folder, path, some in _contents(name, folders, indexes[name]):
            into = data_sets[folder.data_set]
            moved = {s.zip_basename: files.pop(f"clusters/{name}/{s.zip_basename}") for s in some}
            into |= {f"{path}/{basename}": content for basename, content in moved.items()}
            into[f"{path}/{INDEX}"] = Index.of(manifest.dtype, some).to_bytes()
    for number, further in enumerate(data_sets[1:], start=1):
        further |= _beside_shards(repo, number, license_)
    placed = replace(manifest, data_sets=(), shard_folders={})
    placed = with_commits(placed, repo, [_NO_COMMIT] * count)
    return replace(placed, shard_folders=assigned), tuple(data_sets[1:])


def _contents(
    name: str, folders: Sequence[ShardFolder], shards: Sequence[ShardEntry]
) -> Iterator[tuple[ShardFolder, str, Sequence[ShardEntry]]]:
    """Yield each folder of a cluster, with its path and its shards."""
    first = 0
    for number, folder in enumerate(folders):
        path = folder_path(name, number, len(folders))
        yield folder, path, shards[first : first + folder.shards]
        first += folder.shards


def _beside_shards(repo: str, number: int, license_: str) -> Files:
    """Return the card of a further data set, and its file `PART_OF`."""
    body = (
        f"This data set has some of the shards of `{repo}`, which has the manifest and the "
        f"description. Load `{repo}`: climbstream then reads this data set too."
    )
    title = further_name(repo, number).partition("/")[2]
    metadata = {**license_metadata(license_), "tags": ["climbstream"]}
    part_of = {"data_set": repo, "number": number}
    return {CARD: write_card(title, metadata, body), PART_OF: json_bytes(part_of)}
