"""Integer weights on the way from one mixture to another, and without some of the clusters.

All is exact int64 arithmetic: the same on every machine, and every row sums to `ONE`. What the
division leaves over goes to the largest remainders, ties to the lowest index, as in `Mixture`.
"""

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import ONE

MOST_STEPS = 10**9
"""Longest ramp, in steps: a remainder times a step still fits into an int64."""

_HALF = (ONE.bit_length() - 1) // 2


def interpolate(
    start: NDArray[np.int64], end: NDArray[np.int64], steps: int, at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Weights after ``at`` of ``steps`` steps on a straight line from ``start`` to ``end``.

    ``start`` and ``end`` are int64 ``[K]`` with sum `ONE`; ``at``, int64 ``[n]``, lies in 0 to
    ``steps``, at most `MOST_STEPS`. Returns int64 ``[n, K]``: ``start`` at 0, ``end`` at ``steps``,
    within one unit of the line between them, and 0 where both are.
    """
    change, at = end - start, at[:, np.newaxis]
    # change * at would not fit into 64 bits; its quotient and remainder do.
    done = change % steps * at
    return _give_out(start + change // steps * at + done // steps, done % steps)


def without_clusters(weights: NDArray[np.int64], out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Scale ``weights``, int64 ``[n, K]``, to `ONE` without the clusters ``out``, bool ``[K]``.

    A positive weight stays positive. A row of which nothing is left is 0 throughout.
    """
    kept = np.where(out, 0, weights)
    total = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    # kept * ONE / total takes two steps of 20 bits, as the product has 80 bits.
    high, rest = np.divmod(kept << _HALF, total)
    low, rest = np.divmod(rest << _HALF, total)
    return _give_out((high << _HALF) + low, rest)


def _give_out(weights: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add 1 to the largest of ``left`` in each row until it sums to `ONE`; never where it is 0."""
    missing = ONE - weights.sum(axis=1)
    clusters = weights.shape[1]
    # The index in the key makes all keys different, and keeps the order of equals.
    key = left * clusters + np.arange(clusters - 1, -1, -1)
    least = np.sort(key, axis=1)[np.arange(len(key)), -np.clip(missing, 1, clusters)]
    chosen = (key >= least[:, None]) & (left > 0) & (missing > 0)[:, None]
    result: NDArray[np.int64] = weights + chosen
    return result
