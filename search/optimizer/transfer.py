"""Transfer: trials of a search, told as trials over other clusters of the same cells.

Within a cluster every token is as likely as any other. So a mixture of clusters is one of their
cells, and the weights of its cells add up to a mixture of other clusters. That mixture has the same
cells if no other cluster cuts one of the former; else it is near, and `carry` says how near.

A trial whose mixture is only near counts apart: it is no measurement of a mixture of the new
clusters, but predictors learn from it. They see each mixture, old or new, as its shares in the
clusters of both searches, which its cells decide: see `Columns`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from climbstream.loader.core.typed import Finite, convert
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Floats
from climbstream.search.predictors.gaussian_process import Feature, GaussianProcess

from .trials import Trial

Parts = Mapping[str, Mapping[str, float]]
"""Tokens of each cell of each cluster, by the names of both."""

_MOST_LOST = 0.1
"""Largest fraction of the tokens of a measured mixture that may come from other cells by the new
one: cells of a group grow by other factors when documents are added."""
_FEWEST = 8
"""Number of trials of each kind from which on their levels are compared by a fit."""
_SAME = 1e-9
"""Largest difference between weights of one mixture, and between shares of one cluster."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which tokens the clusters of two searches have in common; the log of trials keeps it."""

    to_new: dict[str, dict[str, Finite]]
    """Share of the tokens of each old cluster in each new one that has some of them."""
    to_old: dict[str, dict[str, Finite]]
    """Share of the tokens of each new cluster in each old one that has some of them."""

    @classmethod
    def of(cls, old: Parts, new: Parts) -> Self:
        """Compare clusters by their cells.

        >>> Overlap.of({"a": {"x": 1, "y": 3}}, {"b": {"x": 1, "z": 1}, "c": {"y": 3}})
        Overlap(to_new={'a': {'b': 0.25, 'c': 0.75}}, to_old={'b': {'a': 0.5}, 'c': {'a': 1.0}})
        """
        return cls(_shares_in(old, new), _shares_in(new, old))

    def to_json(self) -> dict[str, Any]:
        """Return the shares as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no such description.
        """
        return convert(value, cls, "overlap of clusters")


def _shares_in(these: Parts, others: Parts) -> dict[str, dict[str, float]]:
    """Return the share of the tokens of each cluster of ``these`` that lies in each of ``others``.

    The tokens of a cell of several clusters are shared in the ratio of theirs.
    """
    cells = list(dict.fromkeys(cell for cluster in these.values() for cell in cluster))
    tokens = _tokens(others, cells)
    there = tokens.sum(axis=0)
    parts = np.divide(tokens, there, out=np.zeros_like(tokens), where=there > 0)
    shares = _shares(these, cells) @ parts.T
    names = list(others)
    return {
        name: {names[i]: float(row[i]) for i in np.flatnonzero(row)}
        for name, row in zip(these, shares, strict=True)
    }


class Columns:
    """What predictors see of a mixture of ``clusters``: its weights, and more after regrouping.

    It is the mixture's shares in the clusters of both searches. So a trial of either has the same
    columns as a mixture of the same cells. A new cluster that old ones add up to has no column, as
    old trials tell of each of these; old clusters that were cut have one, as old trials tell only
    of the whole (docs/decisions/groupings.md).
    """

    def __init__(self, clusters: Sequence[str], overlap: Overlap | None = None) -> None:
        names = list(clusters)
        self._old = [] if overlap is None else list(overlap.to_new)
        self._cut = np.zeros(0, np.int64)
        if overlap is None:
            return
        self._to_new = _matrix(overlap.to_new, self._old, names)
        to_old = _matrix(overlap.to_old, names, self._old)
        inside = self._to_new > 1 - _SAME
        same = inside & (to_old.T > 1 - _SAME)
        known = to_old.sum(axis=1) > 1 - _SAME
        joined = known & (inside.T | (to_old == 0)).all(axis=1) & ~same.any(axis=0)
        self._kept, self._cut = np.flatnonzero(~joined), np.flatnonzero(~same.any(axis=1))
        self._to_cut = to_old[:, self._cut]
        self._back = np.concatenate([np.eye(len(names))[self._kept], inside[self._cut] * joined])

    def of(self, weights: Floats) -> Floats:
        """Return the columns of mixtures of the clusters (``[m, K]``): ``[m, C]``."""
        if not len(self._cut):
            return weights
        return np.concatenate([weights[:, self._kept], weights @ self._to_cut], axis=1)

    def of_old(self, trials: Sequence[Trial]) -> tuple[Floats, Floats]:
        """Return the nearest mixtures ``[m, K]`` and the columns ``[m, C]`` of old ``trials``."""
        rows = rows_of(trials, self._old)
        shares = rows @ self._to_new
        nearest = shares / shares.sum(axis=1, keepdims=True)
        if not len(self._cut):
            return nearest, shares
        return nearest, np.concatenate([shares[:, self._kept], rows[:, self._cut]], axis=1)

    def feature(self, feature: Feature) -> Feature:
        """Return ``feature``, which is one of mixtures, as one of their columns."""
        return (lambda seen: feature(seen @ self._back)) if len(self._cut) else feature


