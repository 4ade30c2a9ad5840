"""Append: more documents into the clusters that are there.

Nothing is fitted again: the embedder, the centroids, the clusters and the tokenizer are those of
the first build, so an existing mixture stays valid. New shards come after those that are there,
which are not touched. What other files will hold lies aside until the manifest, which commits, has
been replaced; so the directory is whole at any moment, as it was before or as it is after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.fit import MODEL
from climbstream.builder.corpus.ingest import BAD_RECORDS, ReadReport, read_corpus
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.read_report import check_losses
from climbstream.builder.corpus.sources import survey
from climbstream.builder.features.encoder import check_shape
from climbstream.builder.report.describe import describe_clusters, label_agreement, name_licenses
from climbstream.builder.report.report import write_report
from climbstream.builder.selection.annotate import look_at, tell_languages
from climbstream.builder.selection.selection import identify, select_appended
from climbstream.builder.writers.catalogue import read_seen, write_catalogue, write_heldout
from climbstream.builder.writers.shards import write_clusters
from climbstream.builder.writers.tokenization import tokenize_all
from climbstream.loader.core.engines.engine import Engine, open_engine
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import (
    hash_json,
    lock,
    read_json,
    reading,
    write_bytes,
    write_json,
)
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import begin_or_resume
from climbstream.loader.formats.clusters import ClusterInfo, load_clusters, save_clusters
from climbstream.loader.formats.manifest import (
    HELDOUT,
    NEXT_FILES,
    ClusterEntry,
    Manifest,
    hash_files,
)
from climbstream.loader.formats.outputs import BASE, WORK

from .settings import BuildSettings, complete_settings
from .staging import finish_commit
from .workdir import is_vacant

logger = get_logger(__name__)


def append(
    sources: Sequence[str],
    out: Path,
    *,
    workers: int | None = None,
    engine: str = "local",
    strict: bool = False,
) -> Manifest:
    """Add documents to a shard directory that `build` made, and return its new manifest.

    Settings, clusters and tokenizer are those of the build. The directory is whole at any moment:
    as it was before, or with all new documents. The same call ends an append that was interrupted.

    Args:
        sources: Files, folders, globs or ``hub:NAME``.
        out: The shard directory.
        workers: Processes, by default one a core.
        engine: ``local``, processes of this machine, or ``ray``; the bytes are the same.
        strict: Whether a record, file or folder that cannot be used is an error.

    Example::

        append(["corpus/2026-11.jsonl.zst"], Path("shards"))

    Raises:
        UsageError: A source does not exist.
        InvalidDataError: ``strict``, and a record, file or folder cannot be used;
            or ``out`` is no directory that can be added to, or another append of it was
            begun and not ended.
        LockedError: Another process works on ``out``.
    """
    out = out.resolve()
    found, left_out = survey(sources)
    with lock(out):
        finish_commit(out)
        manifest = Manifest.load(out)
        _check(out, manifest)
        plan = {
            BASE: manifest.build,
            "sources": {source.place: source.fingerprint for source in found},
        }
        earlier = manifest.provenance.get("appended", [])
        if earlier and earlier[-1]["sources"] == plan["sources"]:
            logger.info(f"these sources have been appended to {out} already")
            return manifest
        work = out / WORK
        if begin_or_resume(
            out,
            f"{WORK}/plan.json",
            plan,
            leaves=() if is_vacant(work) else (WORK,),
            folders=(f"{WORK}/**", "clusters/*", "documents"),
        ):
            logger.info(f"going on with the append to {out}")
        if "languages" not in manifest.provenance["settings"]:
            logger.info(
                f"  {out} was built by an earlier version, which took text without spaces for one "
                "word; of such text, near copies of its documents are not found"
            )
        with open_engine(engine, workers, work / "plan.json") as opened:
            settings = BuildSettings.from_json(complete_settings(manifest.provenance["settings"]))
            report = read_corpus(
                opened, found, work / "units", settings, least=1, left_out=left_out
            )
            units = [Partition(work / "units" / name) for name in report.units]
            _Append(opened, out, manifest, settings, units).run(plan, report, strict=strict)
        finish_commit(out)
    return Manifest.load(out)


def _check(out: Path, manifest: Manifest) -> None:
    """Raise `InvalidDataError` unless ``out`` holds all that appending needs."""
    missing = [name for name in (MODEL, "centroids.npy") if not (out / name).exists()]
    if missing or manifest.parts is None or "settings" not in manifest.provenance:
        what = ", ".join(missing) or "the record of its build"
        raise InvalidDataError(
            f"{out} cannot be appended to: it lacks {what}. Only a directory that this version's "
            "`climb build` made can grow; build it again from all sources"
        )


class _Append:
    """One append on its way, once its documents have been read."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        manifest: Manifest,
        settings: BuildSettings,
        units: Sequence[Partition],
    ) -> None:
        self._engine, self._out, self._units = engine, out, units
        self._manifest, self._settings = manifest, settings
        self._aside = out / NEXT_FILES

    def run(self, plan: Mapping[str, Any], report: ReadReport, *, strict: bool) -> None:
        """Go through all stages; the manifest is written last."""
        out, units, manifest = self._out, self._units, self._manifest
        known = read_json(out / "clusters.json")
        with reading(out / "centroids.npy", "array of centroids"):
            centroids = np.load(out / "centroids.npy")
        check_shape(out / "centroids.npy", "centroids", centroids, None, None)
        clusters = ClusterMap.from_json(known["map"], centroids)
        kmeans = known.get("kmeans")
        parts = manifest.parts or 0
        near = None if self._settings.near_duplicates is None else out / WORK / "seen"
        seen = read_seen(self._engine, out, parts, near)
        tell_languages(self._engine, units)
        fates = identify(units, self._settings, seen)
        check_losses((report.stage(), *fates.stages), strict=strict)
        look_at(self._engine, units, out / MODEL, self._settings)
        fates = select_appended(fates, clusters, self._settings, seen)
        check_losses(fates.stages[1:], strict=False)
        tokenize_all(self._engine, fates, out / "tokenizer.json", manifest.eos_id)
        written = write_clusters(
            self._engine, units, out, manifest.names, manifest.dtype, before=manifest
        )
        keep = self._settings.keep
        write_catalogue(self._engine, out, fates, written, keep=keep, first=parts)
        fresh = [
            ClusterEntry(
                name=w.entry.name,
                tokens=w.entry.tokens - old.tokens,
                documents=w.entry.documents - old.documents,
                index_hash="",
            )
            for w, old in zip(written, manifest.clusters, strict=True)
        ]
        infos = [
            _joined(old, new)
            for old, new in zip(
                load_clusters(out), describe_clusters(units, clusters, fresh), strict=True
            )
        ]
        agreement = label_agreement([info.labels for info in infos])
        save_clusters(
            self._aside, infos, map=clusters.to_json(), agreement=agreement, kmeans=kmeans
        )
        write_heldout(self._aside, fates, clusters, manifest.names)
        self._join_heldout()
        if report.listed:
            before = read_json(out / BAD_RECORDS) if (out / BAD_RECORDS).exists() else []
            write_json(self._aside / BAD_RECORDS, before + report.listed)
        stages = (report.stage(), *fates.stages)
        provenance = {
            **manifest.provenance,
            "appended": [
                *manifest.provenance.get("appended", []),
                {
                    "sources": plan["sources"],
                    "before": manifest.fingerprint,
                    "documents": sum(entry.documents for entry in fresh),
                    "tokens": sum(entry.tokens for entry in fresh),
                },
            ],
        }
        grown = replace(
            manifest,
            clusters=tuple(w.entry for w in written),
            build=hash_json(provenance),
            license=_joined_licenses(manifest.license, name_licenses(units)),
            provenance=provenance,
            conservation=tuple(
                _sum(old, new) for old, new in zip(manifest.conservation, stages, strict=True)
            ),
            parts=parts + len(units),
        )
        write_report(self._aside, grown, infos, agreement, clusters.centroids, kmeans)
        fresh_parts = range(parts, grown.parts or 0)
        files = manifest.files or hash_files(out, range(parts))
        files = files | hash_files(out, fresh_parts) | hash_files(self._aside)
        replace(grown, files=files).save(out)

    def _join_heldout(self) -> None:
        """Put the documents held out before in front of those held out now."""
        before, now = self._out / HELDOUT, self._aside / HELDOUT
        if before.exists() and now.exists():
            write_bytes(now, before.read_bytes() + now.read_bytes())


