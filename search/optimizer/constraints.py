"""WeightConstraints: limits of weights, to which mixtures are adapted.

Every mixture that a search proposes, and its answer, is within the limits. In this module, mixtures
are the rows of a float64 array ``[n, K]``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.search.predictors.base import Floats

_NOTHING = 1e-300
"""Weights up to this number count as 0, because a division by such a weight would overflow."""
_ROOM = 1e-12
"""Tolerance of comparisons of sums of weights."""
_LAST = 1e-9
"""Start weight, as a fraction of the prior, of a cluster that is not in a mixture. The start weight
is so small that it grows only if all clusters of the mixture are at their limits."""


class Group(NamedTuple):
    """Clusters with a lower and an upper limit for the sum of their weights."""

    clusters: Sequence[str]
    """Names of the clusters."""
    least: float = 0.0
    """Least sum of their weights."""
    most: float = 1.0
    """Largest sum of their weights."""


@dataclass(frozen=True, slots=True)
class WeightConstraints:
    """Limits of the weight of each cluster, and of the sum of weights of each group."""

    low: Floats
    """Least weight of each cluster, ``[K]``."""
    high: Floats
    """Largest weight of each cluster, ``[K]``; 0 for clusters without tokens."""
    prior: Floats
    """Shares of the clusters, ``[K]``, sum 1. They are used only if all clusters with a weight
    above 0 in a mixture are at their largest weights. Then clusters with weight 0 get the rest of
    the weight, in the ratio of these shares."""
    members: NDArray[np.int64]
    """Index of the group of each cluster, ``[K]``. A cluster that was put into no group is a group
    by itself."""
    least: Floats
    """Least sum of the weights of each group, ``[G]``."""
    most: Floats
    """Largest sum of the weights of each group, ``[G]``."""

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        prior: Floats,
        *,
        min_weight: Mapping[str, float] | None = None,
        max_weight: float | Mapping[str, float] | None = None,
        pinned: Mapping[str, float] | None = None,
        groups: Mapping[str, Group] | None = None,
    ) -> Self:
        """Make constraints from limits by name; see `Search` for the meaning of the limits.

        Raises:
            UsageError: A name is unknown or in two groups, or no mixture is within the limits.
        """
        if isinstance(max_weight, int | float):
            max_weight = dict.fromkeys(names, float(max_weight))
        pinned, groups = dict(pinned or {}), dict(groups or {})
        low = by_name("min_weight", min_weight or {}, names, 0.0)
        high = np.minimum(by_name("max_weight", max_weight or {}, names, 1.0), 1.0)
        fixed = by_name("pinned", pinned, names, 0.0)
        is_pinned = np.array([name in pinned for name in names])
        low, high = np.where(is_pinned, fixed, low), np.where(is_pinned, fixed, high)
        high = np.where(prior > 0, high, 0.0)
        _check_weights(names, prior, low, high)
        members, rows = _group_members(names, groups)
        least = np.bincount(members, low).astype(np.float64)
        most = np.bincount(members, high).astype(np.float64)
        for (name, group), row in zip(groups.items(), rows, strict=True):
            low_sum, high_sum = max(group.least, least[row]), min(group.most, most[row])
            if low_sum > high_sum + _ROOM:
                raise UsageError(
                    f"the weights of group {name} must sum to {low_sum:.4g} or more and can sum to "
                    f"{high_sum:.4g} at most; change the limits of the group or of its clusters"
                )
            least[row], most[row] = low_sum, high_sum
        _check_sums(least, most, int((prior > 0).sum()))
        return cls(low, high, prior, members, least, most)

    def project(self, weights: Floats) -> Floats:
        """Return the mixtures ``weights`` (``[n, K]``), changed so that they are within the limits.

        Weight above the limit of a cluster is distributed over the other clusters of the mixture,
        in proportion to their weights. So the ratios of these weights are kept, and zeros stay
        zero. If all clusters of the mixture reach their limits, the rest is distributed over
        clusters with weight 0, in proportion to their prior. Mixtures within the limits are not
        changed.
        """
        result = np.array(weights)
        within = (weights >= self.low).all(axis=1) & (weights <= self.high).all(axis=1)
        sums = self._sums(weights)
        within &= (sums >= self.least).all(axis=1) & (sums <= self.most).all(axis=1)
        if within.all():
            return result
        rows = weights[~within]
        # Clusters of weight 0 get weight only if the clusters of the row are at their limits.
        room = np.minimum(self._sums(np.where(rows > 0, self.high, self.low)), self.most)
        short = (room.sum(axis=1) < 1 - _ROOM) | (room < self.least).any(axis=1)
        rows[short] += np.where(rows[short] > 0, 0.0, _LAST * self.prior)
        room = np.minimum(self._sums(np.where(rows > 0, self.high, self.low)), self.most)
        totals = fill(self._sums(rows), self.least, room, np.ones(len(rows)))
        if len(self.least) == rows.shape[1]:
            result[~within] = totals
            return result
        for group in range(len(self.least)):
            inside = self.members == group
            part = fill(rows[:, inside], self.low[inside], self.high[inside], totals[:, group])
            rows[:, inside] = part
        result[~within] = rows
        return result

    def _sums(self, weights: Floats) -> Floats:
        """Return the sum of the weights of each group: ``[n, G]``."""
        if len(self.least) == weights.shape[1]:
            return weights
        inside = self.members[:, None] == np.arange(len(self.least))
        return np.asarray(weights @ inside.astype(np.float64), np.float64)

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the limits by cluster and group as JSON values; ``names`` are the clusters."""
        groups = {
            ",".join(np.array(names)[self.members == group]): [least, most]
            for group, (least, most) in enumerate(
                zip(self.least.tolist(), self.most.tolist(), strict=True)
            )
            if (self.members == group).sum() > 1
        }
        return {
            "min_weight": dict(zip(names, self.low.tolist(), strict=True)),
            "max_weight": dict(zip(names, self.high.tolist(), strict=True)),
            "groups": groups,
        }