def _matrix(
    shares: Mapping[str, Mapping[str, float]], these: Sequence[str], others: Sequence[str]
) -> Floats:
    """Return the share of each of ``these`` in each of ``others``, ``[K, L]``."""
    rows = [[shares.get(name, {}).get(other, 0.0) for other in others] for name in these]
    return np.array(rows, np.float64).reshape(len(these), len(others))


def rows_of(trials: Sequence[Trial], clusters: Sequence[str]) -> Floats:
    """Return the weights of ``trials``: ``[n, K]``."""
    rows = [trial.mixture.array(clusters) for trial in trials]
    return np.array(rows, np.float64).reshape(-1, len(clusters))


def carry(mixtures: Floats, old: Parts, new: Parts) -> tuple[Floats, Floats]:
    """Turn mixtures of the clusters ``old`` (``[n, K]``) into mixtures of the clusters ``new``.

    Returns:
        The mixtures, ``[n, L]``, and the fraction of the tokens of each that come from other cells
        by the new mixture than by the old one, ``[n]``. It is 1, and the weights are 0, where the
        new clusters have none of the cells.

    >>> parts = {"a": {"x": 1, "y": 3}}, {"b": {"x": 1}, "c": {"y": 3}}
    >>> carry(np.array([[1.0]]), *parts)[0].tolist(), carry(np.eye(2), *parts[::-1])[1].tolist()
    ([[0.25, 0.75]], [0.75, 0.25])
    """
    cells = list(dict.fromkeys(cell for part in (old, new) for c in part.values() for cell in c))
    ours, theirs = (_shares(part, cells) for part in (old, new))
    # Rows that are equal give equal bits only if they are computed once.
    rows, place = np.unique(mixtures, axis=0, return_inverse=True)
    before = rows @ ours
    weights = before @ (theirs > 0).T
    there = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, there, out=np.zeros_like(weights), where=there > 0)
    lost = np.where(there[:, 0] > 0, np.abs(before - weights @ theirs).sum(axis=1) / 2, 1.0)
    return weights[place.ravel()], lost[place.ravel()]


def _shares(parts: Parts, cells: Sequence[str]) -> Floats:
    """Return the share of each of ``cells`` in each cluster, ``[K, C]``, rows of sum 1 or 0."""
    tokens = _tokens(parts, cells)
    total = tokens.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(tokens, total, out=np.zeros_like(tokens), where=total > 0))


def _tokens(parts: Parts, cells: Sequence[str]) -> Floats:
    """Return the tokens of each of ``cells`` in each cluster, ``[K, C]``."""
    rows = [[part.get(cell, 0.0) for cell in cells] for part in parts.values()]
    return np.array(rows, np.float64).reshape(len(parts), len(cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Trials of an earlier search, as far as they tell something of the clusters of a new one."""

    trials: list[Trial]
    """Those of mixtures of the new clusters."""
    apart: list[Trial]
    """Those whose cells no mixture of the new clusters has, over the old clusters."""
    lost: int
    """Number of those with none of the cells of the new clusters."""
    overlap: Overlap


def carry_trials(trials: Sequence[Trial], old: Parts, new: Parts, base: Mixture) -> Carried:
    """Tell ``trials`` of the clusters ``old`` as trials of the clusters ``new``.

    Trials without scores are left out. A mixture that is ``base`` but for rounding becomes
    ``base``.
    """
    overlap = Overlap.of(old, new)
    scored = [trial for trial in trials if trial.scores is not None]
    if not scored:
        return Carried(trials=[], apart=[], lost=0, overlap=overlap)
    names = list(new)
    before = rows_of(scored, list(old))
    rows, lost = carry(before, old, new)
    back = rows @ _matrix(overlap.to_old, names, list(old))
    whole = (np.abs(back - before).max(axis=1) <= _SAME) & (lost <= _MOST_LOST)
    near = np.abs(rows - base.array(names)).max(axis=1) <= _SAME
    told = [
        replace(trial, mixture=base if same else Mixture.of(dict(zip(names, row, strict=True))))
        for trial, row, same, kept in zip(scored, rows.tolist(), near, whole, strict=True)
        if kept
    ]
    far = ~whole & (lost < 1)
    apart = [trial for trial, kept in zip(scored, far, strict=True) if kept]
    left = len(scored) - len(told) - len(apart)
    return Carried(trials=told, apart=apart, lost=left, overlap=overlap)


def level(
    carried: Sequence[Trial],
    there: Floats,
    own: Sequence[Trial],
    here: Floats,
    targets: Sequence[str],
) -> list[Trial]:
    """Shift the scores of ``carried`` trials to the level of ``own`` ones, target by target.

    They were measured before documents were added, so all may be a little better or worse. The
    shift is the mean difference between ``own`` scores and what a fit to ``carried`` predicts of
    them. With few of either it is too uncertain, and nothing is shifted. ``there`` (``[n, C]``) and
    ``here`` (``[m, C]``) are what predictors see of the mixtures of both.
    """
    if min(len(carried), len(own)) < _FEWEST:
        return list(carried)
    shifts = {}
    for target in targets:
        scores, ours = (
            np.array([(trial.scores or {})[target] for trial in some]) for some in (carried, own)
        )
        process = GaussianProcess()
        process.fit(there, scores)
        shifts[target] = float((ours - process.predict(here)).mean())
    return [
        replace(t, scores={n: s + shifts.get(n, 0.0) for n, s in (t.scores or {}).items()})
        for t in carried
    ]
