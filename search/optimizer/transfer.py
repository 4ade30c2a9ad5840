"""Transfer: turn trials of a search into trials over other clusters of the same cells.

A cell is a smallest group of documents: clusters consist of whole cells. All tokens of a cluster
are equally likely to be served. So a mixture of clusters gives each cell a weight, and the weights
of the cells add up to a mixture of other clusters. If each new cluster lies within one old cluster,
and no cell is missing, the new mixture gives each cell the same weight as the old mixture.
Otherwise the weights of cells may differ, and `carry` returns by how much.

If the weights of cells differ, the trial is kept apart. Such a trial is no measurement of a mixture
of the new clusters, but predictors are still fitted to it. Predictors see a mixture, old or new, as
a row of numbers: the share of its tokens in each old cluster and in each new cluster. These shares
follow from the weights of cells: see `Columns`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from climbstream.loader.core.typed import Finite, convert
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Floats
from climbstream.search.predictors.gaussian_process import (
    Feature,
    GaussianProcess,
    UncertainFeature,
)

from .trials import Trial

Parts = Mapping[str, Mapping[str, float]]
"""Number of tokens of each cell, by name of the cluster and then by name of the cell."""

_MOST_LOST = 0.1
"""A trial's mixture, carried over to new clusters, counts as measured if at most this fraction of
its tokens comes from other cells than in the trial. The limit is not 0, because the cells of a
group grow by different factors when documents are added."""
_FEWEST = 8
"""Least number of carried trials, and of own trials, for which `level` shifts scores."""
_SAME = 1e-9
"""Largest difference up to which weights, or shares of clusters, count as equal."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shares of tokens that the clusters of two searches have in common."""

    to_new: dict[str, dict[str, Finite]]
    """Shares of the tokens of each old cluster in the new clusters; shares of 0 are left out."""
    to_old: dict[str, dict[str, Finite]]
    """Shares of the tokens of each new cluster in the old clusters; shares of 0 are left out."""

    @classmethod
    def of(cls, old: Parts, new: Parts) -> Self:
        """Return the overlap of the clusters ``old`` and ``new``, by the tokens of their cells.

        >>> Overlap.of({"a": {"x": 1, "y": 3}}, {"b": {"x": 1, "z": 1}, "c": {"y": 3}})
        Overlap(to_new={'a': {'b': 0.25, 'c': 0.75}}, to_old={'b': {'a': 0.5}, 'c': {'a': 1.0}})
        """
        return cls(_shares_in(old, new), _shares_in(new, old))

    def to_json(self) -> dict[str, Any]:
        """Return the shares as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the JSON values that `to_json` returns.

        Raises:
            InvalidDataError: ``value`` does not describe an overlap.
        """
        return convert(value, cls, "overlap of clusters")


def _shares_in(these: Parts, others: Parts) -> dict[str, dict[str, float]]:
    """Return the share of the tokens of each cluster of ``these`` that lies in each of ``others``.

    If several of ``others`` have tokens of a cell, the cell is divided in proportion to these
    tokens.
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
    """Inputs of the predictors for a mixture of ``clusters``, as columns of an array.

    Without an ``overlap``, the columns are the weights. With an ``overlap``, the columns are the
    shares of the mixture in clusters of both searches. So two trials whose cells have the same
    weights have the same columns, whichever search they are from. Two rules decide which clusters
    have a column (docs/decisions/groupings.md):

    - A new cluster that is the union of old clusters has no column, because its share is the sum of
      the columns of these old clusters.
    - An old cluster that was cut has a column, because an old trial has one share for the whole
      cluster, and no shares for its parts.
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
        """Return the inputs of the predictors for ``m`` mixtures: an array of shares, ``[m, C]``.

        ``weights``, ``[m, K]``, has the weights of the clusters in each mixture.
        """
        if not len(self._cut):
            return weights
        return np.concatenate([weights[:, self._kept], weights @ self._to_cut], axis=1)

    def of_old(self, trials: Sequence[Trial]) -> tuple[Floats, Floats]:
        """Return two arrays for ``trials`` over the old clusters, one row per trial.

        The first array, ``[m, K]``, has the nearest mixtures of the new clusters. The second array,
        ``[m, C]``, has the columns.
        """
        rows = rows_of(trials, self._old)
        shares = rows @ self._to_new
        nearest = shares / shares.sum(axis=1, keepdims=True)
        if not len(self._cut):
            return nearest, shares
        return nearest, np.concatenate([shares[:, self._kept], rows[:, self._cut]], axis=1)

    def feature(self, feature: Feature) -> Feature:
        """Turn ``feature``, a function of mixtures, into a function of the columns of mixtures."""
        if not len(self._cut):
            return feature
        if isinstance(feature, UncertainFeature):
            return _OfColumns(feature, self._back)
        return lambda seen: feature(seen @ self._back)


