"""Stages of a selection: each document gets a cluster, or a reason why it is dropped."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.ward import Micros, merge_clusters
from climbstream.builder.corpus.partition import ArrayName, Partition
from climbstream.builder.corpus.passes import in_order, summed
from climbstream.builder.corpus.sample import has_license, in_languages
from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.language_codes import CODE, UNDETERMINED
from climbstream.builder.settings import CONTAMINATED, EQUAL_TEXT, EVERY, SCORES, BuildSettings
from climbstream.loader.core.console import counted
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.clusters import score_title
from climbstream.loader.formats.mixture import some_names

from .by_license import Counts, check_names, count_licenses, most_frequent, tell_licenses
from .copies import count_copies
from .dedup import HashTask, Seen, find_repeated, firsts_in, least_agreement
from .exchange import Source, cut_blocks, starts_of
from .few import JUDGED_ALWAYS, count_languages, is_of_few, languages_of_few
from .held_out import held_out_rule
from .language_groups import Group, good_groups, is_in, sum_groups
from .near import find_near
from .reasons import (
    LANGUAGE,
    LICENSE,
    LOW_SCORE,
    NEAR,
    PRUNED,
    REPEATED,
    number_below,
    stays,
    stays_until,
)
from .selection import Loss, Rule, Selection, drop_by_rules, size_of

logger = get_logger(__name__)

_NOTHING = Seen()
_FREQUENT = 20
"""Number of documents above which a build names an item of a task. A test question is in few
documents; an item that is in many is usually a common phrase, and leaves out ordinary documents."""
_SHOWN = 12
"""Maximum number of languages that a message names."""


def identify(
    engine: Engine,
    partitions: Sequence[Partition],
    work: Path,
    settings: BuildSettings,
    seen: Seen = _NOTHING,
) -> Selection:
    """Begin a selection: drop documents by identifier, language and licence.

    A document is dropped if an earlier document has the same identifier. The setting ``ids``
    decides which documents are compared: those of the same source, all documents, or none.

    ``work`` is a folder for the files that tasks exchange. ``seen`` has the hashes and signatures
    of documents from before an append.
    """
    selection = Selection(engine, partitions, work)
    if settings.ids == "none":
        selection.drop(Rule("identify", REPEATED[:1], _no_reason))
    else:
        apart = settings.ids == "source"
        before = _NOTHING if apart else seen
        _drop_repeated(selection, "identify", "id_hashes", REPEATED[0], before, apart=apart)
    selection.spared = tuple(settings.keep_ids)
    if settings.languages != EVERY:
        find = partial(_other_language, settings=settings)
        selection.drop(Rule("languages", (LANGUAGE,), find))
        if not seen.total:
            _check_languages(selection, settings)
    if settings.licenses:
        _drop_by_license(selection, settings, new=not seen.total)
    return selection


def _check_languages(selection: Selection, settings: BuildSettings) -> None:
    """Log which of the settings' languages no document has, and what is left out without one.

    Raises:
        InvalidDataError: No document is kept; the message lists the corpus's languages.
    """
    counts: Counter[str] = Counter()
    summed(selection.engine, selection.partitions, _count_languages, Counter.update, counts)
    asked = settings.languages
    missing = [name for name in asked if not counts[name]]
    listed = ", ".join(f"{name} {n:,}" for name, n in counts.most_common(_SHOWN))
    if len(missing) == len(asked) and not settings.keep_ids:
        raise InvalidDataError(
            f"--languages {','.join(missing)} keeps no document; documents by language: {listed}"
        )
    if missing:
        logger.warning(
            f"  no document is in the language {', '.join(missing)}; by language: {listed}"
        )
    unnamed = [name for name in (CODE, UNDETERMINED) if counts[name] and name not in asked]
    if unnamed:
        texts = " and ".join(f"{counted(counts[name], 'document')} as {name}" for name in unnamed)
        logger.info(
            f"  --languages leaves out {texts}; these may be lists and tables in a language that "
            f"you named, so look at some of them: climb dropped --language {unnamed[0]}"
        )


def _count_languages(partition: Partition) -> Counter[str]:
    return Counter(partition.read("languages")[:, 0].tolist())


def _drop_by_license(selection: Selection, settings: BuildSettings, *, new: bool) -> None:
    """Drop documents by licence; count the kept and the dropped documents of each licence.

    In a build (``new``), but not in an append, the names of licences in the settings are also
    checked.
    """
    selection.drop(Rule("licences", (LICENSE,), partial(_other_license, settings=settings)))
    if selection.spared:
        _tell_spared(selection, settings)
    kept: Counts = {}
    dropped: Counts = {}
    for parts in selection.each(count_licenses):
        for counts, part in zip((kept, dropped), parts, strict=True):
            for name, count in part.items():
                counts.setdefault(name, Counter()).update(count)
    if new:
        check_names(settings.licenses, kept, dropped)
    tell_licenses(kept, dropped)
    selection.stages[-1]["licenses"] = most_frequent(dropped)


def _tell_spared(selection: Selection, settings: BuildSettings) -> None:
    """Log how many documents stay only because ``keep_ids`` names them, whatever their licence."""
    find = partial(_spared_by_name, names=selection.spared, settings=settings)
    names = [name for some in selection.each(find) for name in some]
    if names:
        logger.warning(
            f"  --keep-ids keeps {counted(len(names), 'document')} whose licence is not allowed "
            f"(the first: {names[0]})"
        )


def _spared_by_name(
    partition: Partition, names: Sequence[str], settings: BuildSettings
) -> list[str]:
    """Return those of ``names`` whose documents stay although their licence is not allowed."""
    ids = partition.column("id")
    rows = np.flatnonzero(np.isin(ids, names) & stays(partition))
    rows = rows[~has_license(partition, settings)[rows]]
    return [ids[row] for row in rows]


def select_documents(
    selection: Selection, centroids: NDArray[np.float32], settings: BuildSettings
) -> tuple[ClusterMap, Selection]:
    """Decide which documents of `identify` stay, and merge their micro-clusters into clusters.

    Documents are dropped if they contain test questions, are duplicates, have low scores, or are
    held out. Each partition gets two arrays:

    - ``clusters``, int32 ``[n]``: the cluster of each document; below 0 for a dropped document.
    - ``original``, int64 ``[n]``: for a document that nearly repeats another document, the number
      of that other document in the catalogue; for all other documents -1.

    Raises:
        InvalidDataError: No document is left, or nearly all documents are in one cluster.
    """
    _decontaminate(selection, settings)
    drop_copies(selection, settings)
    clusters = ClusterMap.of(centroids)
    few = _languages_of_few(selection, settings)
    if not settings.no_prune:
        _, means = _means(selection, "scores", len(centroids), few)
        clusters = prune_clusters(clusters, means, settings.min_cluster_score)
    _drop_poor(selection, settings, clusters, few)
    clusters = merge_clusters(clusters, micros_of(selection, len(centroids)), settings)
    _write_clusters(selection, clusters)
    return clusters, selection


def select_appended(
    selection: Selection,
    clusters: ClusterMap,
    settings: BuildSettings,
    seen: Seen,
    before: Mapping[str, Mapping[str, int]],
) -> Selection:
    """Decide which appended documents stay, and put them into the ``clusters`` of the build.

    ``before`` has the numbers of documents from before the append, by ``language`` and ``script``.
    """
    _decontaminate(selection, settings)
    drop_copies(selection, settings, seen)
    few = _languages_of_few(selection, settings, before)
    _drop_poor(selection, settings, clusters, few, seen)
    _write_clusters(selection, clusters)
    return selection


def _languages_of_few(
    selection: Selection,
    settings: BuildSettings,
    before: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[tuple[str, str], int]:
    """Return which languages have too few documents to be judged by scores, with their numbers.

    The keys are language and script. ``before`` is as in `languages_of_few`. With ``no_prune``, the
    result is empty, because no document is judged. A message says how documents of languages other
    than English are judged.
    """
    if settings.no_prune:
        return {}
    counts: Counter[tuple[str, str]] = Counter()
    summed(selection.engine, selection.partitions, count_languages, Counter.update, counts)
    few = languages_of_few(counts, before or {})
    others = sum(n for (language, _), n in counts.items() if language not in JUDGED_ALWAYS)
    if others := others - sum(few.values()):
        logger.info(
            f"  scores use words only in English; {others:,} documents of other languages are "
            "scored by their form alone (without copies, and without languages of few documents)"
        )
    if few:
        names = ", ".join(
            f"{n:,} in {language} ({script})" for (language, script), n in few.items()
        )
        logger.info(
            "  languages with too few documents for reliable scores, so none of these documents "
            f"is pruned: {names}"
        )
    return few


def _decontaminate(selection: Selection, settings: BuildSettings) -> None:
    """Drop documents that contain an item of a task; if the settings only mark them, count them."""
    if not settings.decontaminate:
        return
    find = _no_reason if settings.mark_contaminated else _contaminated
    selection.drop(Rule("decontaminate", (CONTAMINATED,), find))
    _tell_frequent_items(sum(selection.each(_count_items), Counter[str]()))
    if not settings.mark_contaminated:
        return
    marked = sum(selection.each(_count_marked), Counter[str]())
    selection.stages[-1]["marked"] = {what: marked[what] for what in ("documents", "bytes")}
    logger.info(
        "  documents that contain a test question, marked and kept: "
        f"{counted(marked['documents'], 'document')}"
    )


def _tell_frequent_items(counts: Counter[str]) -> None:
    """Log a warning about items that are in many documents, so they may be common phrases.

    ``counts`` has the number of documents of each item.
    """
    frequent = [(name, n) for name, n in counts.most_common() if n > _FREQUENT]
    if frequent:
        listed = some_names([f"{name} {n:,}" for name, n in frequent])
        logger.warning(
            f"  {counted(len(frequent), 'item')} of the tasks in more than {_FREQUENT} documents "
            f"each: {listed}. If the item is a common phrase, delete it from the task"
        )


def _count_items(partition: Partition) -> Counter[str]:
    """Return the number of documents that contain each item, by its name."""
    names = partition.read(CONTAMINATED)
    return Counter(names[names != ""].tolist())


def _count_marked(partition: Partition) -> Counter[str]:
    """Return the number of documents that stay although they are marked, and of their bytes."""
    marked = (partition.read(CONTAMINATED) != "") & stays(partition)
    return size_of(partition.read("sizes"), marked)


def drop_copies(selection: Selection, settings: BuildSettings, seen: Seen = _NOTHING) -> None:
    """Drop exact and near copies of other documents, unless the settings keep duplicates.

    Each partition gets two arrays. For an exact copy, ``first`` has the number of the document that
    it repeats. For a near copy, ``original`` has the number of the document that it nearly repeats.
    If copies are dropped, `count_copies` counts them.
    """
    if not settings.keep_duplicates:
        # Compare only kept documents: a copy of a dropped document is no duplicate.
        _drop_repeated(selection, "deduplicate", "text_hashes", EQUAL_TEXT, seen)
    if settings.near_duplicates is not None:
        counts = [*seen.counts, *selection.counts()]
        blocks = cut_blocks([*seen.near, *selection.partitions], counts)
        worth = partial(original_worth, before=seen.total)
        folder = selection.work / "near"
        least = least_agreement(settings.near_duplicates)
        find_near(selection.engine, blocks, folder, worth, least, seen.total)
        if not settings.keep_duplicates:
            selection.drop(Rule("deduplicate nearly", (NEAR,), _nearly_the_same))
    if not settings.keep_duplicates:
        blocks = cut_blocks(selection.partitions, selection.counts())
        count_copies(selection.engine, blocks, selection.work / "copies", seen.total)


def _drop_poor(
    selection: Selection,
    settings: BuildSettings,
    clusters: ClusterMap,
    few: Mapping[tuple[str, str], int],
    seen: Seen = _NOTHING,
) -> None:
    """Drop documents for low scores of the document or of its micro-cluster; hold documents out."""
    pruned = clusters.cluster < 0
    least = {} if settings.no_prune else settings.min_document_score
    good = good_groups(
        selection.each(partial(sum_groups, pruned=pruned)), settings.min_cluster_score
    )
    rules = [
        Rule("prune clusters", (PRUNED,), partial(_in_pruned, pruned=pruned, few=few, good=good)),
        Rule(
            "prune documents",
            tuple(LOW_SCORE[name] for name in least),
            partial(_poor, few=few, least=least),
        ),
    ]
    if settings.holdout:
        rules.append(held_out_rule(selection, settings, seen))
    selection.drop(*rules)


def _no_reason(partition: Partition) -> NDArray[np.str_]:
    return np.full(len(partition), "")


def _other_language(partition: Partition, settings: BuildSettings) -> NDArray[np.str_]:
    return _where(~in_languages(partition, settings), LANGUAGE)


def _other_license(partition: Partition, settings: BuildSettings) -> NDArray[np.str_]:
    return _where(~has_license(partition, settings), LICENSE)


def _contaminated(partition: Partition) -> NDArray[np.str_]:
    return _where(partition.read(CONTAMINATED) != "", CONTAMINATED)


def _nearly_the_same(partition: Partition) -> NDArray[np.str_]:
    return _where(partition.read("original") >= 0, NEAR)


def _in_pruned(
    partition: Partition,
    pruned: NDArray[np.bool_],
    few: Mapping[tuple[str, str], int],
    good: set[Group],
) -> NDArray[np.str_]:
    spared = is_of_few(partition, few) | is_in(partition, good)
    return _where(pruned[partition.read("micro")] & ~spared, PRUNED)


def _poor(
    partition: Partition, few: Mapping[tuple[str, str], int], least: Mapping[str, float]
) -> NDArray[np.str_]:
    poor = poor_documents(partition.read("scores"), least)
    return np.where(is_of_few(partition, few), "", poor)


def _write_clusters(selection: Selection, clusters: ClusterMap) -> None:
    # Kept documents of a pruned micro-cluster go to the cluster of the most similar kept one.
    for _ in selection.each(partial(_write_home, home=clusters.home)):
        pass


def _write_home(partition: Partition, home: NDArray[np.int32]) -> None:
    cluster = np.where(stays(partition), home[partition.read("micro")], np.int32(-1))
    partition.write("clusters", cluster)


def _drop_repeated(
    selection: Selection,
    stage: str,
    name: ArrayName,
    reason: str,
    seen: Seen,
    *,
    apart: bool = False,
) -> None:
    """Drop each kept document that has the same hash in the array ``name`` as an earlier document.

    With ``apart``, only earlier documents of the same source count.
    """
    sources: list[Source] = [*seen.parts, *selection.partitions]
    blocks = cut_blocks(sources, [*seen.counts, *selection.counts()])
    hashes = partial(_hashes, name=name, reason=reason, before=seen.total, apart=apart)
    folder = selection.work / stage
    find_repeated(selection.engine, blocks, hashes, folder)
    rule = Rule(stage, (reason,), _no_reason)
    drop = partial(_drop_in_block, rule=rule, before=seen.total, spared=selection.spared)
    tasks = [HashTask(block, folder, hashes, starts_of(blocks)) for block in blocks]
    losses = chain.from_iterable(in_order(selection.engine, drop, tasks))
    selection.add([rule], losses)
    shutil.rmtree(folder)


def _hashes(
    source: Source, number: int, name: ArrayName, reason: str, before: int, *, apart: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes and rows of the documents of ``source`` that are compared.

    Kept documents are compared. From a source that was in the directory before an append, all
    documents are compared.
    """
    hashes = source.read(name)
    rows = np.arange(len(hashes))
    if number >= before:
        partition = cast("Partition", source)
        rows = np.flatnonzero(stays_until(partition, reason))
        # With ``apart``, mix the source into the hashes, so that different sources differ.
        hashes = hashes[rows] ^ (hash_texts([partition.source]) if apart else np.uint64(0))
    return hashes, rows


