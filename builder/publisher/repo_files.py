"""Publication: the files that make a shard directory a data set of the Hugging Face Hub.

``shards`` are the directory as it is, for our loader and for mosaicml-streaming; ``parquet`` are
the same documents as tables, one configuration a cluster and a shuffled one, for `datasets` and the
viewer; ``drawn`` is the shuffled one alone, with so many tokens by a mixture.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.builder.cluster_names import cluster_labels, table_folder
from climbstream.builder.dataset_card import CARD, license_metadata, our_metadata, write_card
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.exporter.shards import export_shards
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import check_regular, hash_file
from climbstream.loader.formats.manifest import (
    BESIDE,
    DOCUMENTS,
    HELDOUT,
    INDEX,
    KEPT_BACK,
    MANIFEST,
    Manifest,
    cluster_folder,
    load_index,
    part_name,
)
from climbstream.loader.formats.mixture import MIXTURE, Mixture

WHAT = {
    "shards": ("clusters", DOCUMENTS),
    "parquet": ("parquet", "shuffled"),
    "drawn": ("shuffled",),
    "mixture": (),
    "all": ("clusters", DOCUMENTS, "parquet", "shuffled"),
}
"""What may be published, and the folders that it fills."""

_OF_SEARCH = ("trials.jsonl", "answer.json", "report.html")
_SIZES = ((10**6, "1M<n<10M"), (10**5, "100K<n<1M"), (10**4, "10K<n<100K"), (10**3, "1K<n<10K"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be published."""

    files: Mapping[str, Path | bytes]
    """Content by path in the repository; the card and the manifest among them."""
    folders: tuple[str, ...]
    """Folders that hold nothing else: what an earlier publication left there goes."""
    others: tuple[str, ...]
    """Folders of other publications of ours, which the card would say nothing of."""
    license: str

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(size_of(content) for content in self.files.values())


