"""Dropped documents: samples of them, and how much of each language is kept."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import in_order, summed
from climbstream.builder.corpus.read_report import Report
from climbstream.builder.features.words import opening
from climbstream.builder.settings import SCORES
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.clusters import reason_title

from .reasons import LOW_SCORE, PRUNED, REASONS, stays, why_of
from .selection import Selection

logger = get_logger(__name__)

_POOR = [REASONS.index(reason) for reason in (PRUNED, *LOW_SCORE.values())]
SAMPLED = 60
"""Maximum number of dropped documents per reason whose text a build stores."""
_LENGTH = 200
"""Maximum number of characters that a sample shows of a document."""
_MANY = 10
"""A language, script or label must have at least this number of documents for a warning that more
than half of them are dropped for their quality."""


def sample_dropped(selection: Selection, shown: int = SAMPLED) -> dict[str, list[dict[str, Any]]]:
    """Return up to ``shown`` dropped documents for each reason, from all languages and labels.

    Each document has its ``id`` and ``origin``, the beginning of its ``text``, its micro-cluster as
    ``micro``, and its scores.
    """
    places = draw_dropped(selection, shown)
    rows: dict[int, list[int]] = {}
    for number, row in sorted(chain.from_iterable(places.values())):
        rows.setdefault(number, []).append(row)
    tasks = [(selection.partitions[number], np.array(mine)) for number, mine in rows.items()]
    read = chain.from_iterable(in_order(selection.engine, _read_samples, tasks))
    sorted_places = ((number, row) for number, mine in rows.items() for row in mine)
    documents = dict(zip(sorted_places, read, strict=True))
    return {reason: [documents[place] for place in drawn] for reason, drawn in places.items()}


def draw_dropped(selection: Selection, shown: int) -> dict[str, list[tuple[int, int]]]:
    """Return up to ``shown`` dropped documents for each reason, as numbers of partition and row.

    Of each language and label, the documents whose texts have the smallest hashes are drawn: first
    one document of each, then a second one, and so on.
    """
    groups: dict[_Group, list[_Drawn]] = {}
    for number, smallest in enumerate(selection.each(partial(_smallest, shown=shown))):
        for group, documents in smallest.items():
            merged = [*groups.get(group, ()), *((hashed, number, row) for hashed, row in documents)]
            groups[group] = sorted(merged)[:shown]
    drawn: dict[str, list[tuple[int, ...]]] = {reason: [] for reason in selection.reasons}
    for (code, _, _), group_drawn in groups.items():
        drawn[REASONS[code]] += [(rank, *place) for rank, place in enumerate(group_drawn)]
    return {
        reason: [(number, row) for _, _, number, row in sorted(ranked)[:shown]]
        for reason, ranked in drawn.items()
    }


_Group = tuple[int, str, str]
"""Reason, as an index in `REASONS`, language and label of documents."""
_Drawn = tuple[int, int, int]
"""The hash of a document's text, the number of its partition, and its row in the partition."""


def _smallest(partition: Partition, shown: int) -> dict[_Group, list[tuple[int, int]]]:
    """Return, by group, the hashes and rows of the ``shown`` documents with the smallest hashes."""
    why = why_of(partition)
    rows = np.flatnonzero(why)
    if not len(rows):
        return {}
    hashes = partition.read("text_hashes")[:, 0]
    languages, labels = partition.read("languages")[:, 0], partition.column("label")
    groups: dict[_Group, list[tuple[int, int]]] = {}
    for row in rows[np.argsort(hashes[rows], kind="stable")].tolist():
        mine = groups.setdefault((int(why[row]), str(languages[row]), labels[row] or ""), [])
        if len(mine) < shown:
            mine.append((int(hashes[row]), row))
    return groups


