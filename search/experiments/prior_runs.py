"""Prior runs: finished training runs of other models, on mixtures of the same clusters.

Prior runs are read from tables in the format of `climb fit`, or from folders of searches. Prior
runs do not become trials of the new search, because their models have another size or were trained
for longer. Prior runs guide the search only if they improve predictions in cross-validation
(`EarlierRuns`). The search reports, for each target, whether they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import hash_file
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import SEARCH, TRIALS, contents_of
from climbstream.search.optimizer.trials import Trial
from climbstream.search.predictors.base import Floats, Skill, spearman
from climbstream.search.predictors.earlier_runs import EARLIER, EarlierRuns
from climbstream.search.predictors.gaussian_process import Feature

from .run_table import read_runs, score_names


@dataclass(frozen=True, slots=True)
class PriorRuns:
    """Runs of other models, by target."""

    hashes: dict[str, str]
    """Hash of each table, by the path of the table."""
    swarms: dict[str, list[tuple[Floats, Floats]]]
    """For each target: weights ``[n, K]`` and scores ``[n]`` of each table that has its scores."""

    @classmethod
    def read(
        cls,
        paths: Sequence[Path],
        clusters: Sequence[str],
        targets: Sequence[str],
        shards: str = "",
    ) -> Self:
        """Read tables and folders of searches.

        Args:
            paths: CSV files with a column ``w_CLUSTER`` for each cluster, or folders of searches,
                ordered by the cost of their models, the cheapest first.
            clusters: Names of the clusters.
            targets: Names of the columns of scores; a table may lack some of them.
            shards: Fingerprint of the shards. A search in a folder must have used these shards; ""
                allows any shards.

        Raises:
            UsageError: A table has no scores of any target, lacks weights of ``clusters`` or has
                weights of other clusters, or has too few runs.
            InvalidDataError: A table is damaged, or a folder holds a search on other shards.
        """
        hashes: dict[str, str] = {}
        swarms: dict[str, list[tuple[Floats, Floats]]] = {target: [] for target in targets}
        for place in paths:
            path = _table(place, shards)
            hashes[str(place)] = hash_file(path)
            names = score_names(path)
            if not (shared := [target for target in targets if target in names]):
                raise UsageError(
                    f"--prior-runs {place}: it has no scores of {', '.join(targets)}; it has "
                    f"scores of {some_names(names)}"
                )
            for target in shared:
                swarms[target].append(_swarm(path, place, clusters, target))
        return cls(hashes, {target: some for target, some in swarms.items() if some})

    def by_target(self, features: Mapping[str, Feature] | None = None) -> dict[str, EarlierRuns]:
        """Return, for each target, a predictor of scores that is fitted to the prior runs.

        ``features`` has a function for each target, by name, that predicts scores without any run.
        This function becomes the mean of the first Gaussian process in the target's `EarlierRuns`.
        """
        features = features or {}
        return {t: EarlierRuns(swarms, features.get(t)) for t, swarms in self.swarms.items()}

    def told(
        self,
        earlier: Mapping[str, EarlierRuns],
        trials: Sequence[Trial],
        clusters: Sequence[str],
        table: Sequence[Skill],
    ) -> tuple[list[str], list[str]]:
        """Return what the search reports on how well the prior runs predict ``trials``, by target.

        ``table`` has the quality of the search's predictors (`Skill`). A target without predictors
        in ``table`` is left out: too few trials have scores on it.

        Returns:
            Two lists: a sentence for each target whose predictions the prior runs improve, and a
            warning for each target whose predictions they make worse.
        """
        errors = {(skill.target, skill.predictor): skill.nmse for skill in table}
        scored = [trial for trial in trials if trial.scores is not None]
        weights = np.array([trial.mixture.array(clusters) for trial in scored])
        told, warnings = [], []
        for target, runs in earlier.items():
            before = errors.get((target, "gaussian process"))
            after = errors.get((target, f"gaussian process on {EARLIER}"))
            if before is None or after is None:
                continue
            scores = np.array([(trial.scores or {})[target] for trial in scored])
            rank = abs(spearman(runs(weights), scores))
            what = (
                f"on {target}, predictions from {runs.rows:,} prior runs have a rank correlation "
                f"of {rank:.2f} with the scores of {len(scored):,} proxies; the squared error of "
                f"predictions, as a fraction of the variance, is {after:.2f} with these runs and "
                f"{before:.2f} without"
            )
            if after <= before:
                told.append(f"{what}.")
            else:
                warnings.append(f"{what}, so these runs are not used for {target}")
        return told, warnings


def _table(place: Path, shards: str) -> Path:
    """Return the file of runs at ``place``: the table itself, or the log of trials of a search.

    Raises:
        UsageError: ``place`` is a folder that holds no search.
        InvalidDataError: The search used shards with another fingerprint than ``shards``.
    """
    if not place.is_dir():
        return place
    if not SEARCH.has(place):
        raise UsageError(
            f"--prior-runs {place} is {contents_of(place) or 'no search'}. Name the --out of a "
            "climb search, or a table"
        )
    on = read_plan(place / SEARCH.plan).get("shards")
    if shards and on != shards:
        raise InvalidDataError(
            f"--prior-runs {place}: that search was on shards {on}, and these are {shards}, so its "
            "clusters are different; --from can use trials of a search from before climb regroup "
            "or climb build --append"
        )
    return place / TRIALS


def _swarm(path: Path, place: Path, clusters: Sequence[str], target: str) -> tuple[Floats, Floats]:
    """Return weights ``[n, K]`` and scores ``[n]`` of the runs that have scores of ``target``."""
    table = read_runs([path], [target], None)
    if missing := [name for name in clusters if name not in table.domains]:
        raise UsageError(
            f"--prior-runs {place}: it has no weights of {some_names(missing)}; it has weights of "
            f"{some_names(table.domains)}"
        )
    if others := [name for name in table.domains if name not in clusters]:
        raise UsageError(
            f"--prior-runs {place}: its weights {some_names(others)} belong to no cluster of this "
            f"search; the clusters are {some_names(list(clusters))}"
        )
    scored = [trial for trial in table.trials if trial.scores is not None]
    weights = np.array([trial.mixture.array(clusters) for trial in scored])
    return weights, np.array([(trial.scores or {})[target] for trial in scored])
