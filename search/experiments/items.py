"""Items of targets: their number and sizes, and the file of the scores of trials on each item.

An item is a document or a question. A trial is one mixture with the scores of a small model that
was trained on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from climbstream.loader.core.files import append_line, read_lines
from climbstream.loader.core.typed import Count, Finite, convert, located
from climbstream.search.evaluation.targets import Target, load_target, scored_texts
from climbstream.search.optimizer.items import ItemEvidence, TargetItems


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file of costs: the scores of one trial on each item, by target."""

    trial: Count
    costs: dict[str, list[Finite]]


def target_items(target: Target, half: Literal["validation", "test"] = "validation") -> TargetItems:
    """Return the number, sizes and unit of the items in one half of ``target``."""
    items = getattr(target, half)
    if target.measure == "error":
        sizes, unit = np.ones(len(items)), "of the answers wrong"
    else:
        sizes = np.array([len(text.encode()) for text in scored_texts(items)], np.float64)
        unit = "bits per byte"
    is_text = isinstance(items[0], str)
    return TargetItems(
        sizes=sizes,
        noun="documents" if is_text else "questions",
        unit=unit,
        bytes=int(sizes.sum()) if is_text else None,
        remedy=_remedy(target.name),
    )


def append_costs(path: Path, trial: int, costs: Mapping[str, Sequence[float]]) -> None:
    """Append the scores of a trial on each item, by target, as a line to the file at ``path``."""
    rounded = {target: [round(cost, 4) for cost in of] for target, of in costs.items()}
    append_line(path, {"trial": trial, "costs": rounded}, sync=False)


def read_evidence(directory: Path, targets: Sequence[str], path: Path) -> ItemEvidence:
    """Return the items of ``targets``, and the scores of trials on each item from ``path``.

    The file may be missing, or may lack trials, if an earlier version began the search.

    Raises:
        InvalidDataError: A line does not hold the scores of a trial.
    """

    def read(value: Any) -> _Line:
        return convert(value, _Line, "costs of a trial")

    numbered = enumerate(read_lines(path), start=1)
    lines = [located(read, value, f"{path}, line {number}") for number, value in numbered]
    return ItemEvidence(
        targets={spec: target_items(load_target(directory, spec)) for spec in targets},
        costs={line.trial: line.costs for line in lines},
    )


def _remedy(spec: str) -> str:
    """Return advice for a warning: how to give the target ``spec`` more items."""
    kind, _, name = spec.removeprefix("error=").partition("=")
    if kind in ("label", "cluster") and name:
        return "build with a larger --holdout, or give a file with more text of that kind"
    return "give it more items"
