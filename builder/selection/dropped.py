"""Dropped documents: samples with their scores, and the part of each language that is kept."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import in_order, summed
from climbstream.builder.features.words import opening
from climbstream.builder.settings import SCORES
from climbstream.loader.formats.clusters import reason_title

from .reasons import REASONS, stays, why_of
from .selection import EXAMPLES, Selection

_LENGTH = 200
"""Largest number of characters of a sample."""
_MANY = 10
"""Least number of documents of a language, script or label for a warning that more than half of
them are dropped."""


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


def count_kept(selection: Selection) -> Counts:
    """Return, by language, script and label, the documents and bytes in total and kept."""
    counts: Counts = {"language": {}, "script": {}, "label": {}}
    summed(selection.engine, selection.partitions, _count_kept, _add_counts, counts)
    return {what: dict(sorted(names.items())) for what, names in counts.items()}


def _add_counts(counts: Counts, part: Counts) -> None:
    for what, names in part.items():
        for name, sizes in names.items():
            total = counts[what].setdefault(name, dict.fromkeys(sizes, 0))
            for measure, size in sizes.items():
                total[measure] += size


def _count_kept(partition: Partition) -> Counts:
    """Do `count_kept` for one partition."""
    kept, sizes = stays(partition), partition.read("sizes")
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
            }
    return counts


def summarize(stages: list[dict[str, Any]], counts: dict[str, Any]) -> Iterator[str]:
    """Yield lines that say how much is kept, and what is dropped for which reason.

    For each language, script or label of which more than half is dropped, one line is a warning.
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
            if name and entry["documents"] >= _MANY and 2 * entry["kept"] < entry["documents"]:
                yield (
                    f"warning: {what} {name} loses more than half: {entry['kept']:,} of "
                    f"{entry['documents']:,} documents stay; `climb dropped` shows the others, "
                    "--no-prune or a lower --min-document-score keeps them"
                )
