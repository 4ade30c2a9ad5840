"""Fit: find the best mixture from a table of finished runs, which may come from any trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from climbstream.loader import Mixture
from climbstream.search.optimizer import candidates as propose
from climbstream.search.optimizer.acquisition import find_best
from climbstream.search.optimizer.answer import Answer
from climbstream.search.optimizer.conclude import choose_mixture
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.observations import Observations
from climbstream.search.optimizer.outcome import settle
from climbstream.search.optimizer.presets import ALL, PRESETS
from climbstream.search.optimizer.surrogate import Surrogate

from .run_table import PREFIX, RunTable

MEAN_WEIGHTS = "mean weights of the runs"
"""Name of the mixture with which the answer is compared if the token shares are unknown."""


def fit(
    table: RunTable,
    targets: Mapping[str, str],
    *,
    prior: Mixture | None = None,
    max_weight: float | None = None,
    seed: int = 0,
) -> Answer:
    """Return the mixture that a search would choose after the runs in ``table``.

    Args:
        table: Finished runs.
        targets: Scores to improve, by name: ``"min"`` if less is better, or ``"max"`` if more is
            better.
        prior: Token shares; None means `assumed_shares`. Its names may have the prefix
            ``w_`` of the columns, or not.
        max_weight: Largest weight of each domain; None means no limit.
        seed: Seed of the folds of cross-validation and of the candidates.

    Raises:
        UsageError: No mixture is within the limits.
        InvalidDataError: ``prior`` has a weight for a domain that is not in the table.
    """
    targets = dict(sorted(targets.items()))
    base_name = MEAN_WEIGHTS if prior is None and table.shares is None else "token shares"
    prior = assumed_shares(table) if prior is None else named_as(prior, table.domains)
    shares = prior.array(table.domains)
    limits = WeightConstraints.of(table.domains, shares, max_weight=max_weight)
    importance = np.full(len(targets), 1 / len(targets))
    known = Observations.of(table.trials, table.domains, targets, importance)
    forecast = Surrogate(known, ALL, seed)
    found = None
    if forecast.useful:
        preset, rng = PRESETS["robust"], propose.generator(seed, 1)
        priors = [propose.temper(shares, power) for power in preset.tempers]
        pool = propose.candidates(preset.pool, priors, limits, preset.concentration, rng)
        row = find_best(forecast, pool, preset, limits, rng)
        found = Mixture.of(dict(zip(table.domains, row.tolist(), strict=True)))
    answer = replace(choose_mixture(known, prior, forecast, found), base_name=base_name)
    answer = settle(answer, prior, known, names=table.names)
    if not answer.predicted_only:
        return answer
    return replace(answer, warnings=[*answer.warnings, _UNTRAINED])


_UNTRAINED = (
    "no model was trained on this mixture: train one on it before you use it, and add the run to "
    "the table"
)


def named_as(mixture: Mixture, domains: Sequence[str]) -> Mixture:
    """Return ``mixture`` with the names of ``domains``, which may differ by the prefix ``w_``.

    Raises:
        InvalidDataError: ``mixture`` has a weight for a domain that is not in ``domains``.
    """
    names = {domain.removeprefix(PREFIX): domain for domain in domains}
    names |= {domain: domain for domain in domains}
    weights = {
        names.get(name, names.get(name.removeprefix(PREFIX), name)): weight
        for name, weight in mixture.weights.items()
    }
    row = Mixture(weights).array(domains)
    return Mixture(dict(zip(domains, row.tolist(), strict=True)), mixture.about)


def repeated_note(table: RunTable) -> str:
    """Return a hint that the weights which several runs have in common may be the token shares.

    The hint is "" if the token shares are known, or no two runs have the same weights.
    """
    runs: dict[str, list[int]] = {}
    for trial in table.trials:
        runs.setdefault(trial.mixture.fingerprint, []).append(trial.number)
    most = max(runs.values(), key=len)
    if table.shares or len(most) < 2:
        return ""
    first = table.names.get(most[0], f"trial {most[0]}")
    return (
        f"{len(most):,} of {len(table.trials):,} runs have the same weights (the first is "
        f"{first}); if these weights are the token shares, save them as a mixture file and name it "
        "with --prior, so that the answer is compared with them"
    )


def assumed_shares(table: RunTable) -> Mixture:
    """Return the token shares if ``table`` states them, or the mean of the weights of all runs.

    Runs are usually drawn around this mean.
    """
    if table.shares:
        return table.shares
    rows = np.stack([trial.mixture.array(table.domains) for trial in table.trials])
    return Mixture.of(dict(zip(table.domains, rows.mean(axis=0).tolist(), strict=True)))
