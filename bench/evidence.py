"""Compare a search that begins from the trials of an earlier search with a fresh search.

Losses are synthetic, and differ between seeds. There are 30 topics of 8 cells each; a cell has a
number of tokens and a quality. A loss decreases with the logarithm of the weights of six topics;
each of them has its own knee, the weight from which on a topic helps less. The loss increases with
the weights of four other topics. The weight of a cell counts in proportion to its quality. The
earlier search has 112 proxies. There are three cases:

* 20 -> 30 groups: the earlier search has ten groups of one topic and ten of two topics; the new
  search uses the same shards with one group per topic;
* 30 -> 20 groups: the earlier search has one group per topic; in the new search, twenty of these
  groups are joined in pairs;
* +20 % data: the groups stay the same, and every cell grows by its own factor, 1.2 on average. The
  quality of a cell becomes the mean over old and new data. The effect of each topic changes by
  about 5 %. All losses increase by half a standard deviation of the losses of mixtures.

Regret is 0 for the best mixture of the new groups by the new loss, and 1 for the median of mixtures
that are drawn around the prior. A fresh search of 112 proxies is compared with a search that has a
quarter of them, but also the trials of the earlier search. Both use the same seed.

Bar: the regret of the search with earlier trials is not larger. It is called larger if a paired
t-test over the seeds says so with 95 % confidence; the note has the largest mean difference that
this test leaves possible.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from differences import mean_difference
from measure import report
from surrogates import tell_all

from climbstream.loader.core.console import say
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.search import Search, TrialLog
from climbstream.search.optimizer.candidates import candidates, descend
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.transfer import Parts, carry_trials
from climbstream.search.predictors.base import Floats

TOPICS, CELLS = 30, 8
FRESH, MORE = 112, 28
"""Number of proxies of a fresh search, and of a search that begins from earlier trials."""
CASES = ("20 -> 30 groups", "30 -> 20 groups", "+20 % data")
TARGETS = ["loss"]


class Loss:
    """A synthetic loss over cells, which `grow` changes as added data would."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = np.random.default_rng([21, seed])
        order = rng.permutation(TOPICS)
        self._worth = np.zeros(TOPICS)
        self._worth[order[:6]] = rng.uniform(0.4, 1.5, 6)
        self._harm = np.zeros(TOPICS)
        self._harm[order[6:10]] = 0.8
        self._knees = rng.uniform(0.02, 0.2, TOPICS)
        self.tokens = np.outer(rng.dirichlet(np.full(TOPICS, 2.0)), np.ones(CELLS))
        self.tokens *= rng.uniform(0.5, 1.5, self.tokens.shape)
        self._quality = rng.uniform(0.5, 1.5, self.tokens.shape)
        self._level = 0.0

    def grow(self, sd: float) -> None:
        """Add 20 % of data; ``sd`` is the sd of the losses of mixtures."""
        added = self._rng.uniform(0.0, 0.4, self.tokens.shape)
        others = self._rng.uniform(0.5, 1.5, self.tokens.shape)
        self._quality = (self._quality + added * others) / (1 + added)
        self.tokens = self.tokens * (1 + added)
        self._worth = self._worth * np.exp(0.05 * self._rng.standard_normal(TOPICS))
        self._level += 0.5 * sd

    def parts(self, groups: int) -> Parts:
        """Return the tokens of the cells of each group, for 20 or 30 groups.

        With 20 groups, the last ten have two topics each.
        """
        whole = [[t] for t in range(TOPICS)]
        joined = [*whole[:10], *([t, t + 10] for t in range(10, 20))]
        return {
            f"g{number:02d}": {f"{t}-{c}": self.tokens[t, c] for t in topics for c in range(CELLS)}
            for number, topics in enumerate(whole if groups == TOPICS else joined)
        }

    def over(self, parts: Parts) -> "GroupLoss":
        """Return this loss as a function of mixtures of the groups in ``parts``."""
        shares = np.zeros((len(parts), TOPICS, CELLS))
        for number, cells in enumerate(parts.values()):
            for name, tokens in cells.items():
                topic, cell = map(int, name.split("-"))
                shares[number, topic, cell] = tokens
        total = shares.sum(axis=(1, 2))
        return GroupLoss(self, shares / total[:, None, None], total / total.sum())

    def of_cells(self, weights: Floats) -> Floats:
        """Return the loss ``[n]`` of mixtures of cells ``[n, topics, cells]``."""
        topics = (weights * self._quality).sum(axis=2)
        gain = np.log1p(topics / self._knees) @ self._worth
        return np.asarray(self._level - gain + topics @ self._harm)


