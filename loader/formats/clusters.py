"""ClusterInfo: the description of a cluster; ``clusters.json`` holds those of all clusters."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import write_json
from climbstream.loader.core.typed import Count, Finite, check_version, convert, parse_json
from climbstream.loader.storage.store import Store

from .manifest import CLUSTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """One cluster, described."""

    name: str
    """Name in mixtures and folders: ``c00``."""
    terms: tuple[str, ...]
    """Words that set it apart from the others, strongest first."""
    documents: Count
    tokens: Count
    bytes: Count
    """UTF-8 bytes of its text; 0: not known, as after an import of tokens."""
    quality: dict[str, Finite]
    """Mean of each quality score, 0 to 5; empty after an import."""
    labels: dict[str, Count]
    """Documents by known domain, if the corpus says one, most frequent first."""
    samples: tuple[dict[str, str], ...]
    """A few documents: ``id``, and how its ``text`` begins."""
    micro: tuple[Count, ...]
    """Micro-clusters that it was merged from: rows of ``centroids.npy``; after an import, the
    number that the source gives it."""
    micro_documents: tuple[Count, ...] = ()
    """Documents of each of them; empty: not known."""
    spread: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    """Documents by each quality score: from 0, from 0.5, … up to 5."""
    copies: Count = 0
    """Documents that were near duplicates of others, left out or kept."""
    effective_tokens: Count = 0
    """Tokens of the documents that are no copies of others."""
    axes: dict[str, str] = field(default_factory=dict)
    """Of a cell, as the manifest has them; empty: the cluster is no cell."""

    @property
    def words(self) -> str:
        """The strongest of its terms, for a line of a table."""
        return ", ".join(self.terms[:5])

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, without ``axes`` if it is no cell."""
        return {name: value for name, value in asdict(self).items() if name != "axes" or value}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no such description.
        """
        return convert(value, cls, "description of a cluster")


def save_clusters(directory: Path, clusters: list[ClusterInfo], **more: Any) -> None:
    """Write ``clusters.json``; ``more`` are further JSON values to keep beside the clusters."""
    write_json(
        directory / CLUSTERS, {"version": 1, "clusters": [c.to_json() for c in clusters], **more}
    )


def load_clusters(directory: str | Path | Store) -> list[ClusterInfo]:
    """Read ``clusters.json`` of a shard directory, a folder or a URL; [] if it has none.

    Raises:
        InvalidDataError: It is not what `save_clusters` wrote.
        RemoteError: The store did not give it.
    """
    store = Store.of(directory)
    path = store / CLUSTERS
    try:
        data = store.read(CLUSTERS)
    except FileNotFoundError:
        return []
    value = parse_json(data, str(path))
    try:
        fields = check_version(value, 1, "description of clusters")
        return convert(fields.get("clusters"), list[ClusterInfo], "description of clusters")
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
