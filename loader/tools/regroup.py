"""Regroup: write a grouping beside the shards of a directory."""

from pathlib import Path

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import lock, read_json
from climbstream.loader.formats.grouping import GROUPING, GROUPINGS, Grouping
from climbstream.loader.formats.manifest import Manifest, check_name, refuse_grouping


def regroup(directory: Path, name: str, grouping: Grouping) -> Path:
    """Write ``grouping`` beside the shards in ``directory`` under ``name``, and return its folder.

    Every command that reads a shard directory takes that folder: to load, train, search or export.

    Raises:
        InvalidDataError: The grouping does not fit the clusters, or ``name`` cannot be a folder.
        UsageError: Another grouping has this name, and runs may use it.
        LockedError: Another process works on ``directory``.
    """
    manifest = Manifest.load(directory)
    refuse_grouping(manifest, directory, "regroup")
    check_name(name, "grouping")
    manifest.grouped(grouping)
    folder = directory / GROUPINGS / name
    with lock(directory):
        if (folder / GROUPING).exists():
            if Grouping.from_json(read_json(folder / GROUPING)) != grouping:
                raise UsageError(
                    f"{folder} groups the clusters in another way, and runs may use it; "
                    "choose another name, or remove that folder"
                )
        else:
            grouping.save(folder)
    return folder


def read_groups(path: Path) -> Grouping:
    """Read a grouping from a file: ``{"group": ["c00", "c07"], ...}``, or one that `regroup` wrote.

    Raises:
        InvalidDataError: The file holds no grouping.
    """
    value = read_json(path)
    if isinstance(value, dict) and "version" not in value:
        value = {"version": Grouping.version, "groups": value}
    try:
        return Grouping.from_json(value)
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
