"""Change one choice of a search at a time, and measure what follows; print JSON lines for run.py.

Regret is 0 for the best mixture, and 1 for the median of mixtures that are drawn around the token
shares. It is that of the answer of ``robust``, and of the predicted best mixture of ``climb``. In
simulated searches, a score is a loss of surrogates.py plus noise, at signal/noise 2. Each line has
the mean regret over seeds with its standard error. Its note has the paired difference from the
first setting, which is the setting of the preset; it is "better" or "worse" only if a paired t-test
says so with 95 % confidence.

* ``rounds``: the ratio in which rounds share a budget of 48 proxies.
* ``sparsity``: the smallest and largest concentration of the mixtures that are drawn. The smaller
  it is, the fewer clusters a mixture has.
* ``clusters``: 200 topics lie in a space of three dimensions. Six of its places reduce the loss,
  and four increase it; a topic counts in proportion to its nearness to them. The topics are joined
  into 8, 20, 60 or 200 clusters (k-means). 0 is the regret of the best mixture of all 200 topics,
  so few clusters have a regret that no search can avoid. It is reported as well.
* ``size``: simulated proxies of relative cost 8, 2 and 1 at equal total cost: 14, 56 and 112
  proxies. The loss of a proxy differs from the loss of interest by its misfit: another loss, times
  a multiple of the sd of the loss of interest. The most expensive proxies have no misfit.
* ``proxies``: real proxies of two sizes (``tiny`` and ``mini``), trained on the same mixtures of
  clusters of the text that comes with Python, with two seeds. The bench reports how far their
  scores agree over mixtures (Spearman's rank correlation), how much of their variance is noise of
  the seeds, and the time of a proxy.

A finished search is a line of ``--keep FILE``, and is not run again. ``--minutes`` limits the time
of the simulated searches.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from differences import mean_difference, standard_error
from measure import report
from sklearn.cluster import KMeans
from surrogates import Surrogate, tell_all

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import say
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.files import append_line, read_lines
from climbstream.search import Search
from climbstream.search.experiments.compare import compare
from climbstream.search.optimizer.candidates import candidates, descend
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.predictors.base import Floats, spearman
from climbstream.search.training.settings import TrainSettings

RATIO = 2.0
LOSSES = ("forest", "sparse", "law")
ROUNDS = {
    "robust": ((2, 1, 1, 1, 1), (1,), (1, 1), (4, 2, 1), (1,) * 8, (1,) * 16),
    "climb": ((4, 2, 1), (1,), (1, 1, 1), (1, 2, 4)),
}
CONCENTRATIONS = ((2, 50), (0.5, 5), (2, 2), (10, 10), (10, 200), (50, 50))
CLUSTERS, TOPICS = (20, 8, 60, 200), 200
COSTS = {8: 14, 2: 56, 1: 112}
"""Number of proxies by the cost of one of them."""
MISFITS = (0.0, 0.2, 0.5)
Task = tuple[str, str, Any, int, int]
"""A simulated search: part of the bench, case, setting, number of proxies, and seed."""


class Searched(Protocol):
    """A loss to search."""

    names: list[str]
    prior: Floats
    sd: Floats

    def loss(self, weights: Floats) -> Floats:
        """Return the losses ``[n, T]`` of mixtures ``[n, K]``."""

    def regret(self, weights: Floats) -> float:
        """Return the regret of a mixture ``[K]``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=[*PARTS, "proxies"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="file of what is done")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--mixtures", type=int, default=12, help="mixtures of real proxies")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of a real proxy")
    options, _ = parser.parse_known_args()
    # With more threads of linear algebra, the processes would wait for each other.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    parts = [part for part in PARTS if part in options.parts]
    if parts:
        keep = options.keep or Path(tempfile.mkdtemp()) / "ablations.jsonl"
        tasks = [task for seed in range(options.seeds) for p in parts for task in PARTS[p](seed)]
        done = run_all(tasks, keep, options.minutes)
        for part in parts:
            report_part(part, done)
    if "proxies" in options.parts:
        measure_proxies(options.mixtures, options.tokens)


