"""Transfer: trials of a search, told as trials over other clusters of the same cells.

Within a cluster every token is as likely as any other. So a mixture of clusters is one of their
cells, and the weights of its cells add up to a mixture of other clusters. That mixture has the same
cells if no other cluster cuts one of the former; else it is near, and `carry` says how near.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Floats
from climbstream.search.predictors.gaussian_process import GaussianProcess

from .trials import Trial

Parts = Mapping[str, Mapping[str, float]]
"""Tokens of each cell of each cluster, by the names of both."""

MOST_LOST = 0.1
"""Largest fraction of the tokens of a trial that may come from other cells by the new mixture."""
_FEWEST = 8
"""Number of trials of each kind from which on their levels are compared by a fit."""
_SAME = 1e-9
"""Largest difference between weights of one mixture."""


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
    rows = [[part.get(cell, 0.0) for cell in cells] for part in parts.values()]
    tokens = np.array(rows, np.float64)
    total = tokens.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(tokens, total, out=np.zeros_like(tokens), where=total > 0))


def carry_trials(
    trials: Sequence[Trial], old: Parts, new: Parts, base: Mixture
) -> tuple[list[Trial], int]:
    """Tell ``trials`` of the clusters ``old`` as trials of the clusters ``new``.

    Trials without scores are left out, and those that lose more than `MOST_LOST`; the second value
    is the number of these. A mixture that is ``base`` but for rounding becomes ``base``.
    """
    scored = [trial for trial in trials if trial.scores is not None]
    if not scored:
        return [], 0
    names = list(new)
    rows, lost = carry(np.stack([t.mixture.array(list(old)) for t in scored]), old, new)
    near = np.abs(rows - base.array(names)).max(axis=1) <= _SAME
    told = [
        replace(trial, mixture=base if same else Mixture.of(dict(zip(names, row, strict=True))))
        for trial, row, same, part in zip(scored, rows.tolist(), near, lost, strict=True)
        if part <= MOST_LOST
    ]
    return told, len(scored) - len(told)


def level(
    carried: Sequence[Trial], own: Sequence[Trial], clusters: Sequence[str], targets: Sequence[str]
) -> list[Trial]:
    """Shift the scores of ``carried`` trials to the level of ``own`` ones, target by target.

    They were measured before documents were added, so all may be a little better or worse. The
    shift is the mean difference between ``own`` scores and what a fit to ``carried`` predicts of
    them. With few of either it is too uncertain, and nothing is shifted.
    """
    own = [trial for trial in own if trial.scores is not None]
    if min(len(carried), len(own)) < _FEWEST:
        return list(carried)
    there, here = (np.stack([t.mixture.array(clusters) for t in some]) for some in (carried, own))
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
