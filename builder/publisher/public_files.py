"""Public files: the report and ``clusters.json`` without text of documents that were left out.

In both files, a build writes samples of documents that it left out: held-out text, documents with
test questions, documents under other licences, near copies. Because these documents are not
published, the published files do not have the samples. The files in the shard directory do not
change.
"""

from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.features.encoder import check_shape
from climbstream.builder.report.losses import counts_of, loss_sections
from climbstream.builder.report.report import REPORT, report_page
from climbstream.loader.core.files import json_bytes, reading
from climbstream.loader.core.typed import parse_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import CENTROIDS, CLUSTERS, Manifest, read_file

_PUBLIC = ("version", "clusters", "map", "agreement", "kmeans", "cells", "source")
"""Keys of ``clusters.json`` that are published: none of them has text of left-out documents."""


def public_files(directory: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the public content of ``clusters.json`` and ``report.html``, by name.

    Raises:
        InvalidDataError: A file in ``directory`` cannot be read.
        IntegrityError: ``clusters.json`` is not the one that ``manifest`` names.
    """
    data = read_file(directory, manifest, CLUSTERS)
    description: dict[str, Any] = parse_json(data, str(directory / CLUSTERS))
    public = {name: description[name] for name in _PUBLIC if name in description}
    return {CLUSTERS: json_bytes(public), REPORT: _report(directory, manifest, public)}


def _report(directory: Path, manifest: Manifest, description: dict[str, Any]) -> bytes:
    """Return the report, without samples of documents that were left out."""
    clusters = load_clusters(directory)
    if "map" not in description:  # an import: nothing was clustered, and nothing left out
        return report_page(manifest, clusters, None)
    path = directory / CENTROIDS
    with reading(path, "array of centroids"):
        centroids = np.load(path)
    check_shape(path, "centroids", centroids, None, None)
    why = ClusterMap.from_json(description["map"], centroids).why
    return report_page(
        manifest,
        clusters,
        description.get("agreement"),
        centroids,
        description.get("kmeans"),
        loss_sections(counts_of(manifest), {}, why),
        why,
    )
