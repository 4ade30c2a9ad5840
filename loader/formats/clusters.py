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
"""Two names of one quality score: the name in files, and the name that people see. A score of 5
means no advertising, so people see ``ad-free``."""


def score_title(score: str) -> str:
    """Return the name of ``score`` that people see, under which a higher score is always better."""
    return AD_FREE if score == ADVERTISEMENT else score


def reason_title(reason: str) -> str:
    """Return a reason for leaving documents out, with the names of scores that people see.

    >>> reason_title("low advertisement score"), reason_title("held out")
    ('low ad-free score', 'held out')
    """
    return reason.replace(f"low {ADVERTISEMENT} ", f"low {AD_FREE} ")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCounts:
    """Documents of a cluster that occur more than once in the corpus, and their copies.

    These copies were left out of the shards. Copies of documents of earlier builds or appends are
    not counted.
    """

    documents: Count = 0
    """Number of documents of the cluster of which there are copies."""
    exact: Count = 0
    """Number of exact copies of these documents."""
    near: Count = 0
    """Number of near copies of these documents, and of copies of these near copies."""
    several_sources: Count = 0
    """Number of documents of the cluster that occur in more than one source."""

    def __add__(self, other: "CopyCounts") -> "CopyCounts":
        return CopyCounts(
            documents=self.documents + other.documents,
            exact=self.exact + other.exact,
            near=self.near + other.near,
            several_sources=self.several_sources + other.several_sources,
        )

    @property
    def mean(self) -> float:
        """Mean number of copies of a document of which there are copies; 0 if there is none."""
        return (self.exact + self.near) / max(self.documents, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterInfo:
    """The description of one cluster."""

    name: str
    """Name of the cluster in mixtures, and of its folder, such as ``c00``."""
    terms: tuple[str, ...]
    """Words that distinguish the cluster from the other clusters, most typical first."""
    documents: Count
    tokens: Count
    bytes: Count
    """Size of the cluster's text in UTF-8 bytes; 0: unknown, as after an import of tokens."""
    quality: dict[str, Finite]
    """Mean of each quality score over the documents, from 0 to 5; empty after an import."""
    labels: dict[str, Count]
    """Number of documents by known domain, most frequent first; empty if the corpus names none."""
    samples: tuple[dict[str, str], ...]
    """A few documents: each with its ``id`` and, as ``text``, the beginning of its text."""
    micro: tuple[Count, ...]
    """Micro-clusters that were merged into the cluster, as row numbers of ``centroids.npy``; after
    an import, the number of the cluster in the source."""
    micro_documents: tuple[Count, ...] = ()
    """Number of documents of each micro-cluster in ``micro``; empty: unknown."""
    spread: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    """Histogram of each quality score: number of documents in 10 bins of width 0.5, from 0 to 5."""
    copies: Count = 0
    """Number of documents that are near copies of another document, including those near copies
    that were left out of the shards."""
    effective_tokens: Count = 0
    """Number of effective tokens: tokens of documents that are no near copies of another one."""
    copy_counts: CopyCounts | None = None
    """Copies of the cluster's documents that were left out; None: not counted, as in a directory of
    an earlier version, in an import, and if copies were kept."""
    axes: dict[str, str] = field(default_factory=dict)
    """If the cluster is a cell: its value on each axis, as in the manifest; else empty."""

    @property
    def words(self) -> str:
        """The first five of `terms`, joined with commas for a line of a table."""
        return ", ".join(self.terms[:5])

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, without ``axes`` and ``copy_counts`` if empty."""
        optional = ("axes", "copy_counts")
        return {
            name: value for name, value in asdict(self).items() if name not in optional or value
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no description of a cluster.
        """
        return convert(value, cls, "description of a cluster")


def save_clusters(directory: Path, clusters: list[ClusterInfo], **more: Any) -> None:
    """Write ``clusters.json`` in ``directory``; ``more`` are further keys of the JSON object."""
    write_json(
        directory / CLUSTERS, {"version": 1, "clusters": [c.to_json() for c in clusters], **more}
    )


def load_clusters(directory: str | Path | Store) -> list[ClusterInfo]:
    """Read ``clusters.json`` of a shard directory: a folder or a URL; [] if the file is missing.

    Raises:
        InvalidDataError: The file is not one that `save_clusters` wrote.
        RemoteError: The file could not be read from the store.
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
