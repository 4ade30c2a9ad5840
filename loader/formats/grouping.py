"""Grouping: clusters of a shard directory joined into groups, without writing shards.

A grouping is stored beside the shards, as ``DIR/groupings/NAME/grouping.json``. The folder of a
grouping can be read like a shard directory whose clusters are the groups. The shards of a group are
those of all its clusters, one cluster after the other. So a loader treats a group like one large
cluster: weights of groups are followed as exactly as weights of clusters, and within a group all
tokens are equally likely to be served.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import write_json
from climbstream.loader.core.typed import check_version, convert, parse_json
from climbstream.loader.storage.store import Store

from .mixture import some_names

GROUPING = "grouping.json"
GROUPINGS = "groupings"
"""Name of the folder in a shard directory that has its groupings."""


def folder_of(directory: str | Path | Store, name: str) -> str | Path | Store:
    """Return where grouping ``name`` is stored, as a path, URL or store like ``directory``.

    Raises:
        UsageError: ``directory`` is a local folder without such a grouping; the message lists the
            groupings that it has.
    """
    if isinstance(directory, Store):
        return directory / GROUPINGS / name
    if isinstance(directory, str) and "://" in directory:
        return f"{directory.rstrip('/')}/{GROUPINGS}/{name}"
    folder = Path(directory) / GROUPINGS / name
    if not (folder / GROUPING).is_file():
        there = sorted(p.parent.name for p in Path(directory).glob(f"{GROUPINGS}/*/{GROUPING}"))
        raise UsageError(
            f"{directory} has no grouping {name!r}; it has {some_names(there) or 'none'}. "
            f"climb regroup {directory} --by AXES makes one"
        )
    return type(directory)(folder)


@dataclass(frozen=True, slots=True)
class Grouping:
    """The names of the clusters of each group, by the name of the group."""

    groups: Mapping[str, tuple[str, ...]]

    version = 1

    def check(self, names: Sequence[str]) -> None:
        """Check that each of the clusters ``names`` is in exactly one group.

        Raises:
            InvalidDataError: A cluster is in no group or in several groups, a group names a cluster
                that is not in ``names``, or a group is empty.
        """
        times = Counter(name for group in self.groups.values() for name in group)
        faults = {
            "in no group": [name for name in names if name not in times],
            "in several groups": [name for name in names if times[name] > 1],
            "no clusters of these shards": [name for name in times if name not in names],
            "groups without a cluster": [name for name, group in self.groups.items() if not group],
        }
        if said := [f"{some_names(bad)}: {what}" for what, bad in faults.items() if bad]:
            raise InvalidDataError(
                f"this grouping does not fit the clusters {some_names(names)}; {'; '.join(said)}. "
                "Name each cluster in one group"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the grouping as JSON values."""
        return {"version": self.version, "groups": {k: list(v) for k, v in self.groups.items()}}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no grouping, or has an unknown version.
        """
        fields = check_version(value, cls.version, "grouping")
        return cls(convert(fields.get("groups"), dict[str, tuple[str, ...]], "grouping"))

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Self:
        """Return the grouping in ``data``, the content of the file at ``path``.

        Raises:
            InvalidDataError: The file is no grouping.
        """
        value = parse_json(data, path)
        try:
            return cls.from_json(value)
        except InvalidDataError as error:
            raise InvalidDataError(f"{path}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write the grouping to ``folder``, which can then be opened as a shard directory."""
        write_json(folder / GROUPING, self.to_json())


def base_of(store: Store) -> Store:
    """Return ``store`` or, if it is a grouping, the shard directory whose clusters it groups."""
    return store.above(2) if store.above(1).folder_name == GROUPINGS else store
