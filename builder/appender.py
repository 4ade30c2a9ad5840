"""Append: add documents to the clusters of a shard directory.

Nothing is fitted again: the encoder, the centroids, the clusters and the tokenizer are those of the
build. So each cluster keeps its meaning, and an existing mixture stays valid.

The old shards do not change; new shards are added after them. New versions of other files are kept
in the working folder until the new manifest is written. Until then, a reader sees none of the new
documents; after that, all of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.clustering.cells import Cells, place_in_cells
from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.fit import MODEL
from climbstream.builder.contamination.stage import find_contaminated
from climbstream.builder.corpus.ingest import BAD_RECORDS, ReadReport, read_corpus, usual_groups
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import remove_all
from climbstream.builder.corpus.read_report import check_losses
from climbstream.builder.corpus.sources import Places, Source, as_places, hash_sources, survey
from climbstream.builder.features.encoder import check_shape
from climbstream.builder.report.cells import by_topic, join_described, small_cells
from climbstream.builder.report.describe import describe_clusters, label_agreement, name_licenses
from climbstream.builder.report.losses import counts_of, loss_sections
from climbstream.builder.report.near_copies import NearCopies, find_copies
from climbstream.builder.report.report import report_page, write_report
from climbstream.builder.selection.annotate import count_devices, look_at, tell_languages
from climbstream.builder.selection.dedup import Seen
from climbstream.builder.selection.dropped import tell_kept
from climbstream.builder.selection.named import tell_named
from climbstream.builder.selection.selection import Selection
from climbstream.builder.selection.stages import identify, select_appended
from climbstream.builder.writers.catalogue import (
    read_seen,
    tell_heldout,
    write_catalogue,
    write_heldout,
)
from climbstream.builder.writers.license_counts import (
    tell_unlicensed,
    union_of_licenses,
    with_licenses,
)
from climbstream.builder.writers.shards import WrittenCluster, write_clusters
from climbstream.builder.writers.tokenization import tokenize_all
from climbstream.loader.core.console import counted
from climbstream.loader.core.engines.engine import Engine, open_engine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import (
    hash_json,
    is_url,
    lock,
    read_json,
    reading,
    write_bytes,
    write_json,
)
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import begin_or_resume
from climbstream.loader.formats.clusters import load_clusters, save_clusters
from climbstream.loader.formats.heldout import read_heldout
from climbstream.loader.formats.manifest import (
    CONTAMINATION,
    HELDOUT,
    NEXT_FILES,
    ClusterEntry,
    Manifest,
    hash_files,
    part_name,
    read_file,
    refuse_divided,
    refuse_grouping,
)
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import BASE, WORK

from .language_codes import UNDETERMINED
from .settings import BuildSettings, complete_settings
from .staging import finish_commit
from .unbound import EXCHANGE
from .workdir import PRELOAD, bind, engine_in, give_way, is_vacant, unbound_by_error

logger = get_logger(__name__)


def append(
    sources: Places,
    out: str | Path,
    *,
    workers: int | None = None,
    engine: str = "local",
    strict: bool = False,
    partition_mib: int | None = None,
    trust_remote_code: bool = False,
) -> Manifest:
    """Add documents to a shard directory that `build` made, and return its new manifest.

    Settings, clusters and tokenizer are those of the build. At any moment, the directory has all
    new documents or none of them. An append that was interrupted continues when the same call is
    made again. If the last append added the same sources, nothing is added.

    Args:
        sources: Files, folders, globs, URLs, ``hub:NAME`` or ``python:``.
        out: The shard directory.
        workers: Maximum number of tasks at a time; default: one per core. With ``slurm``, there is
            no default: the number must be given.
        engine: Where tasks run: ``local`` (processes of this machine), ``ray`` or ``slurm``. The
            files have the same bytes with each engine.
        strict: Raise an error if a record, file or folder cannot be used; default: leave it out.
        partition_mib: MiB of text per task, as in `build`.
        trust_remote_code: Whether code that comes with the model of the embedding is run. The
            setting in the directory is ignored, because others may have made the directory.

    Example::

        append(["corpus/2026-11.jsonl.zst"], Path("shards"))

    Raises:
        UsageError: A source does not exist, or ``out`` is a URL.
        InvalidDataError: ``out`` lacks files that an append needs. Or an append of other sources
            was begun in ``out`` and is not finished. Or, with ``strict``, a record, file or folder
            cannot be used.
        LockedError: Another process works in ``out``.
    """
    if is_url(out):
        raise UsageError(
            f"--append needs a folder, and {out} is a URL, where files cannot be replaced all at "
            f"once: fetch it (climb pull {out} DIR), append to DIR, and copy DIR to a new URL"
        )
    sources, out = as_places(sources), Path(out).resolve()
    refuse_grouping(Manifest.load(out), out, "append to")
    files, left_out = survey(sources)
    with lock(out):
        finish_commit(out)
        manifest = Manifest.load(out)
        refuse_divided(manifest, out, "append to")
        _check(out, manifest)
        opener = partial(open_engine, engine, workers, preload=PRELOAD)
        with engine_in(out / WORK, opener) as opened:
            files = hash_sources(files, opened)
            if (plan := _begin(files, out, manifest)) is None:
                logger.info(f"these sources have been appended to {out} already")
                return manifest
            settings = BuildSettings.from_json(
                complete_settings(manifest.provenance["settings"])
                | {"trust_remote_code": trust_remote_code}
            )
            with unbound_by_error(out / WORK):
                report = read_corpus(
                    opened,
                    files,
                    out / WORK / "units",
                    settings,
                    least=1,
                    left_out=left_out,
                    partition_mib=partition_mib,
                )
            run = _Append(opened, out, manifest, settings, report, usual_groups(files))
            run.run(plan, strict=strict)
            remove_all(opened, run.partitions)
        finish_commit(out)
    return Manifest.load(out)


def _begin(sources: Sequence[Source], out: Path, manifest: Manifest) -> dict[str, Any] | None:
    """Write and return the plan of an append; None if the last append had the same sources.

    The plan is the fingerprint of the build and the fingerprints of the new sources.

    If an earlier append to ``out`` is not finished, its plan must be equal to the new plan.
    """
    plan = {
        BASE: manifest.build,
        "sources": {source.place: source.fingerprint for source in sources},
    }
    earlier = manifest.provenance.get("appended", [])
    if earlier and earlier[-1]["sources"] == plan["sources"]:
        return None
    give_way(out / WORK, plan)
    if begin_or_resume(
        out,
        f"{WORK}/plan.json",
        plan,
        leaves=() if is_vacant(out / WORK) else (WORK,),
        folders=(f"{WORK}/**", "clusters/*", "documents"),
        remedy=f"finish that append first; to discard it, remove {out / WORK}",
    ):
        logger.info(f"continuing the append to {out}")
    if "languages" not in manifest.provenance["settings"]:
        logger.warning(
            f"  an earlier version built {out}, and counted text without spaces (as in Chinese) as "
            "one word; near copies of such documents in this directory are not found"
        )
    return plan


def _check(out: Path, manifest: Manifest) -> None:
    """Raise `InvalidDataError` unless ``out`` has all files and records that an append needs.

    Raises:
        IntegrityError: The file with the hashes of test questions has changed since the build.
    """
    needed = [MODEL, "centroids.npy"]
    if manifest.provenance.get("settings", {}).get("decontaminate"):
        needed.append(CONTAMINATION)
    missing = [name for name in needed if not (out / name).exists()]
    if missing or manifest.parts is None or "settings" not in manifest.provenance:
        what = ", ".join(missing) or "the record of its build"
        raise InvalidDataError(
            f"nothing can be appended to {out}: it lacks {what}. --append needs a directory that "
            "`climb build` of this version made; build the directory again from all sources"
        )
    if CONTAMINATION in needed:
        read_file(out, manifest, CONTAMINATION)  # compiled code would not notice damage


class _Append:
    """An append whose documents have been read."""

    def __init__(
        self,
        engine: Engine,
        out: Path,
        manifest: Manifest,
        settings: BuildSettings,
        report: ReadReport,
        groups: int,
    ) -> None:
        self._engine, self._out, self._report = engine, out, report
        self._manifest, self._settings = manifest, settings
        self._groups = groups
        """Number of row groups per part of the catalogue."""
        self._parts: dict[str, str] = {}
        """Hash of each new part of the catalogue, by path."""
        self.partitions = [Partition(out / WORK / "units" / name) for name in report.units]
        self._first = manifest.parts or 0
        """Number of the first new part of the catalogue."""
        self._seen = Seen()
        """The documents that the directory had before the append."""
        self._next = out / NEXT_FILES
        """Folder for new versions of files; after the commit, they replace the old versions."""

    def run(self, plan: Mapping[str, Any], *, strict: bool) -> None:
        """Run all stages, and write the manifest last."""
        out, manifest = self._out, self._manifest
        description = read_json(out / "clusters.json")
        with reading(out / "centroids.npy", "array of centroids"):
            centroids = np.load(out / "centroids.npy")
        check_shape(out / "centroids.npy", "centroids", centroids, None, None)
        clusters = ClusterMap.from_json(description["map"], centroids)
        value = description.get("cells")
        cells = None if value is None else Cells.from_json(value)
        with unbound_by_error(out / WORK):
            selection = self._select(clusters, strict=strict)
        bind(out / WORK)
        if cells:
            place_in_cells(self._engine, self.partitions, clusters, cells)
        written = self._write(selection, clusters)
        added = [
            ClusterEntry(
                name=w.entry.name,
                tokens=w.entry.tokens - old.tokens,
                documents=w.entry.documents - old.documents,
                index_hash="",
            )
            for w, old in zip(written, manifest.clusters, strict=True)
        ]
        grown = self._grow(plan, selection, written, added)
        copies = self._find_copies(selection, description)
        self._describe(grown, clusters, cells, added, description, copies)
        tell_unlicensed(grown, self._report.unlicensed, self._settings.license)
        tell_new_languages(kept_in(manifest)["language"], kept_in(grown)["language"])
        files = manifest.files or hash_files(out, range(self._first))
        replace(grown, files=files | self._parts | hash_files(self._next)).save(out)

    def _select(self, clusters: ClusterMap, *, strict: bool) -> Selection:
        """Return which new documents stay, and their clusters; write both to the partitions."""
        out, settings, partitions = self._out, self._settings, self.partitions
        signatures = None if settings.near_duplicates is None else out / WORK / "seen"
        seen = read_seen(self._engine, out, self._first, signatures)
        self._seen = seen
        tell_languages(self._engine, partitions)
        selection = identify(self._engine, partitions, out / WORK / EXCHANGE, settings, seen)
        check_losses((self._report.stage(), *selection.stages), strict=strict)
        if settings.decontaminate:
            find_contaminated(self._engine, partitions, out / CONTAMINATION)
        look_at(self._engine, partitions, out / MODEL, settings)
        before = kept_in(self._manifest)
        selection = select_appended(selection, clusters, settings, seen, before)
        check_losses(selection.stages[1:], strict=False)
        # If an earlier version wrote the directory, the manifest has no counts of languages. None
        # are added, because counts of the new documents alone would look like counts of all
        # documents.
        counts = tell_kept(self._report, selection)
        if counts_of(self._manifest):
            selection.stages[0]["kept"] = counts
        tell_named(selection, new=False)
        return selection

    def _write(self, selection: Selection, clusters: ClusterMap) -> list[WrittenCluster]:
        """Write shards, catalogue, held-out documents and bad records; return the clusters."""
        out, manifest, keep = self._out, self._manifest, self._settings.keep
        tokenize_all(self._engine, selection, out / "tokenizer.json", manifest.eos_id)
        written = write_clusters(
            self._engine, self.partitions, out, manifest.names, manifest.dtype, before=manifest
        )
        self._parts = write_catalogue(
            self._engine,
            out,
            selection,
            written,
            keep=keep,
            first=self._first,
            groups=self._groups,
        )
        labels = write_heldout(self._next, selection, clusters, manifest.names)
        if labels:
            labels.update(document.label for document in read_heldout(self._out) if document.label)
        tell_heldout(labels)
        self._join_heldout()
        if self._report.listed:
            before = read_json(out / BAD_RECORDS) if (out / BAD_RECORDS).exists() else []
            write_json(self._next / BAD_RECORDS, before + self._report.listed)
        return written

    def _grow(
        self,
        plan: Mapping[str, Any],
        selection: Selection,
        written: Sequence[WrittenCluster],
        added: Sequence[ClusterEntry],
    ) -> Manifest:
        """Return a manifest for old and new documents; its ``files`` still has the old hashes."""
        manifest = self._manifest
        entry = {
            "sources": plan["sources"],
            "before": manifest.fingerprint,
            "documents": sum(cluster.documents for cluster in added),
            "tokens": sum(cluster.tokens for cluster in added),
            **count_devices(self._engine, self.partitions, self._settings),
        }
        appended = [*manifest.provenance.get("appended", []), entry]
        provenance = {**manifest.provenance, "appended": appended}
        entries = [
            replace(w.entry, axes=old.axes)
            for w, old in zip(written, manifest.clusters, strict=True)
        ]
        entries = with_licenses(self._engine, self.partitions, entries, before=manifest)
        texts = [manifest.license, name_licenses(self._engine, self.partitions)]
        stages = zip(manifest.conservation, (self._report.stage(), *selection.stages), strict=True)
        return replace(
            manifest,
            clusters=tuple(entries),
            build=hash_json(provenance),
            license=union_of_licenses(entries, texts),
            provenance=provenance,
            conservation=tuple(_sum(old, new) for old, new in stages),
            parts=self._first + len(self._parts),
        )

    def _find_copies(self, selection: Selection, description: Mapping[str, Any]) -> NearCopies:
        """Return the near copies in ``description``, with those that this append found."""
        before = NearCopies.from_json(description.get("near_copies"))
        new = [self._out / name for name in self._parts]
        old = [self._out / part_name(number) for number in range(self._first)]
        sources: list[Path | Partition] = [*old, *self.partitions]
        counts = [*self._seen.counts, *selection.counts()]
        found = find_copies(self._engine, new, self._seen.total, sources, counts)
        return replace(before, append=found)

    def _describe(
        self,
        grown: Manifest,
        clusters: ClusterMap,
        cells: Cells | None,
        added: Sequence[ClusterEntry],
        before: Mapping[str, Any],
        copies: NearCopies,
    ) -> None:
        """Write the new description of the clusters, which replaces ``before``, and the report."""
        kmeans, dropped = before.get("kmeans"), before.get("dropped", {})
        new = describe_clusters(self._engine, self.partitions, clusters, added, cells)
        infos = [join_described(*pair) for pair in zip(load_clusters(self._out), new, strict=True)]
        if small := small_cells(infos):
            logger.warning(f"  {small}")
        agreement = label_agreement([info.labels for info in by_topic(infos)])
        save_clusters(
            self._next,
            infos,
            map=clusters.to_json(),
            agreement=agreement,
            kmeans=kmeans,
            dropped=dropped,
            near_copies=copies.to_json(),
            **({"cells": cells.to_json()} if cells else {}),
        )
        more = loss_sections(counts_of(grown), dropped, clusters.why, copies, appended=True)
        data = report_page(grown, infos, agreement, clusters.centroids, kmeans, more, clusters.why)
        write_report(self._next, data)

    def _join_heldout(self) -> None:
        """Put the old held-out documents before those in the new file, if both files exist."""
        before, now = self._out / HELDOUT, self._next / HELDOUT
        if before.exists() and now.exists():
            write_bytes(now, before.read_bytes() + now.read_bytes())


def kept_in(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Return how many documents the shards have of each language and of each script.

    The keys are ``language`` and ``script``; each has the numbers by name. Both are empty if an
    earlier version wrote the directory, because it did not count documents by language.
    """
    counts = counts_of(manifest)
    return {
        what: {name: entry["kept"] for name, entry in counts.get(what, {}).items()}
        for what in ("language", "script")
    }


def tell_new_languages(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Log a warning about documents of languages that the shards had no documents of.

    ``before`` and ``after`` have the numbers of documents in the shards, by language, before and
    after an append.
    """
    new = Counter({name: n for name, n in after.items() if not before.get(name)})
    del new[UNDETERMINED]
    if not (+new and before):
        return
    listed = some_names([f"{name} {n:,}" for name, n in (+new).most_common()])
    logger.warning(
        f"  {counted(new.total(), 'document')} in languages that the shards had no documents of, "
        f"now in clusters of other languages: {listed}. If these are many, build again from all "
        "sources, so that these languages get clusters of their own"
    )


def _sum(old: Any, new: Any) -> Any:
    """Return the sum of ``old``, the counts of a stage before this append, and ``new``, its own."""
    if isinstance(old, Mapping):
        both = {name: _sum(old[name], new[name]) for name in old if name in new}
        return {**old, **new, **both}
    return old if isinstance(old, str) else old + new
