"""Selection: decides which documents stay, and why others are dropped.

A partition is a part of the corpus, on which one task works. Tasks read and write arrays with one
value per document, which are stored in the partitions. The main process has only sums in
memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import each
from climbstream.loader.core.engines.engine import Engine

from .reasons import REASONS, RESERVED, stays_until, why_of

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by which one stage drops documents."""

    stage: str
    reasons: tuple[str, ...]
    """The reasons, all of them in `REASONS`, for which the rule may drop a document."""
    find: Callable[[Partition], NDArray[np.str_]]
    """Function that returns the reason to drop each document of a partition, ``[n]``; it can be
    pickled."""


@dataclass(slots=True)
class Loss:
    """How many documents and bytes entered a stage, and how many it dropped for each reason."""

    before: Counter[str]
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    """The first document that was dropped for each reason."""


@dataclass(slots=True)
class Selection:
    """Sums of what was kept and dropped; values per document are in the partitions.

    Each partition has ``why`` uint8 ``[n]``: the reason why each document is dropped, as an index
    in `REASONS`.
    """

    engine: Engine
    partitions: Sequence[Partition]
    work: Path
    """Folder for the files that tasks exchange."""
    spared: tuple[str, ...] = ()
    """Identifiers of documents that are dropped only by the first stage, which compares
    identifiers, or for a reason in `RESERVED`."""
    reasons: list[str] = field(default_factory=list)
    """Reasons why documents were dropped, in the order in which they first occurred."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """For each stage, the documents and bytes that entered it, left it, and were dropped in it."""
    _counts: list[int] = field(default_factory=list)

    def each(self, function: Callable[[Partition], R]) -> Iterator[R]:
        """Call ``function`` for each partition, in tasks; yield the results in order."""
        return each(self.engine, self.partitions, function)

    def counts(self) -> list[int]:
        """Return the number of documents of each partition, including dropped documents."""
        if not self._counts:
            self._counts += self.each(_count)
        return self._counts

    def drop(self, *rules: Rule) -> None:
        """Drop documents by ``rules``, one stage per rule."""
        function = partial(drop_by_rules, rules=rules, spared=self.spared)
        self.add(rules, self.each(function))

    def add(self, rules: Sequence[Rule], losses: Iterable[Sequence[Loss]]) -> None:
        """Add up how many documents each rule dropped.

        ``losses`` has, for each partition, one `Loss` per rule.
        """
        sums = [Loss(Counter()) for _ in rules]
        for parts in losses:
            for total, part in zip(sums, parts, strict=True):
                total.before += part.before
                total.examples = {**part.examples, **total.examples}
                for reason, size in part.dropped.items():
                    total.dropped.setdefault(reason, Counter()).update(size)
        for rule, total in zip(rules, sums, strict=True):
            self.reasons += total.dropped
            self.stages.append(_stage(rule.stage, total))


def _count(partition: Partition) -> int:
    return len(partition.read("sizes", mapped=True))


def _stage(name: str, loss: Loss) -> dict[str, Any]:
    """Return the counts of a stage, for the manifest."""
    lost = sum(loss.dropped.values(), Counter[str]())
    measures = ("documents", "bytes")
    return {
        "stage": name,
        "in": {measure: loss.before[measure] for measure in measures},
        "out": {measure: loss.before[measure] - lost[measure] for measure in measures},
        "dropped": {reason: dict(loss.dropped[reason]) for reason in sorted(loss.dropped)},
        **({"examples": dict(sorted(loss.examples.items()))} if loss.examples else {}),
    }


def drop_by_rules(partition: Partition, rules: Sequence[Rule], spared: Sequence[str]) -> list[Loss]:
    """Apply ``rules`` to one partition; return what each of them dropped.

    The task may run again after an interruption. So first, all documents are restored that an
    earlier run dropped by these rules or by later rules.
    """
    why = np.where(stays_until(partition, rules[0].reasons[0]), 0, why_of(partition))
    sizes = partition.read("sizes")
    kept = np.isin(partition.column("id"), spared) if spared else np.zeros(len(why), np.bool_)
    losses = []
    for rule in rules:
        staying = why == 0
        loss = Loss(size_of(sizes, staying))
        reasons = rule.find(partition)
        for reason in sorted(rule.reasons):
            now = staying & (reasons == reason) & ~(kept & (reason not in RESERVED))
            if now.any():
                why[now] = REASONS.index(reason)
                loss.dropped[reason] = size_of(sizes, now)
                loss.examples[reason] = _name(partition, int(np.flatnonzero(now)[0]))
        losses.append(loss)
    partition.write("why", why.astype(np.uint8))
    return losses


def _name(partition: Partition, row: int) -> str:
    """Return the identifier and the place of a document, as one text."""
    document = partition.columns("id", "origin").slice(row, 1).to_pylist()[0]
    name, origin = document["id"], document["origin"]
    return origin if name == origin else f"{name}, {origin}"


def size_of(sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> Counter[str]:
    """Return the number of documents that ``mask`` marks, and the total of their ``sizes``."""
    return Counter({"documents": int(mask.sum()), "bytes": int(sizes[mask].sum())})