def _drop_in_block(
    task: HashTask, rule: Rule, before: int, spared: Sequence[str]
) -> list[list[Loss]]:
    """Drop the documents that `find_repeated` found in a block; return the losses by partition.

    If texts were compared, partitions also get the array ``first``.
    """
    firsts = firsts_in(task)
    (reason,) = rule.reasons
    losses = []
    for source, begin, end in task.block.parts():
        if task.block.start + begin < before:
            continue
        partition, first = cast("Partition", source), firsts[begin:end]
        if reason == EQUAL_TEXT:
            partition.write("first", first)
        find = partial(_marked, mask=first >= 0, reason=reason)
        losses.append(drop_by_rules(partition, [replace(rule, find=find)], spared))
    return losses


def _marked(_: Partition, mask: NDArray[np.bool_], reason: str) -> NDArray[np.str_]:
    return _where(mask, reason)


def original_worth(partition: Partition, number: int, before: int) -> NDArray[np.float32]:
    """Return the worth of each document, float32 ``[n]``; the worth decides between near copies.

    Of documents that are near copies of each other, the one with the highest worth stays. Documents
    from before an append have infinite worth, because they must stay. Documents that are dropped
    already have the worth minus infinity, so that they are not compared.

    Args:
        partition: The documents.
        number: Number of the first document in ``partition``.
        before: Number of documents that were in the directory before the append.
    """
    if number < before:
        count = partition.read("signatures", mapped=True).shape[1]
        return np.full(count, np.inf, np.float32)
    # Round the scores, so that the length decides between documents with similar scores.
    scores, sizes = partition.read("scores"), partition.read("sizes")
    worth = np.round(4 * (scores[:, 0] + scores[:, 3])) + sizes / (sizes + 4096)
    worth[~stays_until(partition, NEAR)] = -np.inf
    return np.asarray(worth, np.float32)


