"""The pipeline of a build: run all stages in order, and write the manifest last.

Work in progress is kept in ``OUT/.build``: partitions of the corpus, with the arrays that stages
add. Complete files are not made again. So a build that was killed continues where it stopped, and
gives the same bytes as a build that was never interrupted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.builder.clustering.cells import fit_cells, place_in_cells
from climbstream.builder.clustering.cluster_map import ClusterMap, topic_names
from climbstream.builder.clustering.fit import MODEL, fit_model, read_fit
from climbstream.builder.contamination.index import ItemIndex
from climbstream.builder.contamination.stage import find_contaminated
from climbstream.builder.contamination.tasks import Task, read_tasks
from climbstream.builder.corpus.ingest import (
    BAD_RECORDS,
    ReadReport,
    read_corpus,
    usual_groups,
)
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import remove_all
from climbstream.builder.corpus.read_report import BadFile, check_losses
from climbstream.builder.corpus.sample import SAMPLE
from climbstream.builder.corpus.sources import Places, Source, as_places, hash_sources, survey
from climbstream.builder.destination.destination import Destination, open_destination
from climbstream.builder.report.cells import by_topic, small_cells
from climbstream.builder.report.describe import (
    describe_clusters,
    label_agreement,
    large_cluster,
    name_licenses,
)
from climbstream.builder.report.losses import counts_of, loss_sections
from climbstream.builder.report.near_copies import NearCopies, find_copies
from climbstream.builder.report.report import report_page, write_report
from climbstream.builder.selection.annotate import count_devices, look_at, tell_languages
from climbstream.builder.selection.dropped import sample_dropped, tell_kept
from climbstream.builder.selection.leaks import tell_leaks
from climbstream.builder.selection.named import tell_named
from climbstream.builder.selection.preview import preview
from climbstream.builder.selection.selection import Selection
from climbstream.builder.selection.stages import identify, select_documents
from climbstream.builder.writers.catalogue import tell_heldout, write_catalogue, write_heldout
from climbstream.builder.writers.license_counts import tell_unlicensed, with_licenses
from climbstream.builder.writers.shards import write_clusters
from climbstream.builder.writers.tokenization import tokenize_all
from climbstream.builder.writers.tokenizer import fit_tokenizer, load_tokenizer, token_dtype
from climbstream.loader.core.engines.engine import Engine, open_engine
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import (
    atomic_path,
    hash_file,
    hash_json,
    lock,
    write_json,
)
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import check_same_config
from climbstream.loader.formats.clusters import save_clusters
from climbstream.loader.formats.manifest import CONTAMINATION, Manifest, hash_files, part_paths
from climbstream.loader.formats.outputs import WORK

from .end_token import EndToken, find_end_token, read_configs, trained_end_token
from .settings import BuildSettings, complete_settings, effect_of_change
from .staging import finish_commit
from .unbound import EXCHANGE, change_plan
from .workdir import PRELOAD, UNBOUND, begin_in, bind, engine_in, remove_work, unbound_by_error

logger = get_logger(__name__)


def build(
    sources: Places,
    out: str | Path,
    settings: BuildSettings | None = None,
    *,
    workers: int | None = None,
    engine: str = "local",
    strict: bool = False,
    partition_mib: int | None = None,
    scratch: str | Path | None = None,
) -> Manifest:
    """Build a shard directory from a corpus, and return its manifest.

    A build that was interrupted continues when the same call is made again; the files have the same
    bytes as without the interruption. If the build is finished, nothing is built again.

    Args:
        sources: Files, folders, globs, URLs, ``hub:NAME`` or ``python:``.
        out: Folder of the shard directory, which need not exist, or ``s3://BUCKET/NAME``.
        settings: Settings that decide the result; default: `BuildSettings()`.
        workers: Maximum number of tasks at a time; default: one per core. With ``slurm``, there is
            no default: the number must be given.
        engine: Where tasks run: ``local`` (processes of this machine), ``ray`` or ``slurm``. The
            files have the same bytes with each engine.
        strict: Raise an error if a record, file or folder cannot be used; default: leave it out.
        partition_mib: MiB of text per task; default: 4 to 128, more for a larger corpus. This
            number does not change the result. With a larger number, there are fewer temporary
            files.
        scratch: If ``out`` is a URL, the folder in which the directory is made first; default: a
            folder in the cache. All nodes must have access to it. When all files are in the bucket,
            the files in this folder are removed.

    Example::

        manifest = build(["corpus/*.jsonl.zst"], Path("shards"), BuildSettings(clusters=20))
        manifest.token_shares  # the mixture of the corpus itself

    Raises:
        UsageError: A source does not exist.
        InvalidDataError: ``out`` has other files, or a build of other sources or settings; the
            message names them. Or the corpus has too few documents to cluster. Or, with ``strict``,
            a record, file or folder cannot be used.
        LockedError: Another process works in ``out``.
        RemoteError: A bucket cannot be written; this is detected before anything is built.
    """
    settings = settings or BuildSettings()
    sources = as_places(sources)
    with open_destination(out, scratch) as destination:
        with _begun(sources, destination, settings, workers, engine) as begun:
            if begun:
                begun = replace(begun, partition_mib=partition_mib)
                _run(begun, destination.folder, settings, strict=strict)
            elif (place := destination.finished_at()) is not None:
                check_losses(Manifest.load(place).conservation[:2], strict=strict)
                logger.info(f"{place} is built already, from these sources with these settings")
        return destination.finish()


def dry_run(
    sources: Places,
    out: str | Path,
    settings: BuildSettings | None = None,
    *,
    workers: int | None = None,
    engine: str = "local",
    strict: bool = False,
    partition_mib: int | None = None,
    scratch: str | Path | None = None,
) -> dict[str, Any]:
    """Return what `build` would leave out and why, without writing shards.

    A later `build` with the same arguments continues from the work of the dry run. The result has
    these keys:

    - ``stages``: documents and bytes that each stage dropped, by reason.
    - ``samples``: samples of dropped documents, by reason.
    - ``pruned``: why micro-clusters were pruned.
    - ``clusters``: number of clusters.
    - ``heights``: how many clusters there would be at each of several merge heights.

    Example::

        dry_run(["corpus"], Path("shards"))["samples"]["low overall score"]

    Raises:
        UsageError: There is a finished build in ``out``. All errors of `build` may be raised as
            well.
    """
    settings = settings or BuildSettings()
    sources = as_places(sources)
    with (
        open_destination(out, scratch) as destination,
        _begun(sources, destination, settings, workers, engine, dry=True) as begun,
    ):
        if not begun:
            place = destination.finished_at()
            raise UsageError(f"{place} is built already; name a new folder or URL for a dry run")
        begun = replace(begun, partition_mib=partition_mib)
        _, _, _, clusters, selection = _decide(begun, destination.folder, settings, strict=strict)
        return preview(clusters, selection)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A build that has been begun or resumed."""

    engine: Engine
    sources: Sequence[Source]
    left_out: Sequence[BadFile]
    """Files and folders that were found together with the sources, but are not read."""
    plan: dict[str, Any]
    tasks: Sequence[Task]
    """Tasks (tests of models) whose items are searched for in the documents."""
    partition_mib: int | None = None