class GroupLoss:
    """A loss as a function of mixtures of groups, and the regret of a mixture."""

    def __init__(self, loss: Loss, shares: Floats, prior: Floats) -> None:
        self._loss, self._shares, self.prior = loss, shares, prior
        limits = WeightConstraints.of([f"g{i}" for i in range(len(prior))], prior)
        mixtures = candidates(4000, [prior], limits, (2, 50), np.random.default_rng(3))
        losses = self(mixtures)
        self.sd, self._middle = float(losses.std()), float(np.median(losses))
        starts = np.concatenate([mixtures, np.eye(len(prior))])
        _, values = descend(self, starts, limits, np.random.default_rng(0), keep=200, steps=40)
        self._least = values[0]

    def __call__(self, weights: Floats) -> Floats:
        """Return the loss ``[n]`` of mixtures of groups ``[n, K]``."""
        return self._loss.of_cells(np.tensordot(weights, self._shares, 1))

    def regret(self, weights: Floats) -> float:
        """Return the regret of one mixture: 0 for the optimum, 1 for the median of the prior."""
        return float((self(weights[None])[0] - self._least) / (self._middle - self._least))


def measure(seeds: range, noises: tuple[float, ...] = (10.0, 2.0)) -> None:
    """Report the regret of fresh searches, and of searches that begin from earlier trials."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    tasks = [(case, ratio, seed) for seed in seeds for ratio in noises for case in CASES]
    done: dict[tuple[str, float], list[tuple[float, float]]] = {}
    with LocalEngine() as pool:
        for (case, ratio, seed), (fresh, more) in pool.run(compare, tasks):
            say(f"{case}, signal/noise {ratio:g}, seed {seed}: fresh {fresh:.4f}, more {more:.4f}")
            done.setdefault((case, ratio), []).append((fresh, more))
    for (case, ratio), pairs in sorted(done.items()):
        what, regrets = f"{case}, signal/noise {ratio:g}", np.array(pairs)
        middle, count = np.median(regrets, axis=0), f"median of {len(pairs)} seeds"
        report(f"{what}: fresh, {FRESH} proxies", round(middle[0], 4), "regret", count)
        report(f"{what}: earlier trials and {MORE}", round(middle[1], 4), "regret", count)
        if len(pairs) > 1:
            report_difference(what, regrets[:, 1] - regrets[:, 0])


def report_difference(what: str, more: Floats) -> None:
    """Report the mean of ``more``, the differences of regret, and whether it meets the bar."""
    found = mean_difference(more)
    verdict = "larger" if found.sign > 0 else "not larger"
    note = f"± {found.error:.4f}, at most {found.high:.4f}: {verdict}"
    report(f"{what}: with earlier trials minus fresh", round(found.mean, 4), "regret", note)


def compare(task: tuple[str, float, int]) -> tuple[float, float]:
    """Return the regret of a fresh search, and that of a search with earlier trials."""
    case, ratio, seed = task
    loss = Loss(seed)
    groups = (30, 20) if case.startswith("30") else (20, 30) if "->" in case else (20, 20)
    old_parts = loss.parts(groups[0])
    old = loss.over(old_parts)
    with tempfile.TemporaryDirectory() as name:
        trials = search(old, FRESH, ratio, seed, Path(name) / "old.jsonl").log.trials
        if "data" in case:
            loss.grow(old.sd)
        parts = loss.parts(groups[1])
        new = loss.over(parts)
        # Use another seed, so that the noise of new proxies differs from that of old proxies.
        fresh = regret(new, search(new, FRESH, ratio, seed + 1000))
        path = Path(name) / "new.jsonl"
        begun = plan(new, MORE, seed + 1000)
        carried = carry_trials(trials, old_parts, parts, begun.base)
        shared = {"clusters": begun.clusters, "targets": begun.targets, "seed": begun.seed}
        overlap = carried.overlap.to_json()
        origin = {"search": "", "same": "data" not in case, "overlap": overlap}
        TrialLog.begin_with(path, carried.trials, shared, origin, carried.apart)
        return fresh, regret(new, search(new, MORE, ratio, seed + 1000, path))


def plan(loss: GroupLoss, budget: int, seed: int, path: Path | None = None) -> Search:
    """Open a search over the groups of ``loss``, without asking for mixtures yet."""
    names = [f"g{number:02d}" for number in range(len(loss.prior))]
    prior = dict(zip(names, loss.prior.tolist(), strict=True))
    return Search(names, TARGETS, budget=budget, prior=prior, seed=seed, log=path)


def search(
    loss: GroupLoss, budget: int, ratio: float, seed: int, path: Path | None = None
) -> Search:
    """Run a search to its end, where scores are losses plus noise, and return it.

    ``ratio`` is the sd of losses divided by the sd of the noise.
    """
    begun = plan(loss, budget, seed, path)
    tell_all(begun, lambda weights: loss(weights)[:, None], np.array([loss.sd / ratio]), seed)
    return begun


def regret(loss: GroupLoss, begun: Search) -> float:
    """Return the regret of the mixture that is the answer of a search."""
    return loss.regret(begun.result().mixture.array(begun.clusters))
