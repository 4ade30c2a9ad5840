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
    """Log how many named documents stay and how many do not.

    A name may be the identifier of several documents, for example of different files, or of none.
    Such names are logged too.

    In an append (not ``new``), names without a document are not counted, because they may be names
    of documents of the build.
    """
    if not selection.spared:
        return
    names: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for kept, dropped in selection.each(partial(_find_named, names=selection.spared)):
        names.update(kept)
        reasons += dropped
    logger.info(f"  --keep-ids keeps {counted(names.total(), 'document')} that it names")
    if several := [name for name, n in names.items() if n > 1]:
        logger.warning(
            f"  --keep-ids: {counted(len(several), 'identifier')} "
            f"{'is that' if len(several) == 1 else 'are those'} of several documents, which all "
            f"stay (the first: {several[0]}, {names[several[0]]:,} documents)"
        )
    if reasons:
        why = ", ".join(f"{reason_title(reason)} {n:,}" for reason, n in reasons.most_common())
        documents = counted(reasons.total(), "document")
        logger.warning(f"  --keep-ids cannot keep {documents} that it names: {why}")
    if new and (unknown := [name for name in selection.spared if name not in names]):
        logger.warning(
            f"  --keep-ids: {len(unknown):,} of {counted(len(selection.spared), 'identifier')} "
            f"belong to no document (the first: {unknown[0]})"
        )


def _find_named(partition: Partition, names: tuple[str, ...]) -> tuple[Counter[str], Counter[str]]:
    """Count the documents of a partition with one of ``names``: kept by name, dropped by reason.

    A name of which all documents are dropped has the count 0.
    """
    ids = partition.column("id")
    rows = np.flatnonzero(np.isin(ids, names))
    why = why_of(partition)[rows]
    kept: Counter[str] = Counter()
    for row, code in zip(rows.tolist(), why.tolist(), strict=True):
        kept[ids[row]] += code == 0
    return kept, Counter(REASONS[code] for code in why[why > 0].tolist())
