"""Evidence: trials of an earlier search that a search over other clusters uses.

A trial is one mixture with the scores of a proxy, a small model that was trained on it. A cell is a
cluster of the shard directory. A grouping may join several cells into one cluster.

A search writes a file ``cells.json``, which lists the cells of each of its clusters. From this
file, a later search computes which tokens its own clusters have in common with the clusters of the
earlier search. The later search may use:

- another grouping of the same shards,
- the shards after documents were appended,
- shards whose clusters were merged differently from the same micro-clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import append_line, read_json, read_lines, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, check_version, convert, located
from climbstream.loader.core.workdir import differences_text, read_plan
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import CENTROIDS, Manifest
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.formats.outputs import CELLS, ITEMS, SEARCH, TRIALS, contents_of
from climbstream.search.optimizer.transfer import Carried, Parts, carry_trials
from climbstream.search.optimizer.trials import TrialLog

logger = get_logger(__name__)

_PARTS_OF_MICRO = ("language", "tier")
"""Properties by which several cells of the same micro-cluster may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cluster of a shard directory. A grouping may join several cells into one cluster."""

    tokens: Count
    hash: str
    """Hash of the index of the cell. If the hash differs, the cell has other documents."""
    axes: dict[str, str] = field(default_factory=dict)
    micro: dict[str, Count] = field(default_factory=dict)
    """Number of documents of the cell in each micro-cluster; empty if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCells:
    """The cells of each cluster of a search."""

    shards: str
    """Fingerprint of the shard directory, without its grouping."""
    model: str
    """Hash of the centroids of the micro-clusters; "" if unknown."""
    clusters: dict[str, dict[str, Cell]]

    version = 1

    @classmethod
    def of(cls, shards: ShardDirectory) -> Self:
        """Return the cells of the clusters of a shard directory or of a grouping."""
        manifest = shards.manifest
        whole = Manifest.load(shards.base) if manifest.members else manifest
        infos = {info.name: info for info in load_clusters(shards.base)}

        def micro(name: str) -> dict[str, int]:
            if (info := infos.get(name)) is None or len(info.micro_documents) != len(info.micro):
                return {}
            return dict(zip(map(str, info.micro), info.micro_documents, strict=True))

        return cls(
            shards=whole.fingerprint,
            model=whole.hash_of(CENTROIDS) or "",
            clusters={
                cluster.name: {
                    cell.name: Cell(
                        tokens=cell.tokens,
                        hash=cell.index_hash,
                        axes=cell.axes,
                        micro=micro(cell.name),
                    )
                    for cell in manifest.members.get(cluster.name, (cluster,))
                }
                for cluster in manifest.clusters
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cells as JSON values."""
        return {"version": self.version, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the JSON values that `to_json` returns.

        Raises:
            InvalidDataError: ``value`` does not describe cells.
        """
        return convert(check_version(value, cls.version, "cells of a search"), cls, "cells")

    def by_cell(self) -> Parts:
        """Return the number of tokens of each cell of each cluster."""
        return {
            name: {cell: float(each.tokens) for cell, each in cells.items()}
            for name, cells in self.clusters.items()
        }

    def by_micro(self, axes: Sequence[str]) -> Parts:
        """Return the number of tokens of each part of each cluster.

        A part of a cluster is its tokens that are in one micro-cluster and have the same values on
        ``axes``. The tokens of a cell are divided among its micro-clusters, in proportion to the
        documents that the cell has in each of them.
        """
        parts: dict[str, dict[str, float]] = {}
        for name, cells in self.clusters.items():
            mine = parts.setdefault(name, {})
            for cell in cells.values():
                ends = [cell.axes.get(axis, "") for axis in axes]
                documents = sum(cell.micro.values()) or 1
                for micro, count in cell.micro.items():
                    part = "-".join([micro, *ends])
                    mine[part] = mine.get(part, 0.0) + cell.tokens * count / documents
        return parts

    @property
    def axes(self) -> set[str]:
        """Axes (language, tier and so on) on which at least one cell has a value."""
        return {axis for cells in self.clusters.values() for c in cells.values() for axis in c.axes}

    def hashes(self) -> dict[str, str]:
        """Return the hash of the index of each cell, by name of the cell."""
        return {name: c.hash for cells in self.clusters.values() for name, c in cells.items()}


def load_cells(search: Path) -> SearchCells:
    """Read the cells that `save_cells` wrote to the folder of a search.

    Raises:
        InvalidDataError: The file does not describe cells.
    """
    path = search / CELLS
    return located(SearchCells.from_json, read_json(path), str(path))


def save_cells(shards: ShardDirectory, out: Path) -> None:
    """Write the cells of the clusters of ``shards`` to ``out``, the folder of a search."""
    write_json(out / CELLS, SearchCells.of(shards).to_json())


@dataclass(frozen=True, slots=True)
class Evidence:
    """Trials of an earlier search, carried over to the clusters of this search."""

    search: Path
    carried: Carried
    left: int
    """Number of trials in the log of the earlier search that are not used. The earlier search took
    them from a third search, and they correspond to no mixture of its own clusters."""
    same: bool
    """Whether cells and targets are the same as in the earlier search."""

    def begin(self, out: Path, settings: Mapping[str, Any]) -> None:
        """Begin the log of the search in ``out`` with the carried trials, unless the log exists.

        Args:
            out: Folder of the search.
            settings: Clusters, targets and seed of the search.

        Raises:
            UsageError: The search in ``out`` was begun without trials of an earlier search.
        """
        if (out / TRIALS).exists():
            if TrialLog.open(out / TRIALS).origin is None:
                raise UsageError(
                    f"the search in {out} was begun without --from; name a new folder to begin "
                    f"from the trials of {self.search}"
                )
            return
        if self.same:  # the items have the same numbers
            (out / ITEMS).unlink(missing_ok=True)
            kept = {trial.number for trial in self.carried.trials}
            for line in read_lines(self.search / ITEMS):
                if isinstance(line, dict) and line.get("trial") in kept:
                    append_line(out / ITEMS, line, sync=False)
        trials, apart = self.carried.trials, self.carried.apart
        overlap = self.carried.overlap.to_json()
        origin = {"search": str(self.search), "same": self.same, "overlap": overlap}
        TrialLog.begin_with(out / TRIALS, trials, settings, origin, apart)
        logger.info(self.text())

    def text(self) -> str:
        """Return as text how many trials are used, and why the other trials are not used."""
        trials, apart = self.carried.trials, self.carried.apart
        others = {
            "are used only to predict scores, because they correspond to no mixture of these "
            "clusters": len(apart),
            "are not used, because they have nothing in common with these "
            "clusters": self.carried.lost,
            "are not used, because that search used them only to predict scores": self.left,
        }
        total = len(trials) + sum(others.values())
        mixtures = len({trial.mixture.fingerprint for trial in trials})
        what = f" ({counted(mixtures, 'different mixture')})" if mixtures < len(trials) else ""
        said = [f"{len(trials):,} of the {total:,} trials of {self.search} count as measured{what}"]
        return "; ".join(said + [f"{count:,} {why}" for why, count in others.items() if count])


def read_earlier(
    search: Path,
    shards: ShardDirectory,
    plan: Mapping[str, Any],
    targets: Sequence[str],
    base: Mixture,
) -> Evidence:
    """Read the trials of an earlier search, and carry them over to the clusters of ``shards``.

    Args:
        search: Folder of the earlier search, finished or not.
        shards: Shards of the new search.
        plan: The plan of the new search: the settings of its proxies, and fingerprints of the
            targets.
        targets: Targets of the new search.
        base: Token shares of the new search.

    Raises:
        UsageError: ``search`` holds no search, or its trials cannot be used: they lack the scores
            of a target, or none of their mixtures has a cell of the new clusters.
        InvalidDataError: The earlier search had other proxies or targets, or shards whose
            cells cannot be compared with those of ``shards``.
    """
    if not SEARCH.has(search):
        raise UsageError(
            f"--from {search} is {contents_of(search) or 'no search'}. Name the --out of a climb "
            "search"
        )
    grown = _check_proxies(read_plan(search / SEARCH.plan), plan, targets, search)
    here, there = SearchCells.of(shards), _read_cells(search, shards)
    old, new = _common(there, here, shards, search)
    log = TrialLog.open(search / TRIALS) if (search / TRIALS).exists() else TrialLog({})
    carried = carry_trials(log.trials, old, new, base)
    if not carried.trials and not carried.apart:
        raise UsageError(
            f"--from {search}: none of its {counted(len(log.trials), 'trial')} has anything in "
            f"common with these clusters; {_other_start(log)}"
        )
    hashes = here.hashes()
    same = not grown and all(hashes.get(name) == was for name, was in there.hashes().items())
    return Evidence(search, carried, len(log.apart), same)


def _other_start(log: TrialLog) -> str:
    """Return advice for the error that no trial of ``log`` can be used.

    If the search of ``log`` itself used trials of a third search, the advice is to name that one.
    """
    if log.origin is None or not log.apart:
        return "leave out --from"
    return (
        f"it also used {counted(len(log.apart), 'trial')} of {log.origin['search']}, which may "
        "have: name that search with --from, or leave out --from"
    )


def _check_proxies(
    there: Mapping[str, Any], here: Mapping[str, Any], targets: Sequence[str], search: Path
) -> bool:
    """Check that the proxies of two searches differ only in their clusters.

    The text of a target ``label=`` or ``cluster=`` may differ, because documents may have been
    added to the held-out text. Returns whether the text of any target differs.
    """
    texts: Mapping[str, str] = there.get("targets", {})
    if missing := [name for name in targets if name not in texts]:
        raise UsageError(
            f"--from {search}: it has no scores of {', '.join(missing)}, but of "
            f"{', '.join(texts)}; search for targets that both have, or leave out --from"
        )
    grown = [name for name in targets if texts[name] != here["targets"][name]]
    if others := [name for name in grown if not name.startswith(("label=", "cluster="))]:
        raise InvalidDataError(
            f"--from {search}: the text of {', '.join(others)} has changed since, so its scores "
            "are of another target; leave out --from"
        )
    names = ("final_tokens", "proxy")
    was, now = ({n: p.get("settings", {}).get(n) for n in names} for p in (there, here))
    if differences := differences_text({"settings": was}, {"settings": now}):
        raise InvalidDataError(
            f"--from {search}: its proxies were trained with other settings: {differences}. Use "
            "the settings of that search, or leave out --from"
        )
    return bool(grown)


def _read_cells(search: Path, shards: ShardDirectory) -> SearchCells:
    """Return the cells of the clusters of an earlier search.

    A search by an early version has no file of cells. If that search was on ``shards``, the cells
    are read from ``shards``. Otherwise `InvalidDataError` is raised.
    """
    if (search / CELLS).exists():
        return load_cells(search)
    if read_plan(search / SEARCH.plan).get("shards") == shards.manifest.fingerprint:
        return SearchCells.of(shards)
    raise InvalidDataError(
        f"--from {search}: an earlier version began this search on other shards, and did not write "
        f"{CELLS}; run the command of that search again on its own shards, which writes this file"
    )


def _common(
    there: SearchCells, here: SearchCells, shards: ShardDirectory, search: Path
) -> tuple[Parts, Parts]:
    """Return the number of tokens of each part of each cluster, for the earlier and the new search.

    Parts with equal names in both results are the same documents.
    """
    whole = Manifest.load(shards.base) if shards.manifest.members else shards.manifest
    if there.shards in (here.shards, *whole.earlier):
        return there.by_cell(), here.by_cell()
    if there.model and there.model == here.model:
        axes = [axis for axis in _PARTS_OF_MICRO if axis in there.axes & here.axes]
        return there.by_micro(axes), here.by_micro(axes)
    raise InvalidDataError(
        f"--from {search}: that search was on shards {there.shards}; the present shards, "
        f"{here.shards}, were not made from those by appends, and have other micro-clusters; leave "
        "out --from"
    )