def size_of(content: Path | bytes) -> int:
    """Bytes of the content of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def collect(
    directory: Path,
    repo: str,
    work: Path,
    *,
    what: str = "shards",
    mixture: Path | None = None,
    tokens: int | None = None,
    text: bool = False,
    heldout: bool = False,
    license_: str | None = None,
) -> Publication:
    """List what of ``directory`` is to be published as the data set ``repo``.

    Args:
        directory: Shards; a catalogue, report and so on go with them.
        repo: For the card, which says how to load it.
        work: Folder for tables, where there are to be some. Those that are there are not made anew.
        what: A key of `WHAT`.
        mixture: File of a mixture for these clusters, or the folder of a search.
        tokens: How many are drawn by the mixture for the shuffled tables; by default these hold
            every document once.
        text: Whether tables hold text, not tokens.
        heldout: Whether the held-out text goes with it: text to be scored on had better not be
            found by those who gather text to train on.
        license_: Where the shards state none. What they state is inherited, and never changed.

    Raises:
        UsageError: A licence is stated already, or none is; or there is no mixture to publish.
        InvalidDataError: The mixture is for other clusters, ``work`` holds something else, or a
            file is a link or no regular file.
        IntegrityError: A file is not the one that the manifest names.
    """
    manifest = Manifest.load(directory)
    folders = WHAT[what]
    stated = _license(manifest, license_)
    files: dict[str, Path | bytes] = {}
    weights = None
    if mixture is not None:
        weights, found = _mixture(mixture, manifest)
        files |= found
    elif what == "mixture":
        raise UsageError("to publish a mixture alone, say which: --mixture FILE, or a search")
    if "clusters" in folders:
        files |= _shards(directory, manifest, heldout=heldout)
    configs: dict[str, str] = {}
    drawn = None
    if "shuffled" in folders:
        by = weights if tokens is not None or what == "drawn" else None
        out = work / "shuffled"
        drawn = export_mixture(str(directory), out, "parquet", by, tokens, text=text)
        files |= {f"shuffled/{p.name}": p for p in sorted(out.glob("*.parquet"))}
        configs["default"] = "shuffled"
    if "parquet" in folders:
        out = work / "parquet"
        export_shards(str(directory), out, "parquet", text=text)
        tables = sorted(out.glob("*/*.parquet"))
        files |= {f"parquet/{p.relative_to(out).as_posix()}": p for p in tables}
        labels = cluster_labels(manifest.names)
        for name, label in zip(manifest.names, labels, strict=True):
            configs[name] = f"parquet/{table_folder(label)}"
    files[CARD] = _card(
        manifest,
        repo,
        stated,
        configs,
        weights,
        drawn if tokens is not None or what == "drawn" else None,
        shards="clusters" in folders,
    )
    known = {folder for some in WHAT.values() for folder in some}
    return Publication(
        files=files,
        folders=(*folders, "search") if mixture is not None else folders,
        others=tuple(sorted(known - set(folders))),
        license=stated,
    )


def _mixture(place: Path, manifest: Manifest) -> tuple[Mixture, dict[str, Path | bytes]]:
    """Read a mixture, and list what is to be published of it; ``place`` may be a search."""
    folder = place if place.is_dir() else None
    file = folder / MIXTURE if folder else place
    mixture = Mixture.load(file)
    mixture.array(manifest.names)
    if said := manifest.misfit(mixture):
        raise InvalidDataError(f"{file}: {said}; publish it with those, or search again")
    files: dict[str, Path | bytes] = {MIXTURE: file}
    if folder:
        check_regular(file, folder)
        of_search = _regular(folder, _OF_SEARCH)
        files |= {f"search/{name}": path for name, path in of_search.items()}
    return mixture, files


def _license(manifest: Manifest, given: str | None) -> str:
    """Return the licence of the shards, or the one that is given where they state none."""
    known = manifest.license not in ("", "unknown")
    if known and given not in (None, manifest.license):
        raise UsageError(
            f"the shards are under {manifest.license}, as their sources state; that is inherited, "
            f"and cannot become {given}"
        )
    if not known and given is None:
        raise UsageError("the sources of these shards state no licence; state it with --license")
    return manifest.license if known else str(given)


def _shards(directory: Path, manifest: Manifest, *, heldout: bool) -> dict[str, Path]:
    names = [name for name in BESIDE if name not in KEPT_BACK or (heldout and name == HELDOUT)]
    names += map(part_name, range(_parts(directory, manifest)))
    files = _regular(directory, names)
    for name, path in files.items():
        _check_hash(path, manifest.hash_of(name))
    for cluster in manifest.clusters:
        folder = cluster_folder(directory, cluster.name)
        shards = load_index(directory, manifest, cluster).shards
        for name in (INDEX, *(shard.zip_basename for shard in shards)):
            check_regular(folder / name, directory)
            files[f"clusters/{cluster.name}/{name}"] = folder / name
        _check_hash(folder / INDEX, cluster.index_hash)
    return files | _regular(directory, [MANIFEST])


def _check_hash(path: Path, expected: str | None) -> None:
    """Raise unless ``path`` is the file that the manifest names; None: it names no hash.

    Between the commit of an append and its end, other files lie in these places.
    """
    if expected is not None and (got := hash_file(path)) != expected:
        raise IntegrityError(
            f"{path}: expected hash {expected}, got {got}; if an append was interrupted, run the "
            "same command again and publish then"
        )


def _parts(directory: Path, manifest: Manifest) -> int:
    """Parts of the catalogue."""
    if manifest.parts is not None:
        return manifest.parts
    return len([*(directory / DOCUMENTS).glob("part-*.parquet")])


def _regular(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """List those of the files ``names`` that lie in ``folder``.

    Raises:
        InvalidDataError: One is a link or no regular file.
    """
    files = {name: folder / name for name in names if os.path.lexists(folder / name)}
    for path in files.values():
        check_regular(path, folder)
    return files


def _card(
    manifest: Manifest,
    repo: str,
    license_: str,
    configs: Mapping[str, str],
    mixture: Mixture | None,
    drawn: Mapping[str, int] | None,
    *,
    shards: bool,
) -> bytes:
    """Write the card: licence, how to load, what is in it, how it came about."""
    documents = sum(cluster.documents for cluster in manifest.clusters)
    size = next((name for least, name in _SIZES if documents >= least), "n<1K")
    metadata: dict[str, Any] = {
        **license_metadata(license_),
        "tags": ["climbstream", "pretraining", "data-mixture"],
        "size_categories": [size],
    }
    metadata["climbstream"] = our_metadata(manifest, license_)
    if configs:
        metadata["configs"] = [
            {"config_name": name, "data_files": f"{folder}/*.parquet"}
            | ({"default": True} if name == "default" else {})
            for name, folder in configs.items()
        ]
    load = []
    if shards:
        given = f", Mixture.from_hub({repo!r})" if mixture else ""
        load += [
            "```python",
            f"from climbstream.loader import {'Mixture, ' if mixture else ''}MixtureLoader",
            "",
            f'loader = MixtureLoader("hf://{repo}"{given}, seq_len=2048, batch_rows=512)',
            "```",
            f"`climb pull {repo} DIR` fetches it; mosaicml-streaming reads each folder below "
            "`clusters/` as a stream (MDS v2, zstd, column `tokens`).",
            "",
        ]
    if configs:
        named = [name for name in configs if name != "default"][:1]
        load += [
            "```python",
            "from datasets import load_dataset",
            "",
            f'load_dataset("{repo}", split="train", streaming=True)  # shuffled',
            *(f'load_dataset("{repo}", "{n}", split="train", streaming=True)' for n in named),
            "```",
            "",
        ]
    columns: dict[str, Mapping[str, Any]] = {
        "documents": {c.name: f"{c.documents:,}" for c in manifest.clusters},
        "tokens": {c.name: f"{c.tokens:,}" for c in manifest.clusters},
        "share of tokens": {c.name: f"{c.tokens / manifest.tokens:.6f}" for c in manifest.clusters},
    }
    if mixture:
        weights = mixture.array(manifest.names).tolist()
        columns["weight"] = {
            name: f"{weight:.6f}" for name, weight in zip(manifest.names, weights, strict=True)
        }
    if drawn:
        columns["tokens drawn"] = {name: f"{count:,}" for name, count in drawn.items()}
    heads = ("cluster", *columns)
    rows = [(name, *(column[name] for column in columns.values())) for name in manifest.names]
    table = [heads, ["---"] * len(heads), *rows]
    stated = "the sources state it" if manifest.license == license_ else "the publisher states it"
    body = [
        f"{manifest.tokens:,} tokens of {documents:,} documents in {len(manifest.clusters)} "
        f"clusters. Licence: {license_}, as {stated}.",
        "",
        *load,
        *(f"| {' | '.join(row)} |" for row in table),
        "",
        f"Shards `{manifest.fingerprint}`, built as `{manifest.build}` by climbstream; the "
        "settings are in `manifest.json`.",
    ]
    if mixture and (reason := mixture.about.get("reason")):
        body += ["", f"How the mixture was found: {reason}"]
    return write_card(repo.partition("/")[2], metadata, "\n".join(body))
