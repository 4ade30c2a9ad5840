"""Functions that return the loss of any mixture, so that a search need not train models.

`net` and `forest` are fitted to all 768 runs of ../shared/mixtures (RegMix, 1M parameters, 17
domains). `net` is a small neural network that predicts the losses on four domains from the weights
and their square roots. `forest` is a forest of extremely randomised trees that predicts the loss on
one domain. `sparse` and `law` are synthetic, and differ between seeds. Of 24 domains, six reduce
the loss, and four increase it. `sparse` is a sum of logarithms. Each domain has its own knee: the
weight from which on more of the domain helps less. Some domains can replace each other. `law` is a
sum of two exponentials. None of these losses has the form that a Gaussian process on the logarithm
of the weights assumes.
"""

import csv
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.neural_network import MLPRegressor

from climbstream.search import Search
from climbstream.search.optimizer.candidates import candidates, descend
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.predictors.base import Floats

TABLES = Path(__file__).parents[2] / "shared" / "mixtures"
TARGETS = ("y_arxiv", "y_wikipedia_en", "y_pile_cc", "y_stackexchange")
SURROGATES = ("net", "forest", "sparse", "law")
HONEST = ("optimum", "near", "noise1", "noise4")
"""Losses that test claims of a gain: the token shares are the optimum (``optimum``), or are near it
(``near``), or all mixtures are equal on one target (``noise1``) or four targets (``noise4``)."""
Loss = Callable[[Floats], Floats]
"""Function from mixtures ``[n, K]`` to losses ``[n, T]``."""


def read_table(name: str) -> tuple[Floats, dict[str, Floats]]:
    """Return the weights ``[n, K]`` of a table of real runs, and its losses ``[n]`` by name."""
    with (TABLES / name).open() as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    weights = np.stack([columns[key] for key in columns if key.startswith("w_")], axis=1)
    return weights, {key: column for key, column in columns.items() if key.startswith("y_")}


class Surrogate:
    """One loss to search, with its prior and the regret of a mixture."""

    def __init__(self, name: str, seed: int) -> None:
        made = {"net": _net, "forest": _forest}
        if name in made:
            self.loss, self.prior = made[name]()
        else:
            self.loss, self.prior = (_honest if name in HONEST else _made_up)(name, seed)
        self.names = [f"c{i:02d}" for i in range(len(self.prior))]
        limits = WeightConstraints.of(self.names, self.prior)
        mixtures = candidates(4000, [self.prior], limits, (2, 50), np.random.default_rng(3))
        losses = self.loss(mixtures)
        self.mean, self.sd = losses.mean(axis=0), losses.std(axis=0)
        """Sd of each loss over mixtures drawn around the prior, ``[T]``; 1 if the loss is
        constant."""
        self.sd[self.sd == 0] = 1.0
        starts = np.concatenate([mixtures, np.eye(len(self.prior))])
        if name in made:
            starts = np.concatenate([starts, _runs()[0]])
        rng = np.random.default_rng(0)
        _, values = descend(self.joint, starts, limits, rng, keep=200, steps=40)
        self._least, self._middle = values[0], float(np.median(self.joint(mixtures)))

    def joint(self, weights: Floats) -> Floats:
        """Return the mean of the standardised losses of ``weights`` (``[n, K]``): ``[n]``."""
        return np.asarray(((self.loss(weights) - self.mean) / self.sd).mean(axis=1))

    def regret(self, weights: Floats) -> float:
        """Return the regret of ``weights`` (``[K]``): 0 is the optimum, 1 the prior's median."""
        value = float(self.joint(weights[None])[0])
        return (value - self._least) / ((self._middle - self._least) or 1.0)