def micros_of(selection: Selection, count: int) -> Micros:
    """Return, for each micro-cluster, its number of documents and their mean similarity to it."""
    documents, tightness = _means(selection, "alike", count)
    return Micros(documents=documents, tightness=tightness[:, 0])


def _means(
    selection: Selection,
    name: ArrayName,
    count: int,
    few: Mapping[tuple[str, str], int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, by micro-cluster, the number of kept documents, ``[M]``, and means, ``[M, k]``.

    The means are those of the array ``name``. Documents in languages of ``few`` do not count. The
    mean of a micro-cluster without documents is infinity, so that the micro-cluster is not pruned.
    """
    documents = np.zeros(count, np.int64)
    sums = np.zeros((count, 1))
    function = partial(_sum_micros, name=name, few=few or {})
    for micro, n, totals in selection.each(function):
        documents[micro] += n
        sums = np.zeros((count, totals.shape[1])) if sums.shape[1] != totals.shape[1] else sums
        sums[micro] += totals
    means = np.where(documents[:, None] > 0, sums / np.maximum(documents, 1)[:, None], np.inf)
    return documents, means


def _sum_micros(
    partition: Partition, name: ArrayName, few: Mapping[tuple[str, str], int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the micro-clusters that have kept documents, and two arrays with sums over these.

    The first array has the number of kept documents, ``[m]``. The second array has the sums of the
    array ``name`` over kept documents, ``[m, k]``. Documents in languages of ``few`` do not count.
    """
    staying = stays(partition) & ~is_of_few(partition, few)
    micro, place, n = np.unique(
        partition.read("micro")[staying], return_inverse=True, return_counts=True
    )
    columns = np.atleast_2d(partition.read(name)[staying].T)
    return micro, n, np.stack([np.bincount(place, c, len(micro)) for c in columns], axis=1)


def _where(mask: NDArray[Any], reason: str) -> NDArray[np.str_]:
    return np.where(mask, reason, "")


def prune_clusters(
    clusters: ClusterMap, means: NDArray[np.float64], least: Mapping[str, float]
) -> ClusterMap:
    """Return a map in which micro-clusters with a mean score below ``least`` are pruned."""
    why = {}
    for micro in clusters.kept.tolist():
        for name, low in least.items():
            mean = float(means[micro, SCORES.index(name)])
            # The mean of a micro-cluster without documents is infinite, so it is not pruned.
            if mean < low and micro not in why:
                shown = number_below(mean, low)
                why[micro] = f"cluster scores {shown} in {score_title(name)}, below {low:g}"
    return clusters.without(why)


def poor_documents(scores: NDArray[np.float32], least: Mapping[str, float]) -> NDArray[np.str_]:
    """Return why each document is dropped for its ``scores``, ``[n, 4]``; "" if it stays."""
    why = np.full(len(scores), "", dtype="U32")
    for name, low in least.items():
        why[(scores[:, SCORES.index(name)] < low) & (why == "")] = LOW_SCORE[name]
    return why
