"""The pipeline: stages in order, each skipped where it has been done, and the manifest last.

Work in progress lies in ``OUT/.build``: units of the corpus with the arrays that stages add. What
is there whole is done, so a killed build goes on where it was and ends with the same bytes.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from climbstream.loader.clusters import save_clusters
from climbstream.loader.errors import InvalidDataError
from climbstream.loader.manifest import MANIFEST, Manifest, cluster_folder
from climbstream.loader.order import shuffled
from climbstream.loader.plan import begin_or_continue, check_same
from climbstream.loader.pool import Pool
from climbstream.loader.progress import Progress, say
from climbstream.loader.storage import (
    atomic_path,
    hash_file,
    hash_json,
    lock,
    remove_temporaries,
    write_bytes,
    write_json,
)

from .catalogue import write_catalogue, write_heldout
from .clustermap import ClusterMap
from .corpus import ReadReport, Source, find_sources, read_source
from .describe import describe_clusters, label_agreement
from .embed import Embedder
from .fates import Fates, decide, split
from .kmeans import automatic_count, fit_centroids
from .report import write_report
from .settings import BuildSettings
from .shards import ClusterTask, WrittenCluster, write_cluster
from .stages import LookTask, TokenTask, look, tokenize_unit
from .tokens import eos_id, load_tokenizer, token_dtype, train_tokenizer
from .unit import Unit

WORK = ".build"
_TRAIN_CHARS = 20_000
"""Of each document of the sample, what the tokenizer is trained on."""

T = TypeVar("T")
R = TypeVar("R")


def build(
    sources: Sequence[str],
    out: Path,
    settings: BuildSettings | None = None,
    *,
    workers: int | None = None,
) -> Manifest:
    """Turn ``sources`` into a shard directory ``out``; go on with it if it was begun.

    Raises:
        UsageError: A source does not exist.
        InvalidDataError: ``out`` holds a build of other sources or settings, named in the message;
            or the corpus has too little to cluster.
        LockedError: Another process works on ``out``.
    """
    settings = settings or BuildSettings()
    found = find_sources(sources)
    plan = {
        "builder": 1,
        "settings": settings.to_json(),
        "sources": {s.place: s.fingerprint for s in found},
    }
    with lock(out):
        work = out / WORK
        if (out / MANIFEST).exists():
            manifest = Manifest.load(out)
            check_same(manifest.provenance, plan, out)
            shutil.rmtree(work, ignore_errors=True)
            say(f"{out} is built already, from these sources with these settings")
            return manifest
        if not (work / "plan.json").exists() and (foreign := _foreign(out)):
            raise InvalidDataError(
                f"{out} is not empty: it holds {', '.join(foreign[:5])}; name a new folder"
            )
        remove_temporaries(out)
        if begin_or_continue(out, f"{WORK}/plan.json", plan):
            say(f"going on with the build in {out}")
        with Pool(workers) as pool:
            manifest = _Build(out, settings, found, pool).run(plan)
        shutil.rmtree(work)
    return manifest


def _foreign(out: Path) -> list[str]:
    """Name what lies in ``out`` and is not of a build that was killed before it had a plan."""
    found = [*out.iterdir(), *out.glob(f"{WORK}/*")]
    ours = [out / WORK, *out.glob(f"{WORK}/.tmp-*")]
    return sorted(str(path.relative_to(out)) for path in found if path not in ours)


class _Build:
    """One build on its way."""

    def __init__(
        self, out: Path, settings: BuildSettings, sources: list[Source], pool: Pool
    ) -> None:
        self._out, self._work = out, out / WORK
        self._settings, self._sources, self._pool = settings, sources, pool
        self._units: list[Unit] = []

    def run(self, plan: dict[str, Any]) -> Manifest:
        """Go through all stages."""
        report = self._read()
        model = self._fit()
        looks = [LookTask(unit, model) for unit in self._units]
        self._map("embed, score and assign", "documents", look, looks)
        with np.load(model, allow_pickle=False) as arrays:
            clusters, fates = decide(self._units, arrays["centroids"], self._settings)
        stays = np.where(fates.stays, fates.cluster, -1).astype(np.int32)
        for unit, part in zip(self._units, split(stays, self._units), strict=True):
            unit.write("clusters", part)
        tokenizer = self._tokenizer()
        cuts = [TokenTask(unit, self._out / "tokenizer.json") for unit in self._units]
        self._map("tokenise", "tokens", tokenize_unit, cuts)
        written = self._write_shards(int(stays.max()) + 1, tokenizer)
        tokens = write_catalogue(self._out, self._units, fates, written)
        fates.stages.append(
            {
                "stage": "shard",
                "in": fates.stages[-1]["out"],
                "out": {**fates.stages[-1]["out"], "tokens": int(tokens.sum())},
                "dropped": {},
            }
        )
        return self._finish(plan, report, clusters, fates, written, tokenizer)

    def _map(self, what: str, unit: str, function: Callable[[T], int], tasks: Sequence[T]) -> None:
        """Run a stage; ``function`` returns how many units of work a task was."""
        with Progress(what, None, unit) as progress:
            for _, done in self._pool.run(function, tasks):
                progress.add(done)

    def _read(self) -> ReadReport:
        """Lay the corpus down in units; return the reports of all sources in one."""
        whole = ReadReport()
        tasks = list(enumerate(self._sources))
        read = partial(_read_source, directory=self._work / "units", settings=self._settings)
        reports: dict[int, ReadReport] = {}
        with Progress("read", None, "documents") as progress:
            for (number, _), report in self._pool.run(read, tasks):
                reports[number] = report
                progress.add(report.documents)
        for _, report in sorted(reports.items()):
            whole.add(report)
        self._units = [Unit(self._work / "units" / name) for name in whole.units]
        say(f"  took {whole.taken()}")
        for reason, count in whole.bad.most_common():
            say(f"  left out {count:,} records: {reason}")
        if whole.documents < 2:
            raise InvalidDataError(
                f"the sources hold {whole.documents} usable documents; at least 2 are needed"
            )
        return whole

    def _sample(self) -> list[str]:
        """Draw the texts that the embedder, the centroids and the tokenizer are fitted on."""
        total = sum(len(unit) for unit in self._units)
        chosen = np.zeros(total, np.bool_)
        chosen[shuffled(total, self._settings.seed, "sample")[: self._settings.sample]] = True
        texts: list[str] = []
        for unit, mask in zip(self._units, split(chosen, self._units), strict=True):
            texts += unit.columns("text")["text"].filter(mask).to_pylist()
        return texts

    def _fit(self) -> Path:
        """Fit the embedder and the centroids; return the file that holds them."""
        path = self._work / "model.npz"
        if not path.exists():
            texts = self._sample()
            say(f"fit the embedding and the centroids on {len(texts):,} documents")
            embedder = Embedder.fit(texts, self._settings.dims, self._settings.seed)
            total = sum(len(unit) for unit in self._units)
            count = self._settings.micro_clusters or automatic_count(total, self._settings.clusters)
            vectors = embedder.embed(texts)
            centroids = fit_centroids(vectors, count, self._settings.seed)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    idf=embedder.idf,
                    components=embedder.components,
                    centroids=centroids,
                )
        return path

    def _tokenizer(self) -> Tokenizer:
        """Load or train the tokenizer, and put it into the shard directory."""
        path = self._out / "tokenizer.json"
        if not path.exists():
            if self._settings.tokenizer:
                tokenizer = load_tokenizer(self._settings.tokenizer)
            else:
                say(f"train a tokenizer of {self._settings.vocab_size:,} tokens")
                texts = (text[:_TRAIN_CHARS] for text in self._sample())
                tokenizer = train_tokenizer(texts, self._settings.vocab_size)
            write_bytes(path, tokenizer.to_str(pretty=True).encode())
        return Tokenizer.from_file(str(path))

    def _write_shards(self, count: int, tokenizer: Tokenizer) -> list[WrittenCluster]:
        width = max(2, len(str(count - 1)))
        names = [f"c{k:0{width}d}" for k in range(count)]
        tasks = [
            ClusterTask(
                cluster=k,
                name=name,
                folder=cluster_folder(self._out, name),
                dtype=token_dtype(tokenizer.get_vocab_size()),
                units=tuple(unit.folder for unit in self._units),
                done=self._work / "shards" / f"{name}.json",
            )
            for k, name in enumerate(names)
        ]
        written: dict[str, WrittenCluster] = {}
        with Progress("write shards", None, "tokens") as progress:
            for task, cluster in self._pool.run(write_cluster, tasks):
                written[task.name] = cluster
                progress.add(cluster.entry.tokens)
        return [written[name] for name in names]

    def _finish(
        self,
        plan: dict[str, Any],
        report: ReadReport,
        clusters: ClusterMap,
        fates: Fates,
        written: list[WrittenCluster],
        tokenizer: Tokenizer,
    ) -> Manifest:
        """Write what describes the shards, and the manifest last."""
        entries = [w.entry for w in written]
        infos = describe_clusters(self._units, fates, clusters, entries)
        agreement = label_agreement(
            _labels(self._units, fates), fates.cluster[fates.stays].tolist()
        )
        save_clusters(self._out, infos, map=clusters.to_json(), agreement=agreement)
        with atomic_path(self._out / "centroids.npy") as path, path.open("wb") as file:
            np.save(file, clusters.centroids, allow_pickle=False)
        if self._settings.holdout:
            write_heldout(self._out, self._units, fates, [entry.name for entry in entries])
        if report.listed:
            write_json(self._out / "bad_records.json", report.listed)
        manifest = Manifest(
            clusters=tuple(entries),
            dtype=token_dtype(tokenizer.get_vocab_size()),
            vocab_size=tokenizer.get_vocab_size(),
            eos_id=eos_id(tokenizer),
            tokenizer_hash=hash_file(self._out / "tokenizer.json"),
            build=hash_json(plan),
            license=_license(self._units, fates),
            provenance=plan,
            conservation=(report.stage(), *fates.stages),
        )
        write_report(self._out, manifest, infos, agreement)
        manifest.save(self._out)
        return manifest


def _read_source(task: tuple[int, Source], directory: Path, settings: BuildSettings) -> ReadReport:
    number, source = task
    return read_source(source, number, directory, settings)


def _labels(units: Sequence[Unit], fates: Fates) -> list[str]:
    """Known domains of the documents that stay."""
    labels: list[str] = []
    for unit, stays in zip(units, split(fates.stays, units), strict=True):
        labels += unit.columns("label")["label"].filter(stays).to_pylist()
    return labels


def _license(units: Sequence[Unit], fates: Fates) -> str:
    """Name the licences of the documents that stay, the most frequent first."""
    found: Counter[str] = Counter()
    for unit, stays in zip(units, split(fates.stays, units), strict=True):
        found.update(unit.columns("license")["license"].filter(stays).to_pylist())
    names = [name for name, _ in found.most_common() if name]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more or "unknown"