@contextmanager
def _begun(
    sources: Sequence[str],
    destination: Destination,
    settings: BuildSettings,
    workers: int | None,
    engine: str,
    *,
    dry: bool = False,
) -> Iterator[_Begun | None]:
    """Begin or resume a build, and yield it; yield None if the build is finished.

    A plan is binding when shards may have been written. Until then, the settings may differ from
    those of an earlier build or dry run in the folder; see `change_plan`. ``dry`` says that this is
    a dry run.
    """
    out = destination.folder
    found, left_out = survey(sources)
    tasks = read_tasks(settings.decontaminate)
    work = out / WORK
    with lock(out):
        finish_commit(out)
        with engine_in(work, partial(open_engine, engine, workers, preload=PRELOAD)) as opened:
            found = hash_sources(found, opened)
            plan = _begin(found, tasks, destination, settings, dry=dry)
            yield None if plan is None else _Begun(opened, found, left_out, plan, tasks)
        # The folder is removed only now, because jobs of the engine may write to it until they end.
        if plan is not None and not dry:
            remove_work(work)


def _begin(
    sources: Sequence[Source],
    tasks: Sequence[Task],
    destination: Destination,
    settings: BuildSettings,
    *,
    dry: bool,
) -> dict[str, Any] | None:
    """Write and return the plan of a build; None if a build with this plan is finished.

    If a binding plan is in the folder, the new plan must be equal to it.
    """
    plan = {
        "builder": 1,
        "settings": settings.to_json(),
        "sources": {source.place: source.fingerprint for source in sources},
    }
    if tasks:
        plan["tasks"] = {task.name: task.fingerprint for task in tasks}
    out = destination.folder
    if (place := destination.finished_at()) is not None:
        manifest = Manifest.load(place)
        first = {name: manifest.provenance.get(name) for name in plan}
        first["settings"] = complete_settings(first["settings"])
        check_same_config(first, plan, place, effect_of_change(first, plan))
        return None
    end = _end_token(settings)
    plan["end"] = end.to_json()
    if not dry:
        destination.claim(plan, effect_of_change)
    change_plan(out, plan)
    if begin_in(out, WORK, plan, effect_of_change):
        logger.info(f"continuing the build in {out}")
    elif dry:
        (out / WORK / UNBOUND).touch()
    if not dry:
        (out / WORK / UNBOUND).unlink(missing_ok=True)
    end.tell()
    return plan


def _end_token(settings: BuildSettings) -> EndToken:
    """Return the token that ends documents; the corpus is not read for this."""
    if settings.tokenizer is None:
        return trained_end_token(settings.end)
    tokenizer, configs = load_tokenizer(settings.tokenizer), read_configs(settings.tokenizer)
    return find_end_token(tokenizer, settings.end, configs, settings.tokenizer)


