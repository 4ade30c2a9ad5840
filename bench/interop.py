"""Check that mosaicml-streaming and Megatron read what climbstream writes: ``make interop``.

It is also checked that mosaicml-streaming writes the same bytes as climbstream. Each library is
installed in a separate environment. The steps of the bench run in these environments, and exchange
files through one folder:

1. ``ours`` (climbstream) reads every document of a shard directory with climbstream's reader,
   writes the hashes of its tokens, and makes documents for step 2.
2. ``theirs`` (mosaicml-streaming) reads every cluster twice: in order with ``StreamingDataset``,
   which checks the hashes of the index, and by index with ``LocalDataset``. Each document must have
   the hash of step 1, and the folder of the cluster must not change. Then it reads one epoch of a
   mixture of two clusters with equal weights, with the arguments from `stream_arguments`: the share
   of each cluster must be .5 of the tokens, within .02. Last, it writes the documents that step 1
   made, with ``MDSWriter``.
3. ``compare`` (climbstream) writes the documents that step 1 made, and compares the bytes with
   those of step 2: raw shards, compressed shards, and ``index.json``, which may differ only by the
   top-level key that climbstream adds.
4. ``megatron`` (megatron-core) reads the output of ``climb export --to megatron`` with Megatron's
   ``IndexedDataset``: its documents must have the hashes of step 1.

The format does not say at which document a shard ends. So step 3 ends its shards at the same
documents as the index that step 2 wrote.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = ("uint16", "uint32")
LENGTHS = (1, 2, 255, 256, 65_535, 65_536)  # the limits of each integer width of a length
SHARD_BYTES = 1 << 24


def ours(shards: Path, work: Path) -> list[str]:
    from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index  # noqa: PLC0415
    from climbstream.loader.formats.mixture import Mixture  # noqa: PLC0415
    from climbstream.loader.mosaic import stream_arguments  # noqa: PLC0415
    from climbstream.loader.reading.shard_cache import ShardCache  # noqa: PLC0415 - one environment has it

    manifest = Manifest.load(shards)
    # Mix the clusters with the longest and the shortest documents: if shares were wrongly counted
    # in documents, they would be far from equal in tokens.
    by_length = sorted(manifest.clusters, key=lambda cluster: cluster.tokens / cluster.documents)
    mixture = Mixture.of({by_length[0].name: 1, by_length[-1].name: 1})
    save(work / "streams.json", stream_arguments(shards.absolute(), mixture, work / "mixed"))
    cache = ShardCache(work / "cache")
    hashes: dict[str, list[str]] = {}
    for cluster in manifest.clusters:
        hashes[cluster.name] = []
        for entry in load_index(shards, manifest, cluster).shards:
            view = cache.view(cluster_folder(shards, cluster.name), entry, manifest.dtype)
            hashes[cluster.name] += [
                fingerprint(view.document(i, manifest.dtype)) for i in range(entry.samples)
            ]
    save(work / "ours.json", {"dtype": manifest.dtype, "hashes": hashes})
    for dtype in DTYPES:
        np.savez(work / f"{dtype}.npz", **dict(make_documents(dtype)))
    return []


def theirs(shards: Path, work: Path) -> list[str]:
    import streaming  # noqa: PLC0415 - the other environment has it
    import zstd  # noqa: PLC0415

    known = json.loads((work / "ours.json").read_text())
    faults = []
    documents = tokens = 0
    for number, (name, expected) in enumerate(known["hashes"].items()):
        source, local = shards / "clusters" / name, work / f"local-{number}"
        before = listing(source)
        dataset = streaming.StreamingDataset(
            remote=str(source),
            local=str(local),
            shuffle=False,
            batch_size=1,
            validate_hash="xxh3_128",
        )
        streamed = [check_type(sample["tokens"], known["dtype"]) for sample in dataset]
        # By now every shard is in ``local`` and decompressed, as LocalDataset requires.
        numbered = [
            check_type(sample["tokens"], known["dtype"])
            for sample in streaming.LocalDataset(str(local))
        ]
        for how, got in (("StreamingDataset", streamed), ("LocalDataset", numbered)):
            faults += differences(f"cluster {name}, {how}", expected, [*map(fingerprint, got)])
        if listing(source) != before:
            faults.append(f"cluster {name}: its folder was changed by reading it")
        documents += len(streamed)
        tokens += sum(map(len, streamed))
        for path in local.iterdir():
            path.unlink()
    good = not faults
    print(
        f"read:  mosaicml-streaming {streaming.__version__} reads "
        f"{documents:,} documents, {tokens:,} tokens of {len(known['hashes'])} clusters "
        f"{'as climbstream does' if good else 'OTHERWISE than climbstream'}"
    )
    faults += mixed(work, known["hashes"])
    for dtype in DTYPES:
        with (
            streaming.MDSWriter(
                out=str(work / f"theirs-{dtype}"),
                columns={"tokens": f"ndarray:{dtype}"},
                compression="zstd:3",
                hashes=["xxh3_128"],
                size_limit=SHARD_BYTES,
            ) as writer,
            np.load(work / f"{dtype}.npz") as made,
        ):
            for name in made.files:
                writer.write({"tokens": made[name]})
    save(work / "theirs.json", {"zstd": zstd.ZSTD_version()})
    return faults


def mixed(work: Path, hashes: dict[str, list[str]]) -> list[str]:
    import streaming  # noqa: PLC0415 - the other environment has it

    given = json.loads((work / "streams.json").read_text())
    names = [Path(arguments["remote"]).name for arguments in given]
    cluster_of = {digest: i for i, name in enumerate(names) for digest in hashes[name]}
    streams = [streaming.Stream(**arguments) for arguments in given]
    tokens = np.zeros(len(names), np.int64)
    # The epoch has many times as many documents as exist, so that chance matters little.
    dataset = streaming.StreamingDataset(
        streams=streams, epoch_size=100 * len(cluster_of), shuffle=True, batch_size=1
    )
    for sample in dataset:
        tokens[cluster_of[fingerprint(sample["tokens"])]] += len(sample["tokens"])
    shares = (tokens / tokens.sum()).round(3).tolist()
    print(f"mix:   clusters {' and '.join(names)}, of equal weight, have {shares} of the tokens")
    return [] if abs(shares[0] - 0.5) <= 0.02 else [f"equal weights became {shares}"]


def compare(work: Path) -> list[str]:
    import zstandard  # noqa: PLC0415 - one environment has it

    from climbstream.loader.formats.mds import compression, writer  # noqa: PLC0415
    from climbstream.loader.formats.mds import index as mds  # noqa: PLC0415

    zstd_here = ".".join(map(str, zstandard.ZSTD_VERSION))
    zstd_there = json.loads((work / "theirs.json").read_text())["zstd"]
    faults: list[str] = []
    for dtype in DTYPES:
        folder = work / f"theirs-{dtype}"
        written = (folder / "index.json").read_bytes()
        with np.load(work / f"{dtype}.npz") as made:
            documents = [made[name] for name in made.files]
        entries, packed_differ, done = [], 0, 0
        for number, shard in enumerate(json.loads(written)["shards"]):
            mine = documents[done : done + shard["samples"]]
            done += len(mine)
            raw = writer.encode_shard([writer.encode_document(d) for d in mine], dtype)
            packed = compression.compress(raw)
            entry = writer.describe_shard(f"shard.{number:05d}.mds", [*map(len, mine)], raw, packed)
            entries.append(entry)
            there = (folder / entry.zip_basename).read_bytes()
            if zstandard.ZstdDecompressor().decompress(there) != raw:
                faults.append(f"{dtype}: {entry.basename} has other bytes when raw")
            packed_differ += there != packed
        if done != len(documents):
            faults.append(f"{dtype}: {len(documents)} documents were given, {done} written")
        here = json.loads(mds.Index.of(dtype, entries).to_bytes())
        del here["climbstream"]
        index = json.loads(written)
        same_index = json.dumps(here, sort_keys=True).encode() == written
        if packed_differ:
            if zstd_here == zstd_there:
                faults.append(f"{dtype}: {packed_differ} shards have other bytes when compressed")
            # If compressed shards differ, so do their sizes and hashes in the index; compare the
            # rest of the index.
            for shard in (*here["shards"], *index["shards"]):
                shard["zip_data"] = shard["zip_data"]["basename"]
            same_index = here == index
        if not same_index:
            faults.append(f"{dtype}: index.json has another content")
        print(
            f"write: {dtype}: {len(documents)} documents, {sum(map(len, documents)):,} tokens, "
            f"{len(entries)} shards: "
            + (
                "DIFFERENT"
                if any(fault.startswith(dtype) for fault in faults)
                else "raw shards and index byte-identical; compressed shards "
                + ("different, compared raw" if packed_differ else "byte-identical")
            )
            + f" (zstd {zstd_here} here, {zstd_there} there)"
        )
    return faults


def megatron(work: Path) -> list[str]:
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")  # megatron-core warns of packages that only training needs
    from megatron.core import __version__  # noqa: PLC0415 - its environment has it
    from megatron.core.datasets.indexed_dataset import IndexedDataset  # noqa: PLC0415

    known = json.loads((work / "ours.json").read_text())
    faults = []
    documents = tokens = 0
    for name, expected in known["hashes"].items():
        dataset = IndexedDataset(str(work / "megatron" / name))
        got = [dataset[i].astype(known["dtype"]) for i in range(len(dataset))]
        faults += differences(f"cluster {name}, Megatron", expected, [*map(fingerprint, got)])
        if (bounds := len(dataset.document_indices)) != len(expected) + 1:
            faults.append(f"cluster {name}, Megatron: {bounds - 1} documents")
        documents += len(got)
        tokens += sum(map(len, got))
    print(
        f"read:  megatron-core {__version__} reads {documents:,} documents, {tokens:,} tokens of "
        f"{len(known['hashes'])} clusters "
        f"{'OTHERWISE than' if faults else 'as'} climbstream{'' if faults else ' does'}"
    )
    return faults


def make_documents(dtype: str) -> list[tuple[str, Any]]:
    """Return names and documents with lengths of every integer width, enough for two shards."""
    random = np.random.default_rng(17)
    enough = SHARD_BYTES // np.dtype(dtype).itemsize
    lengths = [*LENGTHS, *random.integers(1, 100_000, enough // 45_000).tolist()]
    top = np.iinfo(dtype).max
    documents = [random.integers(0, top, n, dtype, endpoint=True) >> (n % 7) for n in lengths]
    return [(f"{i:05d}", document) for i, document in enumerate(documents)]


def fingerprint(tokens: Any) -> str:
    return hashlib.sha256(tokens.tobytes()).hexdigest()


def check_type(tokens: Any, dtype: str) -> Any:
    if tokens.dtype != dtype or tokens.ndim != 1:
        sys.exit(f"a document came as {tokens.dtype} {tokens.shape}, not {dtype} [n]")
    return tokens


def differences(what: str, expected: list[str], got: list[str]) -> list[str]:
    if len(expected) != len(got):
        return [f"{what}: {len(expected)} documents expected, {len(got)} read"]
    wrong = [i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b]
    return [f"{what}: {len(wrong)} documents differ, the first is {wrong[0]}"] if wrong else []


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()}


def save(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def main() -> None:
    step, shards, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if step in ("compare", "megatron"):
        faults = {"compare": compare, "megatron": megatron}[step](work)
    else:
        faults = {"ours": ours, "theirs": theirs}[step](shards, work)
    # Faults of earlier steps are kept in a file, so that the later steps run nevertheless, and all
    # faults are counted in the end.
    path = work / "faults.json"
    if path.exists():
        faults = json.loads(path.read_text()) + faults
    save(path, faults)
    if step != "megatron":  # the last
        return
    for fault in faults:
        print(f"fault: {fault}")
    print(f"verdict: {len(faults)} faults" if faults else "verdict: no difference")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