def _joined(old: ClusterInfo, new: ClusterInfo) -> ClusterInfo:
    """Describe a cluster by what is known of its old and its new documents."""
    documents = old.documents + new.documents
    labels = {n: old.labels.get(n, 0) + new.labels.get(n, 0) for n in {**old.labels, **new.labels}}
    return replace(
        old,
        documents=documents,
        tokens=old.tokens + new.tokens,
        bytes=old.bytes + new.bytes,
        quality={
            name: round(
                (value * old.documents + new.quality[name] * new.documents) / max(documents, 1), 3
            )
            for name, value in old.quality.items()
        },
        labels=dict(sorted(labels.items(), key=lambda item: -item[1])),
        micro_documents=_added(old.micro_documents, new.micro_documents),
        spread={name: _added(n, new.spread[name]) for name, n in old.spread.items()},
        copies=old.copies + new.copies,
        effective_tokens=old.effective_tokens + new.effective_tokens,
    )


def _added(old: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(old, new, strict=True))


def _joined_licenses(old: str, new: str) -> str:
    names = dict.fromkeys([*old.split(", "), *new.split(", ")])
    return ", ".join(name for name in names if name != "unknown") or "unknown"


def _sum(old: Any, new: Any) -> Any:
    """Add up what two builds say of a stage."""
    if isinstance(old, Mapping):
        both = {name: _sum(old[name], new[name]) for name in old if name in new}
        return {**old, **new, **both}
    return old if isinstance(old, str) else old + new
