"""Dropped documents: samples of them, and how much of each language is kept."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import in_order, summed
from climbstream.builder.corpus.read_report import Report
from climbstream.builder.features.words import opening
from climbstream.builder.settings import SCORES
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.clusters import reason_title

from .reasons import LOW_SCORE, PRUNED, REASONS, stays, why_of
from .selection import EXAMPLES, Selection

logger = get_logger(__name__)

_POOR = [REASONS.index(reason) for reason in (PRUNED, *LOW_SCORE.values())]
_LENGTH = 200
"""Maximum number of characters that a sample shows of a document."""
_MANY = 10
"""A language, script or label must have at least this number of documents for a warning that more
than half of them are dropped for their quality."""


def sample_dropped(selection: Selection, shown: int = EXAMPLES) -> dict[str, list[dict[str, Any]]]:
    """Return up to ``shown`` dropped documents for each reason.

    Each document has its ``id``, the beginning of its ``text``, its micro-cluster as ``micro``, and
    its scores.
    """
    tasks = [(reason, selection.examples[reason], shown) for reason in selection.reasons]
    return dict(zip(selection.reasons, in_order(selection.engine, _dropped, tasks), strict=True))


def _dropped(task: tuple[str, Sequence[Partition], int]) -> list[dict[str, Any]]:
    """Return the first documents in some partitions that were dropped for one reason."""
    reason, partitions, shown = task
    found: list[dict[str, Any]] = []
    for partition in partitions:
        rows = np.flatnonzero(why_of(partition) == REASONS.index(reason))[: shown - len(found)]
        if not len(rows):
            continue
        scores, micro = partition.read("scores")[rows], partition.read("micro")[rows]
        documents = partition.take(rows, "id", "text").to_pylist()
        for i, document in enumerate(documents):
            numbers = dict(zip(SCORES, scores[i].round(2).tolist(), strict=True))
            text = opening(document["text"], _LENGTH)
            found.append({"id": document["id"], "text": text, "micro": int(micro[i]), **numbers})
    return found


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
    read, first = report.stage(), selection.stages[0]["in"]
    # The bytes of records without a usable text are not known.
    read["in"] = {**first, "documents": read["in"]["documents"]}
    for line in summarize([read, *selection.stages], counts, poor):
        logger.info(f"  {line}")
    return counts


def summarize(stages: list[dict[str, Any]], counts: Counts, poor: Poor) -> Iterator[str]:
    """Yield lines that say how much is kept, and what is dropped for which reason.

    There is a warning for each language, script or label if more than half of its documents were
    dropped for their quality. Documents that were dropped for other reasons do not count.
    """
    first, last = stages[0]["in"], stages[-1]["out"]
    reasons: Counter[str] = Counter()
    for stage in stages:
        for reason, size in stage["dropped"].items():
            reasons[reason] += size["documents"]
    pruned = ", ".join(f"{reason_title(name)} {n:,}" for name, n in reasons.most_common())
    yield (
        f"kept {last['documents']:,} of {first['documents']:,} documents "
        f"({last['bytes']:,} of {first['bytes']:,} bytes)"
        + (f"; left out: {pruned}" if pruned else "")
    )
    for what, names in counts.items():
        for name, entry in names.items():
            lost = poor[what][name]
            judged = entry["kept"] + lost
            if name and judged >= _MANY and 2 * lost > judged:
                yield (
                    f"warning: {what} {name} loses more than half for its quality: {lost:,} of "
                    f"{judged:,} documents; `climb dropped` shows them, --no-prune or a lower "
                    "--min-document-score keeps them"
                )
