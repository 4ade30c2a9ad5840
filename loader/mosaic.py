"""mosaicml-streaming: make a ``Stream`` of that library from each cluster of a mixture.

Shards are used as they are, because their format, MDS, is the format of that library. The weight of
a cluster is a share of tokens, but the library expects a share of samples, and in these shards a
sample is a document. So each weight is divided by the mean number of tokens of the cluster's
documents.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import ClusterEntry
from climbstream.loader.formats.mixture import Mixture, read_weights
from climbstream.loader.formats.shard_folders import folder_path


def as_streams(
    directory: str | Path | ShardDirectory,
    mixture: Mixture | Mapping[str, float] | str | Path,
    local: str | Path,
) -> list[Any]:
    """Return the ``streams`` of a ``streaming.StreamingDataset`` for all clusters with weight.

    A sample of these streams is a document. On average, each cluster's share of tokens is its
    weight. If an epoch has only a few documents of a cluster, the cluster's share of tokens may be
    far from its weight.

    Args:
        directory: A shard directory: a folder, or a URL that mosaicml-streaming reads.
        mixture: Weights of the clusters in ``directory``, which sum to 1, or the path of a mixture
            file.
        local: Folder for decompressed shards; it must differ from ``directory``.

    Raises:
        UsageError: mosaicml-streaming is not installed, or the weights do not sum to 1.
        InvalidDataError: The mixture is for other clusters, or a cluster with weight has no
            documents.
    """
    try:
        from streaming import Stream  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"mosaicml-streaming cannot be imported: {error}; pip install 'climbstream[mosaic]'"
        ) from None
    read = (
        Mixture.load(mixture)
        if isinstance(mixture, str | Path)
        else read_weights(mixture, None, {})
    )
    return [Stream(**arguments) for arguments in stream_arguments(directory, read, local)]


def stream_arguments(
    directory: str | Path | ShardDirectory, mixture: Mixture, local: str | Path
) -> list[dict[str, Any]]:
    """Return the arguments of a ``streaming.Stream`` for each cluster with a weight above 0.

    If a publication is divided, a cluster may be in several folders, and each folder is a stream.
    A cluster of weight 0 is left out, because mosaicml-streaming would serve some documents of such
    a cluster.

    Args:
        directory: A shard directory: a folder, or a URL that mosaicml-streaming reads.
        mixture: Weights of the clusters in ``directory``, which are shares of tokens.
        local: Folder for decompressed shards; it must differ from ``directory``.

    Raises:
        InvalidDataError: The mixture is for other clusters, or a cluster with weight has no
            documents.
    """
    shards = ShardDirectory.open(directory)
    manifest = shards.manifest
    streams: list[dict[str, Any]] = []
    weights = mixture.array(manifest.names)
    for cluster, weight in zip(manifest.clusters, weights.tolist(), strict=True):
        if not weight:
            continue
        if not cluster.documents:
            raise InvalidDataError(
                f"cluster {cluster.name} has weight {weight:.3g} but no document; give it weight 0"
            )
        streams += _streams_of(shards, cluster, weight, Path(local))
    return streams


def _streams_of(
    shards: ShardDirectory, cluster: ClusterEntry, weight: float, local: Path
) -> Iterator[dict[str, Any]]:
    """Yield the arguments of the streams of a cluster: one per folder that has shards of it."""
    documents = Counter({("", folder_path(cluster.name, 0, 1)): cluster.documents})
    if cluster.name in shards.manifest.shard_folders:
        documents.clear()
        for number, entry in enumerate(shards.index(cluster.name).shards):
            documents[shards.manifest.place_of(cluster.name, number)] += entry.samples
    for (data_set, folder), count in documents.items():
        yield {
            # mosaicml-streaming names no revision: it reads the data set as it is now.
            "remote": f"{data_set.partition('@')[0] or shards.address}/{folder}",
            "local": str(local / folder.removeprefix("clusters/")),
            "proportion": weight * count / cluster.tokens,
            "validate_hash": "xxh3_128",
        }