def run_all(tasks: list[Task], keep: Path, minutes: float) -> list[dict[str, Any]]:
    """Run the ``tasks`` that are not in the file ``keep``; return the lines of all tasks."""
    lines = {line["task"]: line for line in read_lines(keep)}
    begin = time.monotonic()
    with LocalEngine() as pool:
        for task, line in pool.run(simulate, [task for task in tasks if repr(task) not in lines]):
            append_line(keep, line, sync=False)
            lines[repr(task)] = line
            if time.monotonic() - begin > 60 * minutes:
                break
    say(f"{len(lines)} searches are kept in {keep}")
    return [lines[repr(task)] for task in tasks if repr(task) in lines]


def report_part(part: str, lines: list[dict[str, Any]]) -> None:
    """Report the regret of each setting of one part of the bench."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        if line["part"] == part:
            found[line["case"]][line["setting"]][line["seed"]] = line["regret"]
    for case, settings in found.items():
        first = next(iter(settings.values()))
        for setting, regrets in settings.items():
            values = np.array(list(regrets.values()))
            note = f"± {standard_error(values):.3f} over {len(values)} seeds"
            if regrets is not first:
                shared = regrets.keys() & first.keys()
                more = mean_difference([regrets[seed] - first[seed] for seed in shared])
                verdict = ("open", "worse", "better")[more.sign]
                note += f"; {more.mean:+.3f} ± {more.error:.3f} beside the first: {verdict}"
            report(f"{part}, {case}: {setting}", round(float(values.mean()), 4), "regret", note)


def tasks_of_rounds(seed: int) -> Iterator[Task]:
    for preset, ratios in ROUNDS.items():
        for loss in LOSSES:
            for ratio in ratios:
                yield "rounds", f"{preset} on {loss}", ratio, 48, seed


def tasks_of_sparsity(seed: int) -> Iterator[Task]:
    for preset in ROUNDS:
        for loss in LOSSES:
            for pair in CONCENTRATIONS:
                yield "sparsity", f"{preset} on {loss}", pair, 48, seed


def tasks_of_clusters(seed: int) -> Iterator[Task]:
    for budget in (48, 112):
        for clusters in CLUSTERS:
            yield "clusters", f"{budget} proxies", clusters, budget, seed
    for clusters in CLUSTERS:
        yield "clusters", "least regret", clusters, 0, seed


def tasks_of_size(seed: int) -> Iterator[Task]:
    for loss in LOSSES:
        for misfit in MISFITS:
            for cost, budget in COSTS.items():
                yield "size", f"{loss}, misfit {misfit:g}", cost, budget, seed


PARTS = {
    "rounds": tasks_of_rounds,
    "sparsity": tasks_of_sparsity,
    "clusters": tasks_of_clusters,
    "size": tasks_of_size,
}


def simulate(task: Task) -> dict[str, Any]:
    """Run one search; return the line of its result."""
    part, case, setting, budget, seed = task
    preset, _, name = case.partition(" on ")
    if part == "rounds":
        regret = search(Surrogate(name, seed), budget, seed, preset, rounds=setting)
    elif part == "sparsity":
        PRESETS["changed"] = replace(PRESETS[preset], concentration=setting)
        regret = search(Surrogate(name, seed), budget, seed, "changed")
    elif part == "clusters":
        clusters = topics_of(seed).clusters(setting)
        regret = search(clusters, budget, seed) if budget else clusters.least
    else:
        name, misfit = case.split(", misfit ")
        # The most expensive proxies are the loss of interest itself.
        misfit = 0.0 if setting == max(COSTS) else float(misfit)
        regret = search(Surrogate(name, seed), budget, seed, misfit=misfit)
    return {
        "task": repr(task),
        "part": part,
        "case": case,
        "setting": str(setting),
        "seed": seed,
        "regret": regret,
    }


def search(
    loss: Searched,
    budget: int,
    seed: int,
    preset: str = "robust",
    *,
    rounds: tuple[int, ...] | None = None,
    misfit: float = 0.0,
) -> float:
    """Return the regret of the result of a search by scores with a ``misfit``."""
    targets = [f"t{number}" for number in range(len(loss.sd))]
    begun = Search(
        loss.names,
        targets,
        budget=budget,
        preset=preset,
        rounds=rounds,
        prior=dict(zip(loss.names, loss.prior.tolist(), strict=True)),
        seed=seed,
    )
    other = Surrogate("sparse", 1000 + seed) if misfit else None

    def losses(weights: Floats) -> Floats:
        """Return the losses of proxies, which have a misfit."""
        if other is None:
            return loss.loss(weights)
        places = np.eye(len(other.prior))[np.arange(len(loss.prior)) % len(other.prior)]
        return loss.loss(weights) + misfit * loss.sd * other.joint(weights @ places)[:, None]

    tell_all(begun, losses, loss.sd / RATIO, seed)
    answer = begun.result()
    predicted = answer.predicted_best
    as_published = PRESETS[preset].answer == "predicted" and predicted is not None
    return loss.regret((predicted if as_published else answer).mixture.array(loss.names))


class Topics:
    """A loss over 200 topics, whose effects depend on their places."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([22, seed])
        self._seed, self.places = seed, rng.standard_normal((TOPICS, 3))
        self.tokens = rng.dirichlet(np.full(TOPICS, 2.0))
        centres = self.places[rng.permutation(TOPICS)[:10]]
        distances = np.linalg.norm(self.places[:, None] - centres, axis=2)
        self._near = np.exp(-((distances / 0.8) ** 2) / 2)
        self._worth = rng.uniform(0.4, 1.5, 6)
        self._knees = rng.uniform(0.02, 0.2, 6)
        limits = WeightConstraints.of([str(i) for i in range(TOPICS)], self.tokens)
        rng = np.random.default_rng(3)
        drawn = candidates(4000, [self.tokens], limits, (2, 50), rng)
        self.middle = float(np.median(self.loss(drawn)))
        starts = [drawn, *(self._best_of(clusters) for clusters in CLUSTERS[:-1])]
        rows, losses = descend(self.loss, np.concatenate(starts), limits, rng, keep=400, steps=60)
        self.best, self.least = rows[0], float(losses[0])
        """The best mixture of topics, ``[200]``, and its loss."""

    def loss(self, weights: Floats) -> Floats:
        """Return the loss ``[n]`` of mixtures of topics ``[n, 200]``."""
        effect = weights @ self._near
        gain = np.log1p(effect[:, :6] / self._knees) @ self._worth
        return np.asarray(0.8 * effect[:, 6:].sum(axis=1) - gain)

    def shares(self, clusters: int) -> Floats:
        """Return the share of each topic in each cluster, ``[clusters, 200]``, rows of sum 1."""
        means = KMeans(clusters, n_init=1, random_state=self._seed)
        labels = means.fit_predict(self.places, sample_weight=self.tokens)
        shares = np.zeros((clusters, TOPICS))
        shares[labels, np.arange(TOPICS)] = self.tokens
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def clusters(self, clusters: int) -> "Clusters":
        """Return the loss as a function of mixtures of ``clusters`` clusters."""
        return Clusters(self, self.shares(clusters))

    def _best_of(self, clusters: int) -> Floats:
        """Return the best mixtures of ``clusters`` clusters, as mixtures of topics ``[n, 200]``."""
        shares = self.shares(clusters)
        limits = WeightConstraints.of([str(i) for i in range(clusters)], shares @ self.tokens)
        rng = np.random.default_rng(4)
        drawn = candidates(2000, [limits.prior], limits, (2, 50), rng)
        rows, _ = descend(lambda w: self.loss(w @ shares), drawn, limits, rng, keep=100, steps=40)
        return rows @ shares


