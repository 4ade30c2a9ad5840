"""Items: the documents or questions of a target, and the error of a gain due to their choice.

A gain that is measured on seven documents says little about other documents, even with many seeds.
So the items are resampled with replacement, with the same draws for both mixtures. The sd of the
gain over these draws is the error of the gain due to the choice of items. This method is the
bootstrap (Efron and Tibshirani, chapter 8).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import counted
from climbstream.loader.formats.heldout import FEW_ITEMS

_DRAWS = 1_000
MIN_ITEMS = 5
"""Smallest number of items on which a gain may be called certain. If a mixture is better on each of
four items, this still happens by chance in 1 of 16 cases; with five items, in 1 of 32 (sign
test)."""


@dataclass(frozen=True, slots=True, eq=False)
class TargetItems:
    """The items on which one target is scored."""

    sizes: NDArray[np.float64]
    """UTF-8 bytes of each document or right answer, ``[items]``. All sizes are 1 if the score is
    the fraction of wrong answers."""
    noun: str = "items"
    """``documents`` or ``questions``."""
    unit: str = ""
    """Unit of a score, such as ``bits per byte``."""
    bytes: int | None = None
    """UTF-8 bytes of all documents; None for questions."""
    remedy: str = "give it more items"
    """Advice for the warning: how to give the target more items."""

    @property
    def text(self) -> str:
        """Number of items and amount of text, such as ``7 documents, 21 kB of text``."""
        count = len(self.sizes)
        text = f"{count:,} {self.noun if count != 1 else self.noun.removesuffix('s')}"
        return text if self.bytes is None else f"{text}, {_bytes_text(self.bytes)} of text"

    def warning(self, target: str) -> str:
        """Return a warning, with the remedy, if the items are too few; else ""."""
        if len(self.sizes) >= FEW_ITEMS:
            return ""
        return (
            f"only {self.text} score {target}, so errors and intervals are uncertain themselves; "
            f"have {FEW_ITEMS} {self.noun} or more: {self.remedy}"
        )

    @property
    def effective(self) -> float:
        """Number of items of equal size that would cause the same error as these items (Kish)."""
        total = float(self.sizes.sum())
        return total**2 / max(float((self.sizes**2).sum()), 1e-300)

    def score_sd(self, costs: NDArray[np.float64]) -> float:
        """Return the sd of the score of one model due to the choice of items.

        ``costs`` is the cost of each item, ``[items]``. With a single item the sd is 0.
        """
        return self.gain_sd(np.zeros((1, len(costs))), costs[None])

    def gain_sd(self, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
        """Return the sd of the gain of ``ours`` over ``theirs`` due to the choice of items.

        ``ours`` and ``theirs`` are the costs of two mixtures, each ``[runs, items]``: one cost for
        each run and item. With a single item the sd is 0, because one item shows no variation.
        """
        gains, count = theirs.mean(axis=0) - ours.mean(axis=0), len(self.sizes)
        if count < 2:
            return 0.0
        rng = np.random.default_rng(count)
        means = np.empty(_DRAWS)
        for number in range(_DRAWS):
            drawn = rng.integers(count, size=count)
            means[number] = gains[drawn].sum() / max(self.sizes[drawn].sum(), 1e-300)
        return float(means.std()) * math.sqrt(count / (count - 1))


def with_few_items(targets: Mapping[str, TargetItems]) -> dict[str, TargetItems]:
    """Return those of ``targets``, by name, on which no gain is called certain: see `MIN_ITEMS`."""
    return {name: items for name, items in targets.items() if len(items.sizes) < MIN_ITEMS}


def objection(few: Mapping[str, TargetItems]) -> str:
    """Return why no gain on the targets ``few`` is called certain, with the remedy.

    ``few`` is as `with_few_items` returns it. If ``few`` is empty, the result is "".
    """
    if not few:
        return ""
    many = next(iter(few.values())).noun
    counts = " and ".join(
        f"{name} has only {counted(len(items.sizes), items.noun.removesuffix('s'), items.noun)}"
        for name, items in few.items()
    )
    remedies = "; ".join(dict.fromkeys(items.remedy for items in few.values()))
    return (
        f"But {counts} to score, too few to tell whether other {many} gain as well. Only a gain on "
        f"{MIN_ITEMS} {many} or more is called certain: {remedies}."
    )


@dataclass(frozen=True, slots=True)
class ItemEvidence:
    """The items of the targets, and the scores of trials on each item."""

    targets: Mapping[str, TargetItems] = field(default_factory=dict)
    """The items by target."""
    costs: Mapping[int, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """Cost of each item by trial number and target. The cost is the bits of the item; or, if wrong
    answers are counted, 1 for a wrong answer and 0 for a right answer."""

    def gain_sd(self, target: str, ours: Sequence[int], theirs: Sequence[int]) -> float | None:
        """Return the sd of the gain of ``ours`` over ``theirs`` due to the choice of items.

        ``ours`` and ``theirs`` are numbers of trials. The result is None if the costs of the items
        are unknown for a trial, if a trial has another number of items than the target, or if the
        target has a single item, because one item shows no variation.
        """
        items = self.targets.get(target)
        rows = [[self.costs.get(n, {}).get(target, ()) for n in side] for side in (ours, theirs)]
        if items is None or len(items.sizes) < 2 or not (ours and theirs):
            return None
        if any(len(row) != len(items.sizes) for side in rows for row in side):
            return None
        return items.gain_sd(np.array(rows[0], np.float64), np.array(rows[1], np.float64))


def _bytes_text(count: int) -> str:
    """Return a number of bytes as text with a unit.

    >>> _bytes_text(950), _bytes_text(20_600), _bytes_text(3_400_000)
    ('950 bytes', '21 kB', '3.4 MB')
    """
    if count < 1_000:
        return f"{count} bytes"
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
