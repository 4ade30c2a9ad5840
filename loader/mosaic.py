"""mosaicml-streaming: each cluster of a mixture becomes a ``Stream``; our shards are MDS too.

That library takes proportions of samples, and here a sample is a document. So a weight, which is a
share of tokens, is divided by the mean number of tokens of the cluster's documents. Shares hold on
average: an epoch with few documents of a cluster may be far from them.
"""

from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.mixture import Mixture


def as_streams(
    directory: str | Path | ShardDirectory, mixture: Mixture, local: str | Path
) -> list[Any]:
    """Make the ``streams`` of a ``streaming.StreamingDataset``; see `stream_arguments`.

    Raises:
        UsageError: mosaicml-streaming is not installed.
        InvalidDataError: The mixture is for other clusters.
    """
    try:
        from streaming import Stream  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"mosaicml-streaming cannot be imported: {error}; pip install 'climbstream[mosaic]'"
        ) from None
    return [Stream(**arguments) for arguments in stream_arguments(directory, mixture, local)]


def stream_arguments(
    directory: str | Path | ShardDirectory, mixture: Mixture, local: str | Path
) -> list[dict[str, Any]]:
    """Return the arguments of a ``streaming.Stream`` for each cluster that has weight.

    A cluster of weight 0 is left out: that library would serve some of it.

    Args:
        directory: A shard directory: a folder, or a URL that mosaicml-streaming reads.
        mixture: Weights over its clusters: shares of tokens.
        local: Folder for decompressed shards, which is not ``directory``.

    Raises:
        InvalidDataError: The mixture is for other clusters, or gives weight to one without
            documents.
    """
    shards = ShardDirectory.open(directory)
    manifest = shards.manifest
    streams = []
    weights = mixture.array(manifest.names)
    for cluster, weight in zip(manifest.clusters, weights.tolist(), strict=True):
        if not weight:
            continue
        if not cluster.documents:
            raise InvalidDataError(
                f"cluster {cluster.name} has weight {weight:.3g} but no document; give it weight 0"
            )
        streams.append(
            {
                "remote": f"{shards.address}/clusters/{cluster.name}",
                "local": str(Path(local) / cluster.name),
                "proportion": weight * cluster.documents / cluster.tokens,
                "validate_hash": "xxh3_128",
            }
        )
    return streams
