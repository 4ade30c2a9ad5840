"""Regroup: join clusters of a shard directory into groups, and write them beside the shards."""

from collections.abc import Sequence
from pathlib import Path

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import hash_bytes, json_bytes, lock, read_json
from climbstream.loader.formats.grouping import GROUPING, GROUPINGS, Grouping
from climbstream.loader.formats.manifest import (
    AXES,
    Manifest,
    check_name,
    grouping_file,
    refuse_grouping,
)


def axes_of(text: str) -> list[str] | None:
    """Return the axes that ``text`` names, separated by commas, without repeats.

    None: a name is no axis, for example because ``text`` is the path of a file.

    >>> axes_of("topic,tier"), axes_of("groups.json")
    (['topic', 'tier'], None)
    """
    names = [name.strip() for name in text.split(",")]
    return list(dict.fromkeys(names)) if {*names} <= {*AXES} else None


def regroup(directory: Path, name: str, grouping: Grouping) -> Path:
    """Write ``grouping`` to the shard directory ``directory``; return the folder of the grouping.

    ``name`` is the name of the grouping. The folder can be used in place of ``directory`` to load,
    train, search or export.

    Raises:
        InvalidDataError: A cluster of the shards is not in exactly one group, a group names an
            unknown cluster, a group is empty, or ``name`` cannot be the name of a folder.
        UsageError: Another grouping has this name, or ``directory`` is itself a grouping.
        LockedError: Another process works on ``directory``.
    """
    manifest = Manifest.load(directory)
    refuse_grouping(manifest, directory, "regroup")
    check_name(name, "grouping")
    manifest.grouped(grouping)
    folder = directory / GROUPINGS / name
    with lock(directory):
        written = json_bytes(grouping.to_json())
        if manifest.files.get(grouping_file(name), hash_bytes(written)) != hash_bytes(written):
            raise UsageError(
                f"{directory} was published with another grouping {name}; choose another name"
            )
        if (folder / GROUPING).exists():
            if Grouping.from_json(read_json(folder / GROUPING)) != grouping:
                raise UsageError(
                    f"{folder} groups the clusters in another way, and runs may use it; "
                    "choose another name, or remove that folder"
                )
        else:
            grouping.save(folder)
    return folder


def groups_of(manifest: Manifest, axes: Sequence[str]) -> Grouping:
    """Return the grouping in which cells with the same values on all ``axes`` form a group.

    Cells are clusters by topic, language and quality tier. The name of a group consists of the
    values on the axes, such as ``c03`` or ``c03-t2``.

    Raises:
        UsageError: The clusters are no cells, or there is an axis on which no cell has a value.
    """
    there = dict.fromkeys(axis for cluster in manifest.clusters for axis in cluster.axes)
    if not there:
        raise UsageError(
            f"the clusters cannot be regrouped by {', '.join(axes)}: they are not cells. climb "
            "build --tiers N or --cells micro makes cells; or write the groups to a file"
        )
    if lacking := [axis for axis in axes if axis not in there]:
        raise UsageError(
            f"the cells have no axis {', '.join(lacking)}; their axes are {', '.join(there)}"
        )
    groups: dict[str, list[str]] = {}
    for cluster in manifest.clusters:
        name = "-".join(cluster.axes.get(axis, "none") for axis in axes)
        groups.setdefault(name, []).append(cluster.name)
    return Grouping({name: tuple(cells) for name, cells in groups.items()})


def read_groups(path: Path) -> Grouping:
    """Return the grouping in a JSON file.

    The file has the form ``{"group": ["c00", "c07"], ...}``, or is one that `regroup` wrote.

    Raises:
        InvalidDataError: The file has no grouping.
    """
    value = read_json(path)
    if isinstance(value, dict) and "version" not in value:
        value = {"version": Grouping.version, "groups": value}
    try:
        return Grouping.from_json(value)
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
