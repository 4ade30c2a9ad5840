"""Measure the errors of predictors of real losses, for mixtures on which they were not fitted.

A row of the data is a mixture with the 13 losses of a model that was trained on it. The rows to fit
on are drawn from ../shared/mixtures/regmix_1m_a512.csv; the rows to test on are all rows of
regmix_test_1m.csv. An error is the mean squared error divided by the variance of the loss (NMSE).
Each figure is a median over seeds. A *stack* is a weighted mean of several predictors.

* "mean of 13" is the mean of the errors on the 13 losses.
* "sum of 13" is the error of the mean of the 13 predictions on the mean of the 13 losses.
* "signal/noise": noise is added to the losses that are fitted, but not to the losses that are
  tested.
* "joint of 13" is the error on the mean of the standardised losses, all of them fitted with noise.
  It uses the stacks of the search, in which the predictors have the same shares for all losses.

Bars for the error of the stack:

* with 112 rows, at most .03 on Pile-CC, and at most .06 on the mean of 13;
* with 64 rows, at most .05 on Pile-CC, and at most .10 on the mean of 13;
* with noise, never above the error of ridge regression; and on the joint of 13, at most 5 % above
  the error of its best predictor.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np
from measure import report
from surrogates import read_table

from climbstream.loader.core.engines.local import LocalEngine
from climbstream.search.optimizer.presets import ALL, PRESETS
from climbstream.search.predictors.base import Floats, standardised
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.stacking import Stack, share_by_error
from climbstream.search.predictors.trees import LightGBM

NOISY = (2.0, 1.0, 0.5)
"""Ratios of the sd of the scores to the sd of the noise."""


class PublishedLightGBM:
    """LightGBM with CLIMB's published settings: a fifth of the rows decides when to stop.

    Scores are standardised: the published penalties suit standardised scores, and are too strong
    for raw scores.
    """

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit four fifths of the rows, and stop early by the error on the rest."""
        scores, self._mean, self._sd = standardised(scores)
        rows = np.random.default_rng(0).permutation(len(scores))
        held = rows[: max(1, len(rows) // 5)]
        rows = rows[len(held) :]
        settings = {
            "objective": "l2",
            "max_depth": 4,
            "min_data_in_leaf": 5,
            "lambda_l1": 1.0,
            "lambda_l2": 1.0,
            "learning_rate": 0.05,
            "num_threads": 1,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(weights[rows], scores[rows])
        check = lightgbm.Dataset(weights[held], scores[held], reference=data)
        stop = lightgbm.early_stopping(20, verbose=False)
        self._trees: Any = lightgbm.train(settings, data, 1000, [check], callbacks=[stop])

    def predict(self, weights: Floats) -> Floats:
        """Return the predicted scores of ``weights`` (``[m, K]``): ``[m]``."""
        return np.asarray(self._trees.predict(weights) * self._sd + self._mean, np.float64)


CONTENDERS: dict[str, Callable[[], Any]] = {
    "stack": lambda: Stack(ALL),
    "gaussian process": GaussianProcess,
    "mixing law": MixingLaw,
    "lightgbm": LightGBM,
    "lightgbm as published": PublishedLightGBM,
    "ridge": Ridge,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", default="64,112")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    options, _ = parser.parse_known_args()
    contenders = tuple(options.contenders.split(","))
    sizes = [int(n) for n in options.rows.split(",")]
    tasks = [(n, seed, contenders) for seed in range(options.seeds) for n in sizes]
    # With more threads of linear algebra, the processes would wait for each other.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with LocalEngine() as pool:
        done = dict(pool.run(measure, tasks))
    for n in sizes:
        errors = [done[n, seed, contenders] for seed in range(options.seeds)]
        for what in errors[0]:
            values = [error[what] for error in errors]
            low, high = np.percentile(values, (25, 75))
            note = f"quartiles {low:.3f} {high:.3f}, {options.seeds} seeds"
            report(f"{n} rows, {what}", float(np.median(values)), "NMSE", note)


def measure(task: tuple[int, int, tuple[str, ...]]) -> dict[str, float]:
    """Fit contenders to one random draw of rows; return their errors by name and target."""
    n, seed, contenders = task
    weights, losses = read_table("regmix_1m_a512.csv")
    fresh, there = read_table("regmix_test_1m.csv")
    names = [name for name in losses if name != "y_mean13"]
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(weights))[:n]
    noise = rng.standard_normal(n)
    errors = {}
    for contender in contenders:
        make = CONTENDERS[contender]
        predicted = np.stack(
            [_fitted(make(), weights[rows], losses[t][rows], fresh) for t in names]
        )
        each = [_nmse(there[t], p) for t, p in zip(names, predicted, strict=True)]
        errors[f"{contender}: Pile-CC"] = each[names.index("y_pile_cc")]
        errors[f"{contender}: mean of 13"] = float(np.mean(each))
        errors[f"{contender}: sum of 13"] = _nmse(there["y_mean13"], predicted.mean(axis=0))
        for ratio in NOISY:
            noisy = losses["y_pile_cc"] + 0.0
            noisy[rows] += noise * losses["y_pile_cc"].std() / ratio
            found = _fitted(make(), weights[rows], noisy[rows], fresh)
            errors[f"{contender}: Pile-CC, signal/noise {ratio:g}"] = _nmse(
                there["y_pile_cc"], found
            )
    if {"stack", "gaussian process"} <= {*contenders}:
        errors |= measure_joint(
            weights[rows], {t: losses[t][rows] for t in names}, fresh, there, rng
        )
    return errors


def measure_joint(
    weights: Floats,
    losses: Mapping[str, Floats],
    fresh: Floats,
    there: Mapping[str, Floats],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Fit the stacks of the search to all losses, each with independent noise.

    Returns the errors of the stacks and of each of their predictors on the joint of all losses.
    """
    members = PRESETS["robust"].predictors
    sums: dict[str, Floats] = defaultdict(lambda: np.zeros(len(fresh)))
    stacks = []
    for name, clean in losses.items():
        noisy = clean + rng.standard_normal(len(clean)) * there[name].std() / NOISY[0]
        scores, _, _ = standardised(noisy)
        stacks.append(Stack(members))
        stacks[-1].fit(weights, scores)
        for make in members:
            sums[make().name] += _fitted(make(), weights, scores, fresh)
        sums["truth"] += there[name] / noisy.std()
    share_by_error(stacks, np.full(len(stacks), 1 / len(stacks)))
    for stack in stacks:
        sums["stack"] += stack.predict(fresh)
    truth = sums.pop("truth")
    # Noise and standardising shift the level of the sums. Only the order of mixtures matters, so
    # the means are subtracted.
    return {
        f"{name} of the search: joint of 13, signal/noise {NOISY[0]:g}": _nmse(
            truth - truth.mean(), total - total.mean()
        )
        for name, total in sums.items()
    }


def _fitted(model: Any, weights: Floats, scores: Floats, fresh: Floats) -> Floats:
    model.fit(weights, scores)
    return np.asarray(model.predict(fresh), np.float64)


def _nmse(measured: Floats, predicted: Floats) -> float:
    return float(((measured - predicted) ** 2).mean() / measured.var())


if __name__ == "__main__":
    main()
