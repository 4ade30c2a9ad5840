"""ClusterInfo: the description of a cluster; the file ``clusters.json`` has one per cluster."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import write_json
from climbstream.loader.core.typed import Count, Finite, check_version, convert, parse_json
from climbstream.loader.storage.store import Store

from .manifest import CLUSTERS

ADVERTISEMENT, AD_FREE = "advertisement", "ad-free"
"""Two names of one quality score: the name in files, and the name that is shown to users. The score
is 5 for text without advertising, so ``ad-free`` says better what a high score means."""


def score_title(score: str) -> str:
    """Return the name under which ``score`` is shown to users."""
    return AD_FREE if score == ADVERTISEMENT else score


def reason_title(reason: str) -> str:
    """Return the text ``reason``, in which a score has the name that users see.

    ``reason`` says why documents were left out.

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
    """Number of documents of the cluster that have copies."""
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
        """Mean number of copies of a document that has copies; 0 if no document has copies."""
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
    """Number of documents of each domain that the corpus names, most frequent first; empty if it
    names none."""
    samples: tuple[dict[str, str], ...]
    """A few documents: each with its ``id`` and, as ``text``, the beginning of its text."""
    micro: tuple[Count, ...]
    """Micro-clusters (the clusters of k-means) that were merged into this cluster, as row numbers
    of ``centroids.npy``. After an import: the number of the cluster in the source."""
    micro_documents: tuple[Count, ...] = ()
    """Number of documents of each micro-cluster in ``micro``; empty: unknown."""
    spread: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    """Histogram of each quality score: number of documents in 10 bins of width 0.5, from 0 to 5."""
    copies: Count = 0
    """Number of documents that are near copies of another document, also those that were left out
    of the shards."""
    effective_tokens: Count = 0
    """Number of tokens of the documents that are not near copies of another document."""
    copy_counts: CopyCounts | None = None
    """Copies of the cluster's documents that were left out; None: not counted, as in a directory of
    an earlier version, in an import, and if copies were kept."""
    axes: dict[str, str] = field(default_factory=dict)
    """If the cluster is a cell (a cluster by topic, language and quality tier): its value on each
    axis, as in the manifest. Empty: it is no cell."""
    languages: dict[str, Count] = field(default_factory=dict)
    """Number of documents by language (ISO 639, ``code`` or ``und``), most frequent first; empty:
    unknown, as after an import."""

    @property
    def words(self) -> str:
        """The first five of `terms`, joined with commas for a line of a table."""
        return ", ".join(self.terms[:5])

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, without optional values that are empty."""
        optional = ("axes", "languages", "copy_counts")
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
    """Write the file ``clusters.json`` to ``directory``.

    ``clusters`` are the descriptions; ``more`` are further keys of the JSON object in the file.
    """
    write_json(
        directory / CLUSTERS, {"version": 1, "clusters": [c.to_json() for c in clusters], **more}
    )


def load_clusters(directory: str | Path | Store) -> list[ClusterInfo]:
    """Return the descriptions of the clusters of the shard directory in a folder or at a URL.

    The result is [] if the directory has no file ``clusters.json``.

    Raises:
        InvalidDataError: The file has no descriptions of clusters.
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
