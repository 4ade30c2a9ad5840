"""Describe the clusters of an import from a sample of the documents in its shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from climbstream.builder.report.describe import SHOWN, name_terms, show_some
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.permutation import sample_indices
from climbstream.loader.formats.clusters import ClusterInfo
from climbstream.loader.formats.documents import read_shard
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index

_READ = 200
"""Maximum number of documents that are read from a cluster."""
_READ_OF_ALL = 20_000
"""Maximum number of documents that are read from all clusters together."""
_SHARDS = 8
"""Maximum number of shards of a cluster that documents are read from."""
_TOKENS = 1_000
"""Maximum number of tokens of a document that are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTask:
    """Input of `read_some`: a cluster, and how many of its documents are read."""

    directory: Path
    manifest: Manifest
    cluster: int
    documents: int
    seed: int


def describe_imported(
    engine: Engine,
    directory: Path,
    manifest: Manifest,
    micro: Sequence[int],
    sizes: Sequence[int],
    seed: int,
) -> list[ClusterInfo]:
    """Return the description of each cluster; without a tokenizer, descriptions have only counts.

    Args:
        engine: Runs the tasks that read shards.
        directory: Folder of the shards and of ``tokenizer.json``.
        manifest: The manifest that the directory will have.
        micro: Number that each cluster has in the corpus.
        sizes: Bytes of text in each cluster; 0 if the corpus contains tokens.
        seed: Decides which documents are read.
    """
    texts: list[list[dict[str, str]]] = [[] for _ in manifest.clusters]
    if manifest.tokenizer_hash:
        each = max(SHOWN, min(_READ, _READ_OF_ALL // len(texts)))
        tasks = [
            SampleTask(directory=directory, manifest=manifest, cluster=k, documents=each, seed=seed)
            for k in range(len(texts))
        ]
        with Progress("describe", len(tasks), "clusters") as progress:
            for task, documents in engine.run(read_some, tasks):
                texts[task.cluster] = documents
                progress.add(1)
    terms = name_terms([[document["text"] for document in group] for group in texts])
    return [
        ClusterInfo(
            name=entry.name,
            terms=terms[k],
            documents=entry.documents,
            tokens=entry.tokens,
            bytes=sizes[k],
            quality={},
            labels={},
            samples=show_some(texts[k]),
            micro=(micro[k],),
        )
        for k, entry in enumerate(manifest.clusters)
    ]


def read_some(task: SampleTask) -> list[dict[str, str]]:
    """Return the place (``id``) and the beginning (``text``) of some documents of a cluster."""
    entry = task.manifest.clusters[task.cluster]
    shards = load_index(task.directory, task.manifest, entry).shards
    folder = cluster_folder(task.directory, entry.name)
    tokenizer = Tokenizer.from_file(str(task.directory / "tokenizer.json"))
    documents = []
    chosen = sample_indices(len(shards), _SHARDS, task.seed, "portrait", task.cluster).tolist()
    for shard in sorted(chosen):
        view = read_shard(folder, shards[shard], task.manifest.dtype)
        rows = sample_indices(
            len(view.lengths), -(-task.documents // len(chosen)), task.seed, shard
        )
        for row in sorted(rows.tolist()):
            ids = view.document(row, task.manifest.dtype)[:_TOKENS].tolist()
            text = tokenizer.decode(ids, skip_special_tokens=True)
            documents.append({"id": f"shard {shard}, row {row}", "text": text})
    return documents[: task.documents]
