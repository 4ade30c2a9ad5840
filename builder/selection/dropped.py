"""Dropped: samples of what was left out, with scores; and what each language has left."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from climbstream.builder.features.words import opening
from climbstream.builder.settings import SCORES

from .selection import Selection

_SHOWN = 12
"""Documents that are shown for each reason."""
_LENGTH = 200
"""Characters of each."""
_MANY = 10
"""Documents of a language, script or label from which a loss of more than half is told."""


def sample_dropped(selection: Selection, shown: int = _SHOWN) -> dict[str, list[dict[str, Any]]]:
    """Show some documents for each reason: ``id``, ``text`` as it begins, ``micro``, and scores."""
    samples: dict[str, list[dict[str, Any]]] = {reason: [] for reason in selection.reasons[1:]}
    for partition, why in zip(selection.partitions, selection.why, strict=True):
        for code, reason in enumerate(selection.reasons[1:], start=1):
            rows = np.flatnonzero(why == code)[: shown - len(samples[reason])]
            if not len(rows):
                continue
            scores, micro = partition.read("scores")[rows], partition.read("micro")[rows]
            documents = partition.columns("id", "text").take(rows).to_pylist()
            for i, document in enumerate(documents):
                numbers = dict(zip(SCORES, scores[i].round(2).tolist(), strict=True))
                text = opening(document["text"], _LENGTH)
                samples[reason].append(
                    {"id": document["id"], "text": text, "micro": int(micro[i]), **numbers}
                )
    return samples


def count_kept(selection: Selection) -> dict[str, dict[str, dict[str, int]]]:
    """Count documents and bytes, and those that are kept, by language, script and label."""
    counts: dict[str, dict[str, dict[str, int]]] = {"language": {}, "script": {}, "label": {}}
    for number, partition in enumerate(selection.partitions):
        kept, sizes = selection.stays(number), partition.read("sizes")
        languages = partition.read("languages")
        labels = np.array(partition.column("label"))
        for what, names in (
            ("language", languages[:, 0]),
            ("script", languages[:, 1]),
            ("label", labels),
        ):
            for name in np.unique(names).tolist():
                mine = names == name
                entry = counts[what].setdefault(
                    name, {"documents": 0, "bytes": 0, "kept": 0, "kept_bytes": 0}
                )
                entry["documents"] += int(mine.sum())
                entry["bytes"] += int(sizes[mine].sum())
                entry["kept"] += int((mine & kept).sum())
                entry["kept_bytes"] += int(sizes[mine & kept].sum())
    return {what: dict(sorted(names.items())) for what, names in counts.items()}


def summarize(stages: list[dict[str, Any]], counts: dict[str, Any]) -> Iterator[str]:
    """Say how much is kept, what was left out and why, and who loses more than half."""
    first, last = stages[0]["in"], stages[-1]["out"]
    reasons: Counter[str] = Counter()
    for stage in stages:
        for reason, size in stage["dropped"].items():
            reasons[reason] += size["documents"]
    pruned = ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common())
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