def _decide(
    begun: _Begun, out: Path, settings: BuildSettings, *, strict: bool
) -> tuple[ReadReport, list[Partition], dict[str, Any], ClusterMap, Selection]:
    """Read, embed, score and cluster documents; then decide which documents stay.

    Returns the report on reading, the partitions, the quality of k-means, the clusters, and the
    selection of documents.
    """
    work = out / WORK
    report = read_corpus(
        begun.engine,
        begun.sources,
        work / "units",
        settings,
        left_out=begun.left_out,
        partition_mib=begun.partition_mib,
    )
    partitions = [Partition(work / "units" / name) for name in report.units]
    tell_languages(begun.engine, partitions)
    selection = identify(begun.engine, partitions, work / EXCHANGE, settings)
    check_losses((report.stage(), *selection.stages), strict=strict)
    if begun.tasks:
        ItemIndex.of(begun.tasks).save(out / CONTAMINATION)
        find_contaminated(begun.engine, partitions, out / CONTAMINATION)
    model = out / MODEL
    fit_model(begun.engine, partitions, model, work / SAMPLE, settings)
    look_at(begun.engine, partitions, model, settings)
    centroids, kmeans = read_fit(model)
    clusters, selection = select_documents(selection, centroids, settings)
    check_losses(selection.stages[1:], strict=False)
    selection.stages[0]["kept"] = tell_kept(report, selection)
    tell_named(selection, new=True)
    tell_leaks(selection, out)
    return report, partitions, kmeans, clusters, selection


def _run(begun: _Begun, out: Path, settings: BuildSettings, *, strict: bool) -> None:
    """Run all stages, and write the manifest last."""
    engine, plan = begun.engine, begun.plan
    with unbound_by_error(out / WORK):
        report, partitions, kmeans, clusters, selection = _decide(
            begun, out, settings, strict=strict
        )
    bind(out / WORK)
    cells = None
    if settings.has_cells:
        cells = fit_cells(engine, partitions, clusters, settings)
        place_in_cells(engine, partitions, clusters, cells)
    sample = out / WORK / SAMPLE
    tokenizer = fit_tokenizer(engine, partitions, out / "tokenizer.json", sample, settings)
    end = begun.plan["end"]["id"]
    tokenize_all(engine, selection, out / "tokenizer.json", end)
    dtype = token_dtype(tokenizer.get_vocab_size())
    names = cells.names if cells else topic_names(clusters.count)
    written = write_clusters(engine, partitions, out, names, dtype)
    groups = usual_groups(begun.sources)
    parts = write_catalogue(engine, out, selection, written, keep=settings.keep, groups=groups)
    entries = [w.entry for w in written]
    if cells:
        entries = [replace(e, axes=axes) for e, axes in zip(entries, cells.axes, strict=True)]
    entries = with_licenses(engine, partitions, entries)
    infos = describe_clusters(engine, partitions, clusters, entries, cells)
    if small := small_cells(infos):
        logger.warning(f"  {small}")
    if not cells and (large := large_cluster(infos, settings)):
        logger.warning(f"  {large}")
    agreement = label_agreement([info.labels for info in by_topic(infos)])
    dropped = sample_dropped(selection)
    copies = NearCopies(find_copies(engine, part_paths(out), 0, partitions, selection.counts()))
    save_clusters(
        out,
        infos,
        map=clusters.to_json(),
        agreement=agreement,
        kmeans=kmeans,
        dropped=dropped,
        near_copies=copies.to_json(),
        **({"cells": cells.to_json()} if cells else {}),
    )
    with atomic_path(out / "centroids.npy") as path, path.open("wb") as file:
        np.save(file, clusters.centroids, allow_pickle=False)
    domains = [name for name, n in selection.stages[0]["kept"]["label"].items() if n["kept"]]
    tell_heldout(write_heldout(out, selection, clusters, names), domains)
    if report.listed:
        write_json(out / BAD_RECORDS, report.listed)
    provenance = plan | count_devices(engine, partitions, settings)
    manifest = Manifest(
        clusters=tuple(entries),
        dtype=dtype,
        vocab_size=tokenizer.get_vocab_size(),
        eos_id=end,
        tokenizer_hash=hash_file(out / "tokenizer.json"),
        build=hash_json(provenance),
        license=name_licenses(engine, partitions),
        provenance=provenance,
        conservation=(report.stage(), *selection.stages),
        parts=len(parts),
    )
    tell_unlicensed(manifest, report.unlicensed, settings.license)
    extra = loss_sections(counts_of(manifest), dropped, clusters.why, copies)
    data = report_page(manifest, infos, agreement, clusters.centroids, kmeans, extra, clusters.why)
    write_report(out, data)
    replace(manifest, files=hash_files(out) | parts).save(out)
    remove_all(engine, partitions)
