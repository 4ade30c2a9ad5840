"""Measure how much runs of a small model help the search for a larger model.

Errors (NMSE, as in predictors.py): RegMix has runs of 64 mixtures with models of 1 billion
parameters (1B). The losses of 16 of these runs are predicted in three ways: from 16 other 1B runs
alone, from 48 other 1B runs alone, and from 16 other 1B runs together with runs of models of 1
million parameters (1M). The 1M runs have the same loss or, as a check, another loss. ``--large``
names the tables of the 1B runs, ``data/test_mixture_1B.csv,data/test_pile_loss_1B.csv`` of RegMix's
repository. Without ``--large``, errors are not measured.

Regret (as in search.py): synthetic losses (surrogates.py) are searched at signal/noise 2, also in
three ways: with 16 proxies alone, with 48 proxies alone, and with 16 proxies together with 112
earlier runs. The loss of the earlier runs is the sum of the searched loss and a multiple of another
loss, with the same noise.

Bar: 16 runs or proxies with earlier runs are at least as good as 48 alone. Regrets are compared on
the same seed; "less" or "more" means that a paired t-test shows it with 95 % confidence.
"""

import argparse
import os
from collections import defaultdict
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from differences import mean_difference, standard_error
from measure import report
from surrogates import Surrogate, read_table, tell_all

from climbstream.loader.core.engines.local import LocalEngine
from climbstream.search import Search
from climbstream.search.experiments.run_table import read_runs
from climbstream.search.optimizer.candidates import candidates
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.predictors.base import spearman
from climbstream.search.predictors.earlier_runs import EARLIER, EarlierRuns
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.stacking import Stack

LOSSES = "arxiv freelaw pubmed_central wikipedia_en github stackexchange pile_cc".split()
ARMS = ("16 alone", "48 alone", "16 with 1M runs", "16 with 1M runs of another loss")
PARTS = (0.0, 0.4, 1.0)
"""Sd of the other loss in the earlier runs, as a multiple of the sd of the searched loss."""
RATIO = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=512, help="1M runs")
    parser.add_argument("--large", default="", help="two files of 1B runs, with a comma between")
    options, _ = parser.parse_known_args()
    # With more threads of linear algebra, the processes would wait for each other.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with LocalEngine() as pool:
        if options.large:
            tasks = [(loss, options.rows, options.large, tuple(seeds)) for loss in LOSSES]
            done = dict(pool.run(predict, tasks))
            report_errors([done[task] for task in tasks])
        searches = [(*case, seed) for seed in seeds for case in product(("law", "sparse"), PARTS)]
        regrets: dict[tuple[str, str], list[float]] = defaultdict(list)
        # Sorted, because regrets on the same seed are compared.
        for (name, part, _), found in sorted(pool.run(search, searches)):
            for arm, regret in found.items():
                key = f"{arm}, {part} sd other" if "earlier" in arm else arm
                regrets[name, key].append(regret)
    for (name, arm), values in sorted(regrets.items()):
        note = f"± {standard_error(values):.3f}"
        report(f"{name}, {arm}", float(np.mean(values)), "regret", note)
        if "earlier" in arm:
            more = mean_difference(np.subtract(values, regrets[name, "48 alone"]))
            note = f"± {more.error:.3f}; {('open', 'more', 'less')[more.sign]}"
            report(f"{name}, {arm} minus 48 alone", more.mean, "regret", note)


def report_errors(by_loss: list[dict[str, list[float]]]) -> None:
    """Report the errors of each arm on each loss, and their mean over all losses."""
    for name, errors in zip(LOSSES, by_loss, strict=True):
        report(f"1M ranks 1B, {name}", errors.pop("rank")[0], "rank correlation", "")
        for arm in ARMS:
            low, high = np.percentile(errors[arm], (25, 75))
            note = f"quartiles {low:.3f} {high:.3f}, {len(errors[arm])} splits"
            report(f"{name}, {arm}", float(np.mean(errors[arm])), "NMSE", note)
    for arm in ARMS:
        report(f"mean of 7, {arm}", float(np.mean([e[arm] for e in by_loss])), "NMSE", "")


def predict(task: tuple[str, int, str, tuple[int, ...]]) -> dict[str, list[float]]:
    """Predict one loss of 1B models in several random splits.

    Returns the NMSE in each split by arm, and under ``rank`` the rank correlation of the losses
    that the 1M runs predict with those of the 1B runs.
    """
    loss, rows, files, seeds = task
    column = f"metric/the_pile_{loss}_val_loss"
    table = read_runs([Path(file) for file in files.split(",")], [column], None)
    weights = np.stack([trial.mixture.array(table.domains) for trial in table.trials])
    scores = np.array([(trial.scores or {})[column] for trial in table.trials])
    small, losses = read_table("regmix_1m_a512.csv")
    other = LOSSES[LOSSES.index(loss) - 3]
    earlier, stranger = (
        EarlierRuns([(small[:rows], losses[f"y_{name}"][:rows])]) for name in (loss, other)
    )
    members = PRESETS["robust"].predictors
    errors: dict[str, list[float]] = {"rank": [spearman(earlier(weights), scores)]}
    for seed in seeds:
        order = np.random.default_rng([5, seed]).permutation(len(scores))
        test, own = order[:16], order[16:]
        for arm, (n, feature) in zip(
            ARMS, ((16, None), (48, None), (16, earlier), (16, stranger)), strict=True
        ):
            more = [] if feature is None else [partial(GaussianProcess, feature, EARLIER)]
            stack = Stack([*more, *members])
            stack.fit(weights[own[:n]], scores[own[:n]])
            error = ((stack.predict(weights[test]) - scores[test]) ** 2).mean()
            errors.setdefault(arm, []).append(float(error / scores[test].var()))
    return errors


def search(task: tuple[str, float, int]) -> dict[str, float]:
    """Search one loss with and without earlier runs; return the regrets by arm."""
    name, part, seed = task
    loss, other = Surrogate(name, seed), Surrogate(name, seed + 1000)
    rng = np.random.default_rng([seed, 13])
    limits = WeightConstraints.of(loss.names, loss.prior)
    drawn = candidates(112, [loss.prior], limits, (2, 50), rng)
    score = (loss.loss(drawn) / loss.sd + part * other.loss(drawn) / other.sd)[:, 0]
    earlier = EarlierRuns([(drawn, score + rng.normal(0, 1 / RATIO, len(drawn)))])
    regrets = {"16 with earlier runs": regret(loss, 16, seed, earlier)}
    if not part:
        regrets |= {f"{budget} alone": regret(loss, budget, seed) for budget in (16, 48)}
    return regrets


def regret(loss: Surrogate, budget: int, seed: int, earlier: EarlierRuns | None = None) -> float:
    """Return the regret of a search's predicted best mixture; of its answer if there is none."""
    search = Search(
        loss.names,
        ["loss"],
        budget=budget,
        prior=dict(zip(loss.names, loss.prior.tolist(), strict=True)),
        earlier_runs=earlier and {"loss": earlier},
        seed=seed,
    )
    tell_all(search, loss.loss, loss.sd / RATIO, seed)
    answer = search.result()
    pick = answer.predicted_best or answer
    return loss.regret(pick.mixture.array(loss.names))


if __name__ == "__main__":
    main()
