"""Quotas: the number of rows of each cluster in a batch.

A quota is a whole number, but the share of a cluster is usually not. The difference is the credit
of the cluster, which the next batch makes up for.

All arithmetic is on int64, so results are the same on every rank and machine, and for any number
of threads.
"""

from typing import Any

import numpy as np
from numba import njit

from climbstream.loader.formats.mixture import ONE

_SHIFT = ONE.bit_length() - 1
_FEW = 2_000
"""Number of comparisons below which a search for the largest credits is faster than sorting."""


@njit(cache=True)
def allocate_rows(weights: Any, rows: Any, credit: Any) -> Any:
    """Divide ``rows`` rows among the clusters; return quotas, int64 ``[K]`` with sum ``rows``.

    A cluster of weight 0 gets no rows, and keeps its credit until it has weight again.

    Args:
        weights: Weights of the clusters, int64 ``[K]`` with sum `ONE`.
        rows: Number of rows of the batch.
        credit: Number of rows that each cluster is owed because earlier quotas were rounded, in
            units of 1 / `ONE` of a row, int64 ``[K]`` with sum 0; updated in place.
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
    # Give out the rows that are left after rounding down. To sort once is enough, unless a cluster
    # is more than a row ahead because of an earlier mixture.
    while allocated < rows:
        if (rows - allocated) * clusters < _FEW:
            # The cluster with the largest credit gets a row; of equal credits, the first cluster.
            most = -1
            for k in range(clusters):
                if weights[k] > 0 and (most < 0 or credit[k] > credit[most]):
                    most = k
            quotas[most] += 1
            credit[most] -= ONE
            allocated += 1
            continue
        # Do the same for many rows at once. The index in the sort key puts the first cluster first
        # if credits are equal.
        order = np.argsort(-credit * clusters + np.arange(clusters))
        for i in range(clusters):
            k = order[i]
            if allocated < rows and weights[k] > 0:
                quotas[k] += 1
                credit[k] -= ONE
                allocated += 1
    # After a change of weights, clusters may have so much credit that quotas exceed the batch.
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
    """Return (quotas, number of steps that are possible, at most ``count``).

    A step is possible if no cluster has fewer rows left than its quota. The quotas, int64 ``[K]``,
    are those of the first step that is not possible. If all steps are possible, the quotas are
    those of the last step.

    Args:
        weights: Weights of the clusters, int64 ``[1 or count, K]`` with sum `ONE`: one row for all
            steps or one row per step.
        rows: Number of rows of a batch.
        count: Largest number of steps.
        credit: Credit of each cluster, as in `allocate_rows`; updated in place.
        room: Number of rows of each cluster that may still be served, int64 ``[K]``; updated in
            place.
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
