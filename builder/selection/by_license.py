"""Licences: count the documents that a build keeps, and those that it drops, by licence."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.licenses import NOT, OTHERS, is_kept
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.licenses import license_name

from .reasons import LICENSE, REASONS, why_of

logger = get_logger(__name__)

_NAMED = 100
"""Maximum number of licences that are counted by name: the most frequent ones. All others are
counted together."""
_SHOWN = 5

Counts = dict[str, Counter[str]]
"""Number of documents, and of their bytes or tokens, by licence."""


def count_by_license(stated: Sequence[str], sizes: NDArray[Any], unit: str, counts: Counts) -> None:
    """Add documents to ``counts``, by the licences that the documents state.

    ``sizes``, ``[n]``, are the sizes of the documents in ``unit``: ``bytes`` or ``tokens``.
    """
    for name, size in zip(map(license_name, stated), sizes.tolist(), strict=True):
        count = counts.setdefault(name, Counter())
        count["documents"] += 1
        count[unit] += size


def count_licenses(partition: Partition) -> tuple[Counts, Counts]:
    """Return two counts by licence: of documents that stay, and of those dropped for a licence."""
    why, sizes = why_of(partition), partition.read("sizes")
    stated = partition.columns("license")["license"]
    counts: tuple[Counts, Counts] = {}, {}
    for count, code in zip(counts, (0, REASONS.index(LICENSE)), strict=True):
        rows = np.flatnonzero(why == code)
        count_by_license(stated.take(rows).to_pylist(), sizes[rows], "bytes", count)
    return counts


def most_frequent(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Return the counts of the most frequent licences; all others are counted as `OTHERS`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1]["documents"], item[0]))
    named = {name: dict(count) for name, count in ordered[:_NAMED]}
    if rest := sum((count for _, count in ordered[_NAMED:]), Counter[str]()):
        named[OTHERS] = dict(rest)
    return named


def tell_licenses(kept: Counts, dropped: Counts) -> None:
    """Log, for each licence that is left out, how many documents were dropped for it."""
    if dropped:
        logger.info(f"  documents left out by licence: {_listed(dropped)}")
    elif kept:
        logger.info("  no document is left out by its licence")


def check_names(names: Iterable[str], kept: Counts, dropped: Counts) -> None:
    """Log a warning for each licence in the settings that no document states.

    Raises:
        InvalidDataError: No document is kept; the message lists the corpus's licences.
    """
    if not kept:
        raise InvalidDataError(
            f"--licenses keeps no document. The documents are under {_listed(dropped)}; name one "
            "of these"
        )
    for name in names:
        if all(is_kept([one], [name])[0] == name.startswith(NOT) for one in {**kept, **dropped}):
            logger.warning(f"  no document is under the licence {name.removeprefix(NOT)}")


def _listed(counts: Counts) -> str:
    documents = Counter({name: count["documents"] for name, count in counts.items()})
    names = [f"{name} {n:,}" for name, n in documents.most_common(_SHOWN)]
    more = len(counts) - _SHOWN
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
