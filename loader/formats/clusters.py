"""ClusterInfo: the description of a cluster; ``clusters.json`` holds those of all clusters."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import write_json
from climbstream.loader.core.typed import Count, Finite, check_version, convert, parse_json
from climbstream.loader.storage.store import Store

from .manifest import CLUSTERS

ADVERTISEMENT, AD_FREE = "advertisement", "ad-free"
"""A score as files name it, and as people read it: 5 means no advertising."""


def score_title(score: str) -> str:
    """Return the name by which people read a score; higher is better in all."""
    return AD_FREE if score == ADVERTISEMENT else score


def reason_title(reason: str) -> str:
    """Return the reason why documents were left out as people read it, by the titles of scores.

    >>> reason_title("low advertisement score"), reason_title("held out")
    ('low ad-free score', 'held out')
    """
    return reason.replace(f"low {ADVERTISEMENT} ", f"low {AD_FREE} ")


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
    """UTF-8 bytes of its text; 0: unknown, as after an import of tokens."""
    quality: dict[str, Finite]
    """Mean of each quality score, 0 to 5; empty after an import."""
    labels: dict[str, Count]
    """Number of documents by known domain, most frequent first; empty if the corpus names none."""
    samples: tuple[dict[str, str], ...]
    """A few documents: ``id``, and how its ``text`` begins."""
    micro: tuple[Count, ...]
    """Micro-clusters that it was merged from, as rows of ``centroids.npy``; after an import, the
    number of the cluster in the source."""
    micro_documents: tuple[Count, ...] = ()
    """Number of documents of each of these micro-clusters; empty: unknown."""
    spread: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    """Histogram of each quality score: number of documents from 0, from 0.5, … up to 5."""
    copies: Count = 0
    """Number of documents that nearly repeat another one, left out or kept."""
    effective_tokens: Count = 0
    """Tokens of the documents that repeat no other one."""
    axes: dict[str, str] = field(default_factory=dict)
    """Axes of a cell, as in the manifest; empty: the cluster is no cell."""

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
    """Write ``clusters.json``; ``more`` are further JSON values in the file."""
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
