"""Measure the CPU time that the cache adds to bare decompression; print JSON lines for run.py.

Synthetic shards of 16 MiB are compressed and stored on the local disk. Speeds are in megabytes of
raw (decompressed) shards per CPU-second. CPU-seconds are those of all threads of the process.
Measured are:

* zstd decompression from memory to memory, which is the upper bound;
* a cold cache: every shard is requested, then fetched, checked, decompressed, written and mapped;
* each of these steps alone, and four alternatives that the cache does not use: hashing the raw
  bytes as well, syncing each file, writing without allocating the blocks of a file first, and
  decompressing into the mapped file;
* a warm cache: every shard is found in the cache and hashed, as each process does once.

All of these run in turn, in rounds; each number is the median over the rounds. Not measured: remote
stores, a cold disk, and the time in which the disk writes after the process has ended.
"""

import argparse
import json
import mmap
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import SHARD_BYTES
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard
from climbstream.loader.reading.shard_cache import ShardCache


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=64_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="climb-bench-") as work:
        measure(Path(work), max(1, 2 * given.tokens // SHARD_BYTES), given.rounds)


def measure(work: Path, shards: int, rounds: int) -> None:
    folder = work / "shards"
    folder.mkdir()
    raws, packed, entries = [], [], []
    for number in range(shards):
        raw = make_shard(number)
        raws.append(raw)
        packed.append(compress(raw))
        entry = describe_shard(f"shard.{number:05}.mds", [], raw, packed[-1])
        (folder / entry.zip_basename).write_bytes(packed[-1])
        entries.append(entry)
    warm = work / "warm"
    fill(warm, folder, entries, threads=4)
    zips = list(enumerate(packed))
    contenders: dict[str, Callable[[Path], None]] = {
        "zstd, memory to memory": lambda _: each(bare, zips),
        "cold cache, 1 thread": lambda place: fill(place, folder, entries, threads=1),
        "cold cache, 4 threads": lambda place: fill(place, folder, entries, threads=4),
        "warm cache": lambda _: fill(warm, folder, entries, threads=4),
        "  read": lambda _: each(partial(read, folder), enumerate(entries)),
        "  hash compressed": lambda _: each(digest, zips),
        "  write": lambda place: each(partial(write, place), enumerate(raws)),
        "  not done: hash raw": lambda _: each(digest, enumerate(raws)),
        "  not done: write, sync": lambda place: each(
            partial(write, place, sync=True), enumerate(raws)
        ),
        "  not done: write, blocks not allocated first": lambda place: each(
            partial(write, place, allocate=False), enumerate(raws)
        ),
        "  not done: zstd into the mapped file": lambda place: each(
            partial(into_map, place, SHARD_BYTES), zips
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    clock: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(-1, rounds):  # the first warms up
        turn = 3 * number % len(names)
        for name in names[turn:] + names[:turn]:
            place = work / "place"
            place.mkdir()
            wall, begin = time.perf_counter(), time.process_time()
            contenders[name](place)
            if number >= 0:
                seconds[name].append(time.process_time() - begin)
                clock[name].append(time.perf_counter() - wall)
            shutil.rmtree(place)
    size = sum(map(len, raws)) / 1e6
    bare_seconds = statistics.median(seconds[names[0]])
    for name in names:
        middle = statistics.median(seconds[name])
        note = f"{middle / bare_seconds:.2f} of the CPU-seconds of bare zstd, "
        note += f"{statistics.median(clock[name]) / shards * 1e3:.1f} ms a shard by the clock"
        print(json.dumps({"what": name, "value": size / middle, "unit": "MB/s", "note": note}))


def make_shard(number: int) -> bytes:
    """Return a raw shard of documents of about 1,000 tokens, with log-uniform token ids."""
    random = np.random.default_rng(number)
    samples, held = [], 0
    while held < SHARD_BYTES - (1 << 19):
        length = int(random.lognormal(6.4, 1.0)) + 1
        document = np.exp(random.random(length) * np.log(50_000)).astype(np.uint16)
        samples.append(encode_document(document))
        held += len(samples[-1]) + 4
    return encode_shard(samples, "uint16")


def each(work: Callable[[int, Any], object], items: Iterable[tuple[int, Any]]) -> None:
    """Call ``work`` for each item; results are discarded, so that their memory is reused."""
    for number, item in items:
        work(number, item)


def bare(_: int, data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


def digest(_: int, data: bytes) -> str:
    return hash_bytes(data)


def read(folder: Path, _: int, entry: ShardEntry) -> bytes:
    return (folder / entry.zip_basename).read_bytes()


def fill(root: Path, folder: Path, entries: list[ShardEntry], threads: int) -> None:
    cache = ShardCache(root, threads=threads)
    for entry in entries:
        cache.want(folder, entry)
    for entry in entries:
        cache.get(folder, entry)
        cache.release(entry)


def write(
    place: Path, number: int, raw: bytes, *, allocate: bool = True, sync: bool = False
) -> None:
    with (place / "temporary").open("wb", buffering=0) as file:
        if allocate:
            os.posix_fallocate(file.fileno(), 0, len(raw))
        file.write(raw)
        if sync:
            os.fsync(file.fileno())
        (place / "temporary").rename(place / str(number))


def into_map(place: Path, size: int, number: int, data: bytes) -> None:
    with (place / str(number)).open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        with mmap.mmap(file.fileno(), size) as mapped, memoryview(mapped) as view:
            reader = zstandard.ZstdDecompressor().stream_reader(data)
            assert reader.readinto(view)


if __name__ == "__main__":
    main()