@cache
def topics_of(seed: int) -> Topics:
    """Return `Topics`, made once in a process, because this takes longer than a search."""
    return Topics(seed)


class Clusters:
    """The loss of `Topics` as a function of mixtures of clusters of them."""

    def __init__(self, topics: Topics, shares: Floats) -> None:
        self._topics, self._shares = topics, shares
        tokens = np.array([topics.tokens[row > 0].sum() for row in shares])
        self.prior, self.names = tokens, [f"c{number:03d}" for number in range(len(shares))]
        limits = WeightConstraints.of(self.names, self.prior)
        rng = np.random.default_rng(3)
        drawn = candidates(4000, [self.prior], limits, (2, 50), rng)
        losses = self.loss(drawn)
        self.sd = losses.std(axis=0)
        starts = np.concatenate([drawn, topics.best[None] @ (shares > 0).T])
        rows, _ = descend(lambda w: self.loss(w)[:, 0], starts, limits, rng, keep=200, steps=60)
        self.least = self.regret(rows[0])
        """Regret of the best mixture of clusters."""

    def loss(self, weights: Floats) -> Floats:
        """Return the loss ``[n, 1]`` of mixtures of clusters ``[n, K]``."""
        return self._topics.loss(weights @ self._shares)[:, None]

    def regret(self, weights: Floats) -> float:
        """Return the regret of a mixture of clusters; the best mixture of topics has regret 0."""
        topics = self._topics
        return float(
            (self.loss(weights[None])[0, 0] - topics.least) / (topics.middle - topics.least)
        )


