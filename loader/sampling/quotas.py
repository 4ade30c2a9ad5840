"""Rows of each cluster in a batch: integer quotas with carried credit.

Everything is integer arithmetic on int64, the same on every rank, machine and thread count.
"""

from typing import Any

import numpy as np
from numba import njit

from climbstream.loader.formats.mixture import ONE

_SHIFT = ONE.bit_length() - 1
_FEW = 2_000
"""Number of comparisons that cost less than sorting."""


@njit(cache=True)
def allocate_rows(weights: Any, rows: Any, credit: Any) -> Any:
    """Share ``rows`` rows among the clusters; ``credit`` carries what is rounded away.

    ``weights`` is int64 ``[K]`` with sum `ONE`. ``credit`` is int64 ``[K]`` with sum 0, in units of
    row / `ONE`, and is updated in place. Returns quotas, int64 ``[K]`` with sum ``rows``. A cluster
    of weight 0 gets none, and keeps its credit for when it has weight again.
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
    # One pass, unless an earlier mixture left a cluster more than a row ahead.
    while allocated < rows:
        if (rows - allocated) * clusters < _FEW:
            # Largest remainder first; ties go to the lowest cluster.
            most = -1
            for k in range(clusters):
                if weights[k] > 0 and (most < 0 or credit[k] > credit[most]):
                    most = k
            quotas[most] += 1
            credit[most] -= ONE
            allocated += 1
            continue
        # The same for many rows at once; the index in the key breaks ties for the lowest cluster.
        order = np.argsort(-credit * clusters + np.arange(clusters))
        for i in range(clusters):
            k = order[i]
            if allocated < rows and weights[k] > 0:
                quotas[k] += 1
                credit[k] -= ONE
                allocated += 1
    # After a change of weights, old credit can round to more rows than there are.
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
    """Count the steps, at most ``count``, in which every cluster has the rows that are its share.

    ``weights`` are int64 ``[1 or count, K]``, a row a step or one for all; ``room`` is int64
    ``[K]``, rows that each cluster may still serve. ``credit`` and ``room`` are updated in place,
    up to the last of these steps. Returns the quotas of the step that was looked at last, and the
    number of steps.
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