def tell_all(search: Search, losses: Loss, noise: Floats, seed: int) -> None:
    """Tell a search the scores of all mixtures that it asks for, until it asks for no more.

    A score is a loss plus normal noise, whose sd is ``noise`` (``[T]``).
    """
    while mixtures := search.ask():
        for mixture in mixtures:
            rng = np.random.default_rng([seed, 11, mixture.about["trial"]])
            scores = losses(mixture.array(search.clusters)[None])[0]
            scores = scores + rng.normal(0, 1, len(scores)) * noise
            search.tell(mixture, dict(zip(search.targets, scores.tolist(), strict=True)))


@cache
def _runs() -> tuple[Floats, dict[str, Floats]]:
    """Return the weights ``[768, K]`` and the losses by name of the runs of both tables."""
    (a, losses), (b, more) = map(read_table, ("regmix_1m_a512.csv", "regmix_test_1m.csv"))
    joined = {name: np.concatenate([losses[name], more[name]]) for name in losses}
    return np.concatenate([a, b]), joined


@cache
def _net() -> tuple[Loss, Floats]:
    weights, losses = _runs()
    y = np.stack([losses[name] for name in TARGETS], axis=1)
    y = (y - y.mean(axis=0)) / y.std(axis=0)

    def features(w: Floats) -> Floats:
        return np.hstack([w, np.sqrt(w)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that the fit has not converged
        nets = [
            MLPRegressor(
                hidden_layer_sizes=(48, 48),
                activation="tanh",
                solver="lbfgs",
                alpha=0.01,
                max_iter=250,
                random_state=seed,
            ).fit(features(weights), y)
            for seed in range(2)
        ]
    prior = weights.mean(axis=0)
    return lambda w: sum(net.predict(features(w)) for net in nets) / 2, prior / prior.sum()


@cache
def _forest() -> tuple[Loss, Floats]:
    weights, losses = _runs()
    trees = ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.6, random_state=0)
    trees.fit(weights, losses["y_pile_cc"])
    prior = weights.mean(axis=0)
    return lambda w: trees.predict(w)[:, None], prior / prior.sum()


def _made_up(name: str, seed: int, k: int = 24) -> tuple[Loss, Floats]:
    """Return the synthetic loss `sparse` or `law` over ``k`` domains, and its token shares."""
    rng = np.random.default_rng([7, seed])
    order = rng.permutation(k)
    live, harmful = order[:6], order[6:10]
    worth = np.zeros(k)
    worth[live] = rng.uniform(0.4, 1.5, 6)
    knees = rng.uniform(0.02, 0.2, k)
    overlap = rng.uniform(0, 0.5, 2)
    prior = rng.dirichlet(np.full(k, 2.0))

    def logs(w: Floats) -> Floats:
        loss = -np.log1p(w / knees) @ worth + 0.8 * w[:, harmful].sum(axis=1)
        for part, (a, b) in zip(overlap, (live[:2], live[2:4]), strict=True):
            loss += part * np.log1p(np.minimum(w[:, a], w[:, b]) / 0.05)
        return loss[:, None]

    def exponentials(w: Floats) -> Floats:
        first, second = worth.copy(), worth.copy()
        first[live[3:]] = second[live[:3]] = 0.0
        loss = np.exp(-4 * w @ first) + np.exp(-6 * w @ second)
        return (loss + 0.8 * w[:, harmful].sum(axis=1))[:, None]

    return (logs if name == "sparse" else exponentials), prior


def _honest(name: str, seed: int, k: int = 24) -> tuple[Loss, Floats]:
    """Return one of the losses in `HONEST` over ``k`` domains, and its token shares."""
    rng = np.random.default_rng([8, seed])
    prior = rng.dirichlet(np.full(k, 2.0))
    if name.startswith("noise"):
        return lambda w: np.zeros((len(w), int(name.removeprefix("noise")))), prior
    worth = rng.uniform(0, 2, k)
    best = prior * np.exp((0.7 if name == "near" else 0.0) * rng.standard_normal(k))
    roots = np.sqrt(best / best.sum())
    return lambda w: ((np.sqrt(w) - roots) ** 2 @ worth)[:, None], prior