@dataclass(frozen=True, slots=True)
class _OfColumns:
    """An uncertain feature of mixtures as one of columns; see `Columns.feature`."""

    of_mixtures: UncertainFeature
    back: Floats
    """Matrix ``[C, K]`` that turns columns into mixtures."""

    def __call__(self, columns: Floats) -> Floats:
        return self.of_mixtures(columns @ self.back)

    def sd(self, columns: Floats) -> Floats:
        return self.of_mixtures.sd(columns @ self.back)

    def covariance(self, columns: Floats, others: Floats) -> Floats:
        return self.of_mixtures.covariance(columns @ self.back, others @ self.back)


def _matrix(
    shares: Mapping[str, Mapping[str, float]], these: Sequence[str], others: Sequence[str]
) -> Floats:
    """Return ``shares`` as a matrix ``[K, L]``: rows are ``these``, columns are ``others``."""
    rows = [[shares.get(name, {}).get(other, 0.0) for other in others] for name in these]
    return np.array(rows, np.float64).reshape(len(these), len(others))


def rows_of(trials: Sequence[Trial], clusters: Sequence[str]) -> Floats:
    """Return the weights of ``trials``: ``[n, K]``."""
    rows = [trial.mixture.array(clusters) for trial in trials]
    return np.array(rows, np.float64).reshape(-1, len(clusters))


def carry(mixtures: Floats, old: Parts, new: Parts) -> tuple[Floats, Floats]:
    """Turn mixtures of the clusters ``old`` (``[n, K]``) into mixtures of the clusters ``new``.

    Returns:
        The new mixtures, ``[n, L]``, and the fraction of the tokens of each new mixture that comes
        from other cells than in the old mixture, ``[n]``. If the new clusters have none of the
        cells of an old mixture, the fraction is 1 and the new weights are 0.

    >>> parts = {"a": {"x": 1, "y": 3}}, {"b": {"x": 1}, "c": {"y": 3}}
    >>> carry(np.array([[1.0]]), *parts)[0].tolist(), carry(np.eye(2), *parts[::-1])[1].tolist()
    ([[0.25, 0.75]], [0.75, 0.25])
    """
    cells = list(dict.fromkeys(cell for part in (old, new) for c in part.values() for cell in c))
    ours, theirs = (_shares(part, cells) for part in (old, new))
    # Compute equal rows only once: computed twice, their results may differ by rounding.
    rows, place = np.unique(mixtures, axis=0, return_inverse=True)
    before = rows @ ours
    weights = before @ (theirs > 0).T
    there = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, there, out=np.zeros_like(weights), where=there > 0)
    lost = np.where(there[:, 0] > 0, np.abs(before - weights @ theirs).sum(axis=1) / 2, 1.0)
    return weights[place.ravel()], lost[place.ravel()]


def _shares(parts: Parts, cells: Sequence[str]) -> Floats:
    """Return the share of each of ``cells`` in each cluster, ``[K, C]``; rows sum to 1 or 0."""
    tokens = _tokens(parts, cells)
    total = tokens.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(tokens, total, out=np.zeros_like(tokens), where=total > 0))


def _tokens(parts: Parts, cells: Sequence[str]) -> Floats:
    """Return the number of tokens of each of ``cells`` in each cluster, ``[K, C]``."""
    rows = [[part.get(cell, 0.0) for cell in cells] for part in parts.values()]
    return np.array(rows, np.float64).reshape(len(parts), len(cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Trials of an earlier search, sorted by how the new search can use them."""

    trials: list[Trial]
    """Trials whose mixtures became mixtures of the new clusters."""
    apart: list[Trial]
    """Trials that correspond to no mixture of the new clusters. Their mixtures stay over the old
    clusters."""
    lost: int
    """Number of trials with scores that have no cell in common with the new clusters."""
    overlap: Overlap


def carry_trials(trials: Sequence[Trial], old: Parts, new: Parts, base: Mixture) -> Carried:
    """Turn ``trials`` over the clusters ``old`` into trials over the clusters ``new``.

    Trials without scores are left out. A mixture that differs from ``base`` only by rounding
    becomes ``base``.
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
    """Shift the scores of ``carried`` trials to the level of ``own`` trials, target by target.

    Carried trials were measured before documents were added. So all their scores may be a little
    better or worse than scores that are measured now. A Gaussian process that is fitted to
    ``carried`` trials predicts the scores of ``own`` trials. The shift is the mean difference
    between the measured and the predicted scores. If there are few ``carried`` or few ``own``
    trials, the shift is too uncertain, so the scores stay as they are. The columns (`Columns`) are
    ``there`` (``[n, C]``) for ``carried`` trials, and ``here`` (``[m, C]``) for ``own`` trials.
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
