"""Fit: the answer of a table of finished runs, whoever trained them.

A table is CSV: a row a run, a column a weight for each domain and a column a score for each target.
Of two files, one of weights and one of scores, rows are joined on the column ``run`` or ``run_id``,
as Olmix has them, or on the first one, as RegMix has them. Columns ``name`` and ``index``, and the
one without a name that pandas writes, hold no weights.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from climbstream.loader import Mixture
from climbstream.loader.errors import InvalidDataError, UsageError
from climbstream.loader.mixture import some_names

from . import propose
from .answer import Answer, conclude
from .explore import find_best
from .forecast import Forecast
from .limits import Limits
from .presets import ALL, PRESETS
from .trial import Evidence, Trial

FEWEST = 8
"""Runs with scores that a fit needs."""
_KEYS = ("run", "run_id")
"""Columns that rows of two files are joined on, if there is one."""
_LABELS = ("name", "index", "", "Unnamed: 0")
"""Columns beside them that hold no weights."""


@dataclass(frozen=True, slots=True)
class RunTable:
    """Finished runs."""

    domains: list[str]
    trials: list[Trial]
    """A run each, numbered by its row from 1; one without a finite score is failed."""


def read_runs(paths: Sequence[Path], targets: Sequence[str], weights: str | None) -> RunTable:
    """Read a table, or a file of weights and one of scores that share their first column.

    Args:
        paths: One file or two.
        targets: Columns of scores.
        weights: Pattern of the columns of weights; None for ``w_*`` of one file, or for all
            columns of the first of two but those that tell runs apart.

    Raises:
        UsageError: A column is not there, or too few runs have scores.
        InvalidDataError: A weight is no number, or a row has none.
    """
    heads, rows = _read(paths[0])
    if len(paths) == 2:
        key = _key(heads)
        domains = [
            head
            for head in heads
            if head not in (key, *_LABELS) and fnmatchcase(head, weights or "*")
        ]
        more, others = _read(paths[1])
        their_key = _key(more)
        scores = {row[their_key]: row for row in others}
        if not any(row[key] in scores for row in rows):
            raise InvalidDataError(
                f"no {key} of {paths[0]} is a {their_key} of {paths[1]}; the first are "
                f"{rows[0][key]!r} and {others[0][their_key]!r}"
            )
        rows = [scores.get(row[key], {}) | row for row in rows]
        heads = [*heads, *(head for head in more if head != their_key)]
    else:
        domains = [head for head in heads if fnmatchcase(head, weights or "w_*")]
    if not domains:
        raise UsageError(
            f"{paths[0]} has no columns {weights or 'w_*'}; say which hold weights with --weights "
            f"'PATTERN'; there are {some_names(heads)}"
        )
    if missing := [target for target in targets if target not in heads or target in domains]:
        raise UsageError(
            f"{paths[-1]} has no scores {', '.join(missing)}; there are "
            f"{some_names([head for head in heads if head not in domains])}"
        )
    trials = []
    for number, row in enumerate(rows, start=1):
        try:
            mixture = Mixture.of({domain: float(row[domain]) for domain in domains})
        except (ValueError, TypeError, KeyError, InvalidDataError) as error:
            raise InvalidDataError(f"{paths[0]}, row {number}: {error}") from None
        values = {target: _number(row.get(target)) for target in targets}
        bad = [f"{name} is {row.get(name)!r}" for name, v in values.items() if not math.isfinite(v)]
        trials.append(
            Trial(
                number=number,
                round=1,
                mixture=mixture,
                seed=0,
                scores=None if bad else values,
                why=", ".join(bad),
            )
        )
    if (scored := sum(trial.scores is not None for trial in trials)) < FEWEST:
        raise UsageError(
            f"{scored} of {len(trials)} runs have scores of {', '.join(targets)}; a fit needs "
            f"{FEWEST}"
        )
    return RunTable(domains, trials)


def fit(
    table: RunTable,
    targets: Mapping[str, str],
    *,
    prior: Mixture | None = None,
    max_weight: float | None = None,
    seed: int = 0,
) -> Answer:
    """Fit all predictors to a table, and conclude as a search does.

    Args:
        table: Finished runs.
        targets: ``"min"`` or ``"max"`` by name of score.
        prior: Token shares; None for the mean of the runs' weights.
        max_weight: Of every domain.
        seed: Of folds and candidates.

    Raises:
        UsageError: No mixture keeps the limits.
    """
    targets = dict(sorted(targets.items()))
    prior = prior or mean_weights(table)
    shares = prior.array(table.domains)
    limits = Limits.of(table.domains, shares, max_weight=max_weight)
    importance = np.full(len(targets), 1 / len(targets))
    known = Evidence.of(table.trials, table.domains, targets, importance)
    forecast = Forecast(known, ALL, seed)
    found = None
    if forecast.useful:
        preset, rng = PRESETS["robust"], propose.generator(seed, 1)
        priors = [propose.temper(shares, power) for power in preset.tempers]
        pool = propose.candidates(preset.pool, priors, limits, preset.concentration, rng)
        row = find_best(forecast, pool, preset, limits, rng)
        found = Mixture.of(dict(zip(table.domains, row.tolist(), strict=True)))
    return conclude(known, prior, forecast, found)


def mean_weights(table: RunTable) -> Mixture:
    """Mean of the weights of all runs, around which most swarms are drawn."""
    rows = np.stack([trial.mixture.array(table.domains) for trial in table.trials])
    return Mixture.of(dict(zip(table.domains, rows.mean(axis=0).tolist(), strict=True)))


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a CSV file: its heads, and a dictionary for each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataError(f"{path} is no CSV: {error}") from None
    if not rows:
        raise InvalidDataError(f"{path} has no rows under its heads")
    return list(reader.fieldnames or []), rows


def _key(heads: Sequence[str]) -> str:
    """Name the column that tells runs apart."""
    return next((head for head in heads if head in _KEYS), heads[0])


def _number(text: str | None) -> float:
    """Read a score; NaN if there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