def measure_proxies(count: int, tokens: int) -> None:
    """Train real proxies of two sizes on the same mixtures, and compare their scores."""
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name) / "shards"
        climb = Path(sys.executable).with_name("climb")
        command = [climb, "build", "python:4", "--label", "label", "--holdout", "0.1"]
        command += ["--clusters", "8", "--vocab-size", "1024", "--out", shards]
        subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
        manifest = Manifest.load(shards)
        prior = np.array([manifest.token_shares.weights[name] for name in manifest.names])
        limits = WeightConstraints.of(manifest.names, prior)
        drawn = candidates(count, [prior], limits, (2, 50), np.random.default_rng(1))
        mixtures = {
            str(number): Mixture(dict(zip(manifest.names, row.tolist(), strict=True)))
            for number, row in enumerate(drawn)
        }
        means = {}
        for size in ("tiny", "mini"):
            settings = TrainSettings(tokens=tokens, model=size)
            means[size] = score(shards, mixtures, settings, Path(name) / size)
        ranks = [spearman(a, b) for a, b in zip(*means.values(), strict=True)]
        note = f"{min(ranks):.2f} to {max(ranks):.2f} over {len(ranks)} targets; {count} mixtures"
        report("proxies: rank correlation of tiny and mini", np.mean(ranks), "", note)


def score(
    shards: Path, mixtures: dict[str, Mixture], settings: TrainSettings, out: Path
) -> list[Floats]:
    """Return the mean scores of ``mixtures`` on each target over two seeds; report the noise."""
    targets = [f"cluster={name}" for name in list(Manifest.load(shards).names)[:4]]
    begin = time.monotonic()
    found = compare(shards, mixtures, targets, settings, (1, 2), out)
    seconds = (time.monotonic() - begin) / len(mixtures) / 2
    means, parts = [], []
    for target in targets:
        scores = np.array([found[target].scores[name] for name in mixtures])  # [mixtures, seeds]
        noise = scores.var(axis=1, ddof=1).mean() / scores.shape[1]
        parts.append(float(noise / scores.mean(axis=1).var(ddof=1)))
        means.append(scores.mean(axis=1))
    what = f"proxies: {settings.model}, {settings.tokens:,} tokens"
    report(f"{what}: noise in a mean of two seeds", float(np.mean(parts)), "part of variance", "")
    cores = len(os.sched_getaffinity(0))
    report(f"{what}: time of a proxy", seconds, "s", f"with its scores; {cores} at a time")
    return means


if __name__ == "__main__":
    main()
