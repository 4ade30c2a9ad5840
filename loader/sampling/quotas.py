"""Which cluster comes next: integer quotas with carried credit, and which lane serves each row.

Everything is integer arithmetic on int64, the same on every rank, machine and thread count.
"""

from typing import Any

import numpy as np
from numba import njit

from climbstream.loader.core.permutation import permute
from climbstream.loader.formats.mixture import ONE

_SHIFT = ONE.bit_length() - 1
_FEW = 2_000
"""Comparisons that cost less than sorting."""


@njit(cache=True)
def draw_quotas(weights: Any, rows: Any, credit: Any) -> Any:
    """Share ``rows`` rows among the clusters; what is rounded away is carried in ``credit``.

    ``weights`` is int64 ``[K]`` with sum `ONE`. ``credit`` is int64 ``[K]`` with sum 0, in units of
    row / `ONE`, and is updated in place. Returns quotas, int64 ``[K]`` with sum ``rows``. A cluster
    of weight 0 gets none, and keeps its credit for when it has weight again.
    """
    clusters = len(weights)
    quotas = np.zeros(clusters, np.int64)
    given = np.int64(0)
    for k in range(clusters):
        credit[k] += weights[k] * rows
        if weights[k] > 0:
            quotas[k] = max(np.int64(0), credit[k] >> _SHIFT)
        credit[k] -= quotas[k] << _SHIFT
        given += quotas[k]
    # One pass but for clusters that an earlier mixture left more than a row ahead.
    while given < rows:
        if (rows - given) * clusters < _FEW:
            # Largest remainder, ties to the lowest cluster.
            most = -1
            for k in range(clusters):
                if weights[k] > 0 and (most < 0 or credit[k] > credit[most]):
                    most = k
            quotas[most] += 1
            credit[most] -= ONE
            given += 1
            continue
        # The same for many rows at once; the index in the key makes ties go to the lowest cluster.
        order = np.argsort(-credit * clusters + np.arange(clusters))
        for i in range(clusters):
            k = order[i]
            if given < rows and weights[k] > 0:
                quotas[k] += 1
                credit[k] -= ONE
                given += 1
    # After a change of weights, old credit can round to more rows than there are.
    while given > rows:
        least = -1
        for k in range(clusters):
            if quotas[k] > 0 and (least < 0 or credit[k] < credit[least]):
                least = k
        quotas[least] -= 1
        credit[least] += ONE
        given -= 1
    return quotas


@njit(cache=True)
def deal_lanes(quotas: Any, served: Any, lane_rows: Any, consumed: Any, secret: Any) -> Any:
    """Say for each row of a global batch its cluster, its lane, and its number within the two.

    Slot i of the batch belongs to lane ``(served + i) % C``, so every rank of a world size that
    divides C and the batch gets the same number of rows. A cluster's rows go to those lanes that
    have read the smallest part of what they own; lanes stay within a few rows of each other.

    ``quotas`` is int64 ``[K]``; ``served`` counts the rows before this batch; ``lane_rows``, int64
    ``[K, C]``, is what each lane owns; ``consumed``, int64 ``[K, C]``, what it has served, and is
    updated in place; ``secret`` keys the order within the batch. Returns int64 ``[B, 3]``.
    """
    lanes = consumed.shape[1]
    rows = quotas.sum()
    begin = served % lanes
    room = np.full(lanes, rows // lanes)
    for i in range(rows % lanes):
        room[(begin + i) % lanes] += 1
    left = room.copy()
    result = np.empty((rows, 3), np.int64)
    # The most uneven clusters choose first, so that none drifts; the others fill what is left.
    drawn = np.flatnonzero(quotas)
    spread = np.empty(len(drawn), np.float64)
    for i in range(len(drawn)):
        k = drawn[i]
        least, most = np.inf, -np.inf
        for lane in range(lanes):
            epochs = consumed[k, lane] / lane_rows[k, lane] if lane_rows[k, lane] else 0.0
            least, most = min(least, epochs), max(most, epochs)
        spread[i] = (most - least) * lane_rows[k].sum()
    for k in drawn[np.argsort(-spread, kind="mergesort")]:
        done, owned, first = consumed[k], lane_rows[k], k % lanes
        for _ in range(quotas[k]):
            best, lane = -1, first
            part, whole = np.int64(1), np.int64(0)  # (consumed + 1) and rows of `best`
            # Wrapped by hand, and without branches: a division, or a wrong guess of what comes
            # next, costs more than all else here.
            for _ in range(lanes):
                its_part, its_whole = done[lane] + 1, owned[lane]
                # The parts are compared by cross multiplication.
                better = (left[lane] > 0) & (its_part * whole < part * its_whole)
                best = lane if better else best
                part = its_part if better else part
                whole = its_whole if better else whole
                lane = lane + 1 if lane + 1 < lanes else 0
            turn = permute(room[best] - left[best], room[best], secret + np.uint64(best))
            slot = best - begin + (lanes if best < begin else 0) + turn * lanes
            result[slot, 0], result[slot, 1], result[slot, 2] = k, best, consumed[k, best]
            consumed[k, best] += 1
            left[best] -= 1
    return result
