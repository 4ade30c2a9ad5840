"""Named documents: report what happened to the documents that the setting ``keep_ids`` names."""

from collections import Counter
from functools import partial

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.console import counted
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.clusters import reason_title

from .reasons import REASONS, why_of
from .selection import Selection

logger = get_logger(__name__)


def tell_named(selection: Selection, *, new: bool) -> None:
    """Log how many named documents are still left out, and how many names match no document.

    In an append (not ``new``), names without a document are not counted, because they may be names
    of documents of the build.
    """
    if not selection.spared:
        return
    names: set[str] = set()
    reasons: Counter[str] = Counter()
    for found, dropped in selection.each(partial(_find_named, names=selection.spared)):
        names |= found
        reasons += dropped
    if reasons:
        why = ", ".join(f"{reason_title(reason)} {n:,}" for reason, n in reasons.most_common())
        documents = counted(reasons.total(), "document")
        logger.warning(f"  --keep-ids cannot keep {documents} that it names: {why}")
    if new and (unknown := [name for name in selection.spared if name not in names]):
        logger.warning(
            f"  --keep-ids: {len(unknown):,} of {counted(len(selection.spared), 'identifier')} "
            f"belong to no document (the first: {unknown[0]})"
        )


def _find_named(partition: Partition, names: tuple[str, ...]) -> tuple[set[str], Counter[str]]:
    """Return the ``names`` that occur in a partition, and count those dropped, by reason."""
    ids = partition.column("id")
    rows = np.flatnonzero(np.isin(ids, names))
    why = why_of(partition)[rows]
    reasons = Counter(REASONS[code] for code in why[why > 0].tolist())
    return {ids[row] for row in rows}, reasons