def _check_weights(names: Sequence[str], prior: Floats, low: Floats, high: Floats) -> None:
    """Raise `UsageError` for the first cluster whose least weight exceeds its largest weight."""
    if (wrong := low > high).any():
        i = int(np.argmax(wrong))
        why = "" if prior[i] > 0 else ", because the cluster has no tokens"
        raise UsageError(
            f"the weight of {names[i]} must be {low[i]:g} or more and can be {high[i]:g} at "
            f"most{why}; change min_weight, pinned or max_weight"
        )


def _group_members(
    names: Sequence[str], groups: Mapping[str, Group]
) -> tuple[NDArray[np.int64], list[int]]:
    """Return the group index of each cluster, ``[K]``, and the group index of each of ``groups``.

    A cluster that is in none of ``groups`` is a group by itself.

    Raises:
        UsageError: A cluster is unknown or in two groups.
    """
    members = np.arange(len(names))
    for number, (name, group) in enumerate(groups.items()):
        by_name(f"group {name}", dict.fromkeys(group.clusters, 1.0), names, 0.0)
        rows = [list(names).index(cluster) for cluster in group.clusters]
        if twice := [names[row] for row in rows if members[row] != row]:
            raise UsageError(f"{', '.join(twice)} is in group {name} and in another one")
        members[rows] = len(names) + number
    kept, members = np.unique(members, return_inverse=True)
    return members, np.searchsorted(kept, len(names) + np.arange(len(groups))).tolist()


def _check_sums(least: Floats, most: Floats, live: int) -> None:
    """Raise `UsageError` if no weights of ``live`` clusters within the limits sum to 1."""
    if (room := math.fsum(most)) < 1 - _ROOM:
        raise UsageError(
            f"the largest weights of the {live} clusters with a prior sum to {room:.4g}, and a "
            f"mixture sums to 1; raise max_weight to a mean of at least {1 / live:.4g}, or the "
            "upper limit of a group"
        )
    if (need := math.fsum(least)) > 1 + _ROOM:
        raise UsageError(
            f"the least weights sum to {need:.4g}, and a mixture sums to 1; lower min_weight, "
            "pinned weights, or the lower limit of a group"
        )


def fill(weights: Floats, low: Floats, high: Floats, total: Floats) -> Floats:
    """Return ``clip(level * weights, low, high)``, with one level per row.

    The level of a row is chosen so that the row of the result sums to the ``total`` of the row. If
    no level is high enough, all clusters with weight above 0 get ``high``.

    Args:
        weights: ``[n, K]``.
        low: ``[K]``.
        high: ``[K]`` or ``[n, K]``.
        total: ``[n]``.

    Returns:
        float64 ``[n, K]``.
    """
    some = weights > _NOTHING
    weights = np.where(some, weights, 0.0)
    high = np.broadcast_to(high, weights.shape)
    ends = np.divide(high, weights, out=np.zeros(weights.shape), where=some).max(axis=1)
    # Bounds of the logarithm of the level. At the lower bound, all weights are at ``low``; at the
    # upper bound, all weights are at ``high``.
    below, above = np.full(len(weights), -60.0), np.log(ends + 1e-300)
    for _ in range(60):
        middle = (below + above) / 2
        sums = np.clip(np.exp(middle)[:, None] * weights, low, high).sum(axis=1)
        below, above = (
            np.where(sums < total, middle, below),
            np.where(sums < total, above, middle),
        )
    level = np.exp(above)[:, None] * weights
    # Now it is known which clusters are between their limits; so compute the level exactly.
    full = some & (level >= high)
    open_ = some & (level > low) & ~full
    held = np.where(full, high, np.where(open_, 0.0, low)).sum(axis=1)
    growing = np.where(open_, weights, 0.0).sum(axis=1)
    rise = np.divide(total - held, growing, out=np.zeros(len(weights)), where=growing > 0)
    return np.clip(np.where(open_, rise[:, None] * weights, np.where(full, high, low)), low, high)


def epoch_caps(
    tokens: Mapping[str, int], final_tokens: int | None, max_epochs: float
) -> dict[str, float]:
    """Return the weight with which a final run reads each cluster ``max_epochs`` times, by name.

    The final run has ``final_tokens`` tokens. ``tokens`` has the number of tokens of each cluster.
    A weight is at most 1. If ``final_tokens`` is None, all weights are 1.
    """
    if final_tokens is None:
        return dict.fromkeys(tokens, 1.0)
    return {name: min(1.0, max_epochs * held / final_tokens) for name, held in tokens.items()}


def by_name(
    what: str, numbers: Mapping[str, float], names: Sequence[str], default: float = 1.0
) -> Floats:
    """Return one number for each of ``names``, float64 ``[len(names)]``.

    ``what`` is the name of the setting in errors. A name that ``numbers`` lacks gets ``default``.

    Raises:
        UsageError: A name is unknown, or a number is negative or NaN.
    """
    if unknown := [name for name in numbers if name not in names]:
        raise UsageError(
            f"{what} names {', '.join(unknown)}; the possible names are {', '.join(names)}"
        )
    values = np.array([numbers.get(name, default) for name in names], np.float64)
    if not (values >= 0).all():
        raise UsageError(f"{what} must have numbers of 0 or more, not {dict(numbers)}")
    return values
