"""The catalogue of a build: every document and its fate, and the text that was held out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from numpy.typing import NDArray

from climbstream.loader.heldout import HELDOUT
from climbstream.loader.storage import atomic_path
from climbstream.loader.verify import DOCUMENTS

from .fates import HELD_OUT, Fates, split
from .settings import SCORES
from .shards import WrittenCluster
from .unit import Unit

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("cluster", pa.string()),
        ("why", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("tokens", pa.int32()),
        ("bytes", pa.int32()),
        ("micro", pa.int32()),
        *((name, pa.float32()) for name in SCORES),
        ("label", pa.string()),
        ("license", pa.string()),
        ("origin", pa.string()),
    ]
)


def write_catalogue(
    out: Path, units: Sequence[Unit], fates: Fates, written: Sequence[WrittenCluster]
) -> NDArray[np.int64]:
    """Write ``documents/part-*.parquet``, one part a unit; return tokens by document, ``[n]``.

    A dropped document has a reason (``why``) and no ``cluster``, ``shard``, ``row`` or ``tokens``.
    """
    served = np.zeros(len(written), np.int64)
    ends = [np.cumsum(cluster.shard_samples) for cluster in written]
    all_tokens = []
    parts = zip(units, split(fates.cluster, units), split(fates.why, units), strict=True)
    for part, (unit, cluster, why) in enumerate(parts):
        order = unit.read("order")
        tokens = np.zeros(len(cluster), np.int64)
        tokens[order] = unit.read("lengths")
        shard, row = np.full((2, len(cluster)), -1, np.int64)
        for k, end in enumerate(ends):
            mine = order[cluster[order] == k]
            number = served[k] + np.arange(len(mine))
            served[k] += len(mine)
            shard[mine] = np.searchsorted(end, number, side="right")
            row[mine] = number - np.concatenate([[0], end])[shard[mine]]
        dropped = why != ""
        text = unit.columns("id", "label", "license", "origin")
        names = np.array([w.entry.name for w in written] + [""])
        columns: dict[str, Any] = {
            "id": text["id"],
            "cluster": pa.array(names[np.where(dropped, -1, cluster)], mask=dropped),
            "why": pa.array(why, mask=~dropped),
            "shard": pa.array(shard.astype(np.int32), mask=dropped),
            "row": pa.array(row.astype(np.int32), mask=dropped),
            "tokens": pa.array(tokens.astype(np.int32), mask=dropped),
            "bytes": unit.read("sizes").astype(np.int32),
            "micro": unit.read("micro"),
            **dict(zip(SCORES, unit.read("scores").T.copy(), strict=True)),
            **{name: text[name] for name in ("label", "license", "origin")},
        }
        with atomic_path(out / DOCUMENTS / f"part-{part:05d}.parquet") as path:
            pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
        all_tokens.append(tokens)
    return np.concatenate(all_tokens)


def write_heldout(out: Path, units: Sequence[Unit], fates: Fates, names: Sequence[str]) -> None:
    """Write the documents that were held out, with their clusters, for evaluation."""
    with (
        atomic_path(out / HELDOUT) as path,
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as packed,
    ):
        parts = zip(units, split(fates.cluster, units), split(fates.why, units), strict=True)
        for unit, cluster, why in parts:
            rows = np.flatnonzero(why == HELD_OUT)
            documents = unit.columns("id", "text", "label").take(rows).to_pylist()
            for document, k in zip(documents, cluster[rows].tolist(), strict=True):
                line = json.dumps({**document, "cluster": names[k]}, ensure_ascii=False)
                packed.write(line.encode() + b"\n")
