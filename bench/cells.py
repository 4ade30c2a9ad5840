"""Compare a grouping of 1,000 cells into 20 groups by topic with 20 clusters of as many tokens.

The data is synthetic. There are 1,000 cells of one shard each, in 20 topics with 50 tiers, and 20
clusters of 50 such shards. The groups and the clusters have the same skewed weights. They are
served in turn, from a warm cache, in batches of 8 rows of 2,048 tokens. The bench measures the CPU
time per batch, and the largest difference, in rows, between what a group or cluster received and
its share. Python's garbage collection is off while batches are timed: one full collection takes as
long as 700 batches, and would be in one of the rounds by chance. Then evidence.py measures how much
a search gains from the trials of an earlier search on other groups. The results are JSON lines for
run.py.

Not measured: a cold cache, several ranks, and clusters of very different sizes within a group.
"""

import argparse
import gc
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import evidence
import numpy as np
from corpus import SEQ_LEN, save_manifest, write_shard
from measure import cpu_seconds, in_turn, report

from climbstream.loader import MixtureLoader
from climbstream.loader.formats.manifest import Manifest, cluster_folder
from climbstream.loader.formats.mds.writer import encode_document
from climbstream.loader.tools.regroup import groups_of, regroup

GROUPS, CELLS, DOCUMENTS, VOCAB = 20, 50, 8, 30_000
ROWS, BATCHES, STEPS = 8, 2000, 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--seeds", type=int, default=5, help="searches of each kind")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        groups = [f"g{number:02d}" for number in range(GROUPS)]
        cells = {group: tuple(f"{group}-t{i:02d}" for i in range(CELLS)) for group in groups}
        write_clusters(work / "coarse", dict.fromkeys(groups, CELLS))
        write_clusters(work / "fine", {name: 1 for group in groups for name in cells[group]})
        folder = regroup(work / "fine", "topic", groups_of(note_axes(work / "fine"), ["topic"]))
        weights = {group: 20 - number for number, group in enumerate(groups)}
        places = {"20 clusters": work / "coarse", "1,000 in 20 groups": folder}
        for what, place in places.items():
            report(f"{what}: furthest from a share", furthest(place, weights), "rows", "")
        measure(places, weights, options.rounds)
    evidence.measure(range(options.first_seed, options.first_seed + options.seeds))


def write_clusters(directory: Path, shards: dict[str, int]) -> None:
    """Write a shard directory; ``shards`` is the number of shards of each cluster by name."""
    random = np.random.default_rng(3)
    clusters = {}
    for name, count in shards.items():
        written = []
        for number in range(count):
            documents = random.integers(0, VOCAB, (DOCUMENTS, SEQ_LEN)).astype(np.uint16)
            encoded = [encode_document(document) for document in documents]
            lengths = [SEQ_LEN] * DOCUMENTS
            written.append(write_shard(cluster_folder(directory, name), number, encoded, lengths))
        clusters[name] = tuple(written)
    save_manifest(directory, clusters, VOCAB)


def note_axes(directory: Path) -> Manifest:
    """Write the topic and tier of each cell to the manifest, by the cell's name; return it."""
    manifest = Manifest.load(directory)
    axes = [dict(zip(("topic", "tier"), name.split("-"), strict=True)) for name in manifest.names]
    noted = zip(manifest.clusters, axes, strict=True)
    manifest = replace(manifest, clusters=tuple(replace(cell, axes=a) for cell, a in noted))
    manifest.save(directory)
    return manifest


def furthest(place: Path, weights: dict[str, int]) -> float:
    """Serve `STEPS` batches; return the largest distance of a group from its share, in rows."""
    loader = open_loader(place, weights)
    shares = np.array([*loader.mixture.weights.values()])
    shares /= shares.sum()
    served, most = np.zeros(GROUPS), 0.0
    for step in range(1, STEPS + 1):
        served += np.bincount(next(loader)["cluster_ids"].numpy(), minlength=GROUPS)
        most = max(most, float(np.abs(served - ROWS * step * shares).max()))
    return most


def measure(places: dict[str, Path], weights: dict[str, int], rounds: int) -> None:
    """Print the CPU time per batch for each of ``places``, and the ratio of the two times."""
    loaders = {what: open_loader(place, weights) for what, place in places.items()}
    times: dict[str, list[float]] = {what: [] for what in loaders}
    for loader in loaders.values():  # so that every shard is in the cache
        serve(loader, BATCHES)
    gc.disable()
    for number in range(rounds):
        for what in in_turn(loaders, number):
            seconds, _ = cpu_seconds(partial(serve, loaders[what], BATCHES))
            times[what].append(seconds / BATCHES * 1e6)
    gc.enable()
    one, other = times.values()
    ratio = statistics.median(b / a for a, b in zip(one, other, strict=True))
    for what, values in times.items():
        spread = f"{min(values):.0f} to {max(values):.0f}; groups / clusters {ratio:.3f}"
        report(f"{what}: a batch", statistics.median(values), "us", spread)


def open_loader(place: Path, weights: dict[str, int]) -> MixtureLoader:
    """Open a loader whose cache is in the folder of its shards."""
    cache = place / "cache"
    return MixtureLoader(place, weights, seq_len=SEQ_LEN, batch_rows=ROWS, cache_dir=cache)


def serve(loader: MixtureLoader, batches: int) -> Any:
    """Serve ``batches`` batches; return the last one."""
    for _ in range(batches):
        batch = next(loader)
    return batch


if __name__ == "__main__":
    main()