def _read_samples(task: tuple[Partition, NDArray[np.int64]]) -> list[dict[str, Any]]:
    """Return some documents of a partition, by their sorted rows, with their scores."""
    partition, rows = task
    scores, micro = partition.read("scores")[rows], partition.read("micro")[rows]
    samples = []
    for i, document in enumerate(partition.take(rows, "id", "origin", "text").to_pylist()):
        numbers = dict(zip(SCORES, scores[i].round(2).tolist(), strict=True))
        text = opening(document["text"], _LENGTH)
        samples.append({**document, "text": text, "micro": int(micro[i]), **numbers})
    return samples


Counts = dict[str, dict[str, dict[str, int]]]
Poor = dict[str, dict[str, int]]


def count_kept(selection: Selection) -> tuple[Counts, Poor]:
    """Return how many documents and bytes were read and kept, by language, script and label.

    The second result is the number of documents that were dropped for their quality, also by
    language, script and label.
    """
    counts: Counts = {"language": {}, "script": {}, "label": {}}
    summed(selection.engine, selection.partitions, _count_kept, _add_counts, counts)
    poor = {
        what: {name: sizes.pop("poor") for name, sizes in names.items()}
        for what, names in counts.items()
    }
    return {what: dict(sorted(names.items())) for what, names in counts.items()}, poor


def _add_counts(counts: Counts, part: Counts) -> None:
    for what, names in part.items():
        for name, sizes in names.items():
            total = counts[what].setdefault(name, dict.fromkeys(sizes, 0))
            for measure, size in sizes.items():
                total[measure] += size


def _count_kept(partition: Partition) -> Counts:
    """Return the counts of `count_kept` for one partition."""
    kept, sizes = stays(partition), partition.read("sizes")
    poor = np.isin(why_of(partition), _POOR)
    languages = partition.read("languages")
    columns = {
        "language": languages[:, 0],
        "script": languages[:, 1],
        "label": np.array(partition.column("label")),
    }
    counts: Counts = {what: {} for what in columns}
    for what, names in columns.items():
        for name in np.unique(names).tolist():
            mine = names == name
            counts[what][name] = {
                "documents": int(mine.sum()),
                "bytes": int(sizes[mine].sum()),
                "kept": int((mine & kept).sum()),
                "kept_bytes": int(sizes[mine & kept].sum()),
                "poor": int((mine & poor).sum()),
            }
    return counts


def tell_kept(report: Report, selection: Selection) -> Counts:
    """Log what was kept and dropped, by `summarize`; return the counts of `count_kept`."""
    counts, poor = count_kept(selection)
    for line in summarize(report.bad, selection.stages, counts, poor):
        logger.info(f"  {line}")
    return counts


def summarize(
    bad: Counter[str], stages: list[dict[str, Any]], counts: Counts, poor: Poor
) -> Iterator[str]:
    """Yield lines that say how much is kept, and what is dropped for which reason.

    ``bad`` has the number of records that are no documents, by reason; the lines name these records
    separately. There is a warning for each language, script or label of which more documents were
    dropped for their quality than are kept.
    """
    first, last = stages[0]["in"], stages[-1]["out"]
    reasons: Counter[str] = Counter()
    for stage in stages:
        for reason, size in stage["dropped"].items():
            reasons[reason] += size["documents"]
    pruned, unusable = (
        ", ".join(f"{reason_title(name)} {n:,}" for name, n in some.most_common())
        for some in (reasons, bad)
    )
    yield (
        f"kept {last['documents']:,} of {first['documents']:,} documents "
        f"({last['bytes']:,} of {first['bytes']:,} bytes)"
        + (f"; left out: {pruned}" if pruned else "")
        + (f"; records without a usable document: {unusable}" if unusable else "")
    )
    for what, names in counts.items():
        for name, entry in names.items():
            lost = poor[what][name]
            judged = entry["kept"] + lost
            if name and judged >= _MANY and 2 * lost > judged:
                yield (
                    f"warning: more than half of the documents of {what} {name} are left out for "
                    f"low quality ({lost:,} of {judged:,} documents); `climb dropped` shows them, "
                    "and --no-prune or a lower --min-document-score keeps them"
                )
