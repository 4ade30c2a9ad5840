"""Quotas: the number of rows of each cluster in a batch; credit is kept for the next batch.

All arithmetic is on int64, so results are the same on every rank and machine, and for any number
of threads.
"""

from typing import Any

import numpy as np
from numba import njit

from climbstream.loader.formats.mixture import ONE

_SHIFT = ONE.bit_length() - 1
_FEW = 2_000
"""If a search needs fewer comparisons than this number, it takes less time than sorting."""


@njit(cache=True)
def allocate_rows(weights: Any, rows: Any, credit: Any) -> Any:
    """Divide ``rows`` rows among the clusters; return quotas, int64 ``[K]`` with sum ``rows``.

    ``weights`` is int64 ``[K]`` with sum `ONE`. ``credit``, int64 ``[K]`` with sum 0, is the rows
    that each cluster is owed because of earlier rounding, in units of row / `ONE`. ``credit`` is
    updated in place. A cluster of weight 0 gets no rows, and keeps its credit until it has weight
    again.
    """
    clusters = len(weights)
    quotas = np.zeros(clusters, np.int64)
    allocated = np.int64(0)
    for k in range(clusters):
        credit[k] += weights[k] * rows
        if weights[k] > 0:
            quotas[k] = max(np.int64(0), credit[k] >> _SHIFT)
        credit[k] -= quotas[k] << _SHIFT
        allocated += quotas[k]
    # This takes one pass, unless an earlier mixture left a cluster more than a row ahead.
    while allocated < rows:
        if (rows - allocated) * clusters < _FEW:
            # The cluster with the largest credit gets a row; of equal ones, the first.
            most = -1
            for k in range(clusters):
                if weights[k] > 0 and (most < 0 or credit[k] > credit[most]):
                    most = k
            quotas[most] += 1
            credit[most] -= ONE
            allocated += 1
            continue
        # Do the same for many rows at once. Of clusters with equal credit, the index in the key
        # puts the first cluster first.
        order = np.argsort(-credit * clusters + np.arange(clusters))
        for i in range(clusters):
            k = order[i]
            if allocated < rows and weights[k] > 0:
                quotas[k] += 1
                credit[k] -= ONE
                allocated += 1
    # After a change of weights, old credit can round to more rows than the batch has.
    while allocated > rows:
        least = -1
        for k in range(clusters):
            if quotas[k] > 0 and (least < 0 or credit[k] < credit[least]):
                least = k
        quotas[least] -= 1
        credit[least] += ONE
        allocated -= 1
    return quotas


@njit(cache=True)
def count_steps(weights: Any, rows: Any, count: Any, credit: Any, room: Any) -> Any:
    """Count the steps, at most ``count``, until a cluster has fewer rows left than its quota.

    ``weights`` is int64 ``[1 or count, K]``: one row for all steps or one per step. ``rows`` is the
    number of rows of a batch. ``room``, int64 ``[K]``, is the number of rows of each cluster that
    may still be served. ``credit`` and ``room`` are updated in place by the counted steps. Returns
    (quotas, number of steps). The quotas, int64 ``[K]``, are those of the first step that was not
    possible. If all steps were possible, the quotas are those of the last step.
    """
    quotas = np.zeros(len(room), np.int64)
    for done in range(count):
        shares = weights[min(done, len(weights) - 1)]
        quotas = allocate_rows(shares, rows, credit)
        if (quotas > room).any():
            for k in range(len(room)):
                credit[k] += quotas[k] * ONE - shares[k] * rows
            return quotas, done
        room -= quotas
    return quotas, count
