"""Search: proposes mixtures, receives their scores, and chooses the best mixture.

This module trains no models: the caller does. A trial is one mixture with its scores. A predictor
is a model that is fitted to trials and predicts the scores of other mixtures.

A search consists of rounds of trials. The first round has three kinds of mixtures:

- the token shares, several times, because repeats show the noise between runs;
- equal weights;
- random draws around the token shares.

Each later round has the mixtures that may be the best ones according to predictors. These
predictors are fitted to the trials of all earlier rounds. The mixtures of a round depend only on
the settings and on the trials of earlier rounds. So a search that is opened again on its log asks
for the same mixtures as a search that was never closed. If the log has other mixtures than would be
proposed now, the mixtures in the log are used.

A search can be opened on its log with other settings, such as a larger budget. It then continues
from the trials in the log. Mixtures of the last round that have no trial yet are not asked for
again. New rounds share the rest of the budget.

Internally, the scores on each target are standardised over the trials, and signed so that less is
better. The score on several targets is the weighted mean of these standardised scores. So
differences between scores are in standard deviations ("sd") of the scores of all trials.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import short
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Floats, Skill
from climbstream.search.predictors.earlier_runs import EARLIER, EarlierRuns
from climbstream.search.predictors.gaussian_process import Feature

from . import candidates as propose
from .acquisition import Bootstrap, bootstrap, find_best, most_informative
from .answer import Answer
from .conclude import choose_mixture
from .confirm import confirm, to_confirm
from .constraints import Group, WeightConstraints, by_name
from .items import ItemEvidence
from .observations import Observations
from .outcome import settle
from .presets import PRESETS
from .surrogate import Surrogate
from .transfer import Columns, Overlap, level, rows_of
from .trials import Trial, TrialLog, read_outcome

logger = get_logger(__name__)

FEWEST = 8
"""Number of scored trials below which no predictor is fitted."""

PROXY_SETTINGS = ("clusters", "seed")
"""Settings that decide the scores of trials, so a search cannot continue with other values."""

_SMALL_ROUNDS, _DRAWN_ROUNDS = (1,) * 8, 2
"""Two settings for a search that begins with trials of an earlier search.

The first is the ratio in which rounds share the budget. The rounds are small, because the mixtures
of a round are chosen by the scores of all trials before it. The second is the number of rounds,
from the first on, whose mixtures are drawn around the token shares. The earlier search may have
joined several clusters into one; the drawn mixtures then show the effect of each of these clusters
(docs/decisions/groupings.md)."""
_STARTS = 2_000
"""Largest number of drawn mixtures from which each search of a bootstrap starts."""
_COPIES = 20
"""Number of searches in the bootstrap that estimates how much of a gain is luck."""
_OWN_MIXTURE = (
    "; pass a mixture of your own to enqueue(), and ask() then returns it; climb fit takes runs "
    "that have ended"
)
_CURVES, _CURVE_POINTS, _CURVE_ROWS = 24, 7, 40
"""Three limits of `Search.dependence`: the largest number of clusters, the number of weights per
cluster, and the approximate number of mixtures over which a prediction is averaged."""


class Search:
    """Finds the mixture of ``clusters`` that is best for ``targets``, in ``budget`` trials.

    >>> search = Search(["c00", "c01"], {"loss": "min"}, budget=4)
    >>> while mixtures := search.ask():
    ...     for mixture in mixtures:
    ...         trial = search.tell(mixture, {"loss": mixture.weights["c00"]})
    >>> trial.number, trial.round, search.result().mixture.weights["c00"] < 0.5
    (4, 4, True)

    Args:
        clusters: Names of the clusters, in the order of the manifest.
        targets: ``"min"`` or ``"max"`` by name of the target; or a list of targets to minimise.
        budget: Number of trials, including failed trials.
        preset: Name of the method of search, a key of `PRESETS`.
        prior: Token shares, around which mixtures are drawn. None means equal weights. A cluster
            with weight 0 in ``prior`` has weight 0 in every mixture.
        max_weight: Largest weight: one number for all clusters, or numbers by name of the cluster
            (1 if a name is missing). All limits of weights hold in every mixture, so the token
            shares and equal weights are moved within the limits.
        min_weight: Smallest weight by name of the cluster (0 if a name is missing).
        pinned: Fixed weights by name of the cluster.
        groups: Groups of clusters by name of the group. A group limits the sum of the weights of
            its clusters.
        allowed: How much worse than with the token shares a score may be, in the target's own
            unit, by name of the target. ``{"arc": 0.01}`` allows scores on arc that are worse by up
            to 0.01.
        features: Functions by target, which estimate scores before any trial. Each maps mixtures
            ``[m, K]`` (``K`` clusters) to scores ``[m]``. A function is used only if it makes
            predictions better in cross-validation.
        earlier_runs: Estimates of scores from runs of other models, by target. An estimate is used
            only if it makes predictions better in cross-validation.
        seed: Seed of all random choices, and of the proxies.
        log: File of the trials, or a log that is open. If it has trials, the search continues from
            them. Clusters, seed and the directions of targets must then be the same as in the log;
            other settings may differ.
        rounds: Ratio in which the rounds share the budget. None means the ratio of the preset.
        importance: Weight of each target in the mean over targets (1 if a target is missing).
        confirm: Number of seeds with which the best mixtures and the token shares are run again
            after the budget is spent. 0 means that nothing is run again. See the module
            `confirm`.

    Raises:
        UsageError: A setting is impossible, or the log is of a search with other settings.
        InvalidDataError: The prior is no mixture of the clusters, or the log is damaged.
    """

    def __init__(
        self,
        clusters: Sequence[str],
        targets: Mapping[str, str] | Sequence[str],
        *,
        budget: int = 112,
        preset: str = "robust",
        prior: Mixture | Mapping[str, float] | None = None,
        max_weight: float | Mapping[str, float] | None = None,
        min_weight: Mapping[str, float] | None = None,
        pinned: Mapping[str, float] | None = None,
        groups: Mapping[str, Group] | None = None,
        allowed: Mapping[str, float] | None = None,
        features: Mapping[str, Feature] | None = None,
        earlier_runs: Mapping[str, EarlierRuns] | None = None,
        seed: int = 0,
        log: str | Path | TrialLog | None = None,
        rounds: Sequence[int] | None = None,
        importance: Mapping[str, float] | None = None,
        confirm: int = 0,
    ) -> None:
        if preset not in PRESETS:
            raise UsageError(f"there is no preset {preset!r}; the presets are {', '.join(PRESETS)}")
        if isinstance(clusters, str):
            raise UsageError(f"clusters are a list of names, not {clusters!r}; pass [{clusters!r}]")
        self.preset, self.clusters = PRESETS[preset], list(clusters)
        self.targets, self.seed = _directions(targets), seed
        rounds = list(rounds or self.preset.rounds)
        check_settings(self.clusters, self.targets, budget, seed, rounds, confirm)
        self._repeats = 1 if budget < 8 else min(6, 2 + budget // 16)

        self._prior = _shares(prior, self.clusters)
        self._base_name = "equal weights" if prior is None else "token shares"
        self._limits = WeightConstraints.of(
            self.clusters,
            self._prior,
            min_weight=min_weight,
            max_weight=max_weight,
            pinned=pinned,
            groups=groups,
        )
        (self._base,) = self._limits.project(self._prior[None])
        self._importance = importance_by_target(importance or {}, list(self.targets))
        self._allowed = dict(allowed or {})
        by_name("allowed", self._allowed, list(self.targets))
        self.earlier_runs = dict(earlier_runs or {})
        kinds: dict[str, Mapping[str, Feature]] = {
            EARLIER: self.earlier_runs,
            "prior": features or {},
        }
        self._features = {
            target: {on: some[target] for on, some in kinds.items() if target in some}
            for target in self.targets
        }
        self.table: list[Skill] = []
        self._fitted: tuple[list[int], Surrogate] | None = None
        """The last surrogate, and the numbers of the trials that it was fitted to."""
        self._copies: dict[tuple[Surrogate, int], Bootstrap] = {}

        settings = self._settings(preset, budget, rounds, confirm)
        self.log = _open_log(log, settings)
        overlap = (self.log.origin or {}).get("overlap")
        self._columns = Columns(self.clusters, overlap and Overlap.from_json(overlap))
        self._plan_rounds(budget, rounds, confirm)

    def _settings(
        self, preset: str, budget: int, rounds: Sequence[int], confirm: int
    ) -> dict[str, object]:
        """Return the settings that the log keeps, as JSON values."""
        return {
            "clusters": self.clusters,
            "targets": self.targets,
            "importance": dict(zip(self.targets, self._importance.tolist(), strict=True)),
            "budget": budget,
            "preset": preset,
            "rounds": rounds,
            "prior": dict(zip(self.clusters, self._prior.tolist(), strict=True)),
            **self._limits.to_json(self.clusters),
            "allowed": self._allowed,
            "seed": self.seed,
            "confirm": confirm,
        }

    def _plan_rounds(self, budget: int, rounds: Sequence[int], confirm: int) -> None:
        """Divide the budget among new rounds; their numbers follow those of all earlier rounds."""
        earlier = [*self.log.earlier, *self.log.apart]
        self._drawn = 0
        """Number of rounds, from the first on, whose mixtures are drawn without predictions."""
        self._first = max((trial.round for trial in earlier), default=0)
        """Number of the last round that was run with earlier settings; 0 if there is none."""
        self._first_number = max((trial.number for trial in earlier), default=0)
        """Number of the last trial that was run with earlier settings; 0 if there is none."""
        if sum(trial.scores is not None for trial in earlier) >= FEWEST and any(rounds[1:]):
            rounds = rounds[1:]  # the first round is large only because it has no earlier trials
            if self.log.origin is not None and self.preset.later == "explore":
                rounds, self._drawn = _SMALL_ROUNDS, _DRAWN_ROUNDS
        self._sizes = propose.split_budget(max(0, budget - self.log.spent), rounds)
        self._last = self._first + len(self._sizes)
        """Number of the last round of the budget. A round that confirms the answer may follow."""
        seed = max([self.seed + budget, *(trial.seed + 1 for trial in earlier)])
        self._seeds = range(seed, seed + confirm)
        """Seeds of the runs that confirm the answer; no other run has one of these seeds."""
        self._asked: list[Mixture] = []
        self._round = self._first

    @property
    def base(self) -> Mixture:
        """The token shares, moved within the limits; the answer is compared with this mixture."""
        return self._mixture(self._base)

    @property
    def planned(self) -> int:
        """Number of trials that count in the budget when the search ends.

        Trials that confirmed an earlier answer, or were carried over from another search, do not
        count.
        """
        return self.log.spent + sum(self._sizes)

    @property
    def waiting(self) -> int:
        """Number of enqueued mixtures that have no trial yet."""
        return len(self._enqueued(self._last, self.log.trials))

    @property
    def to_confirm(self) -> int:
        """Largest number of trials that confirm the answer after the budget is spent.

        With each seed, up to three mixtures are run again: the token shares, the best measured and
        the best predicted one.
        """
        return 3 * len(self._seeds)

    @property
    def done(self) -> int:
        """Number of trials so far that count in the budget or confirm the present answer."""
        return self.log.spent + len(self.log.trials) - len(self.log.earlier)

    def ask(self) -> list[Mixture]:
        """Return the mixtures of the present round that have no trial yet.

        If all mixtures of the round have trials, the next round begins. The list is empty at the
        end of the search.

        The ``about`` of each mixture has its ``trial`` number, its ``round`` and the ``seed`` for
        its proxy. Different mixtures have the same seed, so that their runs differ only in the
        mixture. Repeats of one mixture have different seeds.
        """
        return self._open_trials()

    def tell(
        self, mixture: Mixture, outcome: Mapping[str, float | None] | BaseException | None
    ) -> Trial:
        """Record the outcome of a mixture that `ask` returned; return its trial.

        ``outcome`` is the scores by target or, if the run failed, the exception or None. A trial
        also counts as failed if the score of a target is NaN, infinite or None. A failed trial is
        kept and counts in the budget, but no predictor is fitted to it. Scores under names that are
        not targets are also kept in the trial.

        Raises:
            UsageError: `ask` did not return the mixture, its outcome was told before, or the score
                of a target is missing.
        """
        asked = self._find(mixture)
        if isinstance(outcome, int | float):
            raise UsageError(
                f"the outcome is {outcome}; give scores by target, as "
                f"{{{next(iter(self.targets))!r}: {outcome}}}"
            )
        scores, why = read_outcome(outcome, list(self.targets))
        trial = Trial(
            number=asked.about["trial"],
            round=asked.about["round"],
            mixture=Mixture(asked.weights),
            seed=asked.about["seed"],
            scores=scores,
            why=why,
            config=self.log.config,
        )
        self.log.append(trial)
        return trial

    def enqueue(self, mixture: Mixture | Mapping[str, float]) -> None:
        """Add ``mixture`` to the next round, in place of a mixture that the search would propose.

        If that round is full, the mixture comes in a later one.

        If the mixture was asked for or enqueued before, nothing is added, and a message says so. So
        a program that enqueues mixtures can be started again on its log.

        Raises:
            UsageError: ``mixture`` is outside the limits, or does not fit into the remaining
                rounds.
            InvalidDataError: ``mixture`` is no mixture of the clusters.
        """
        row = _shares(mixture, self.clusters)
        (nearest,) = self._limits.project(row[None])
        if not np.allclose(row, nearest, rtol=0, atol=1e-9):
            weights, within = (self._mixture(each).weights for each in (row, nearest))
            raise UsageError(
                f"the mixture {short(weights)} lies outside of the limits of weights; the nearest "
                f"within them is {short(within)}"
            )
        own, before = self._mixture(row), self.log.trials
        # Use the log too: `_round` of a reopened search may be before the round of its last trial.
        begun = max([self._round, *(trial.round for trial in before)])
        for other in [*self._asked, *map(_asked, before)]:
            if other == own:
                logger.info(
                    f"the mixture {short(own.weights)} is trial {other.about['trial']} already, so "
                    "it is not enqueued again"
                )
                return
        waiting = self._enqueued(self._last, [*before, *self._asked])
        if own in waiting:
            logger.info(f"the mixture {short(own.weights)} is enqueued already")
            return
        places = sum(self._sizes[begun - self._first :])
        if begun == self._first and places and self._anchors(before):
            places -= 1  # for the token shares
        if len(waiting) >= places:
            raise UsageError(
                f"no mixture can be enqueued: the rounds that are left have room for {places}, and "
                f"{len(waiting)} of these places are taken; open the search with a larger budget "
                "(--budget)"
            )
        self.log.enqueue(own, begun + 1)

    def result(self, evidence: ItemEvidence | None = None) -> Answer:
        """Return the answer that follows from the trials so far.

        `choose_mixture`, `confirm` and `settle` document how the mixture is chosen.

        Args:
            evidence: The scores of trials on each item (document or question) of the targets. None
                if these scores are unknown.

        Raises:
            UsageError: No trial has scores yet.
        """
        known = self._evidence(self._searched())
        if not known.measured:
            raise UsageError(
                f"none of {len(self.log.trials)} trials has scores, so there is nothing to "
                "conclude from; tell at least one"
            )
        answer = replace(self._conclude(known), base_name=self._base_name)
        again = self._repeated()
        base = self.base
        if again:
            answer = confirm(answer, base, again, known)
        return settle(answer, base, known, again, evidence)

    def spread(self, draws: int = _COPIES) -> dict[str, tuple[float, float]]:
        """Return the 10th and 90th percentile of each cluster's weight in the best mixture.

        The percentiles are over ``draws`` searches for the best mixture. Each of these searches
        uses another resample of the scores (`bootstrap`). If the interval of a cluster is wide, the
        weight of that cluster has little effect on the scores. The result is empty if nothing can
        be predicted.
        """
        forecast = self._forecast(self._evidence(self._searched()))
        if forecast is None or not forecast.useful:
            return {}
        low, high = np.percentile(self._bootstrap(forecast, draws).best, (10, 90), axis=0)
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        return dict(zip(self.clusters, pairs, strict=True))

    def dependence(self, most: int = _CURVES) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """Predict the score of each target at several weights of each cluster.

        At most ``most`` clusters are included: those whose weights had the largest sds over trials.
        The method is partial dependence (Friedman 2001). To predict the score at one weight,
        measured mixtures are changed: the cluster gets this weight, and the other clusters keep the
        ratios of their weights. The score is the mean prediction over these changed mixtures.

        Returns:
            Pairs of a weight and a score, by target and then by cluster. The scores are in the
            target's own unit. The result is empty if nothing can be predicted.
        """
        forecast = self._forecast(self._evidence(self._searched()))
        if forecast is None or not forecast.useful:
            return {}
        known = forecast.known
        rows = known.weights[:: -(-len(known.weights) // _CURVE_ROWS)]
        chosen = np.argsort(-known.weights.std(axis=0), kind="stable")[:most]
        curves: dict[str, dict[str, list[tuple[float, float]]]] = {t: {} for t in self.targets}
        for k in sorted(chosen.tolist()):
            for weight in np.linspace(0.0, known.weights[:, k].max(), _CURVE_POINTS).tolist():
                rest = np.delete(rows, k, axis=1)
                # Skip mixtures of this cluster alone: the ratios of the other clusters are 0 / 0.
                rest = rest[rest.sum(axis=1) > 1e-6]
                rest *= (1 - weight) / rest.sum(axis=1, keepdims=True)
                mean = forecast.scores(np.insert(rest, k, weight, axis=1)).mean(axis=0)
                scores = known.units(mean)
                for target, score in scores.items():
                    curves[target].setdefault(self.clusters[k], []).append((weight, score))
        return curves

    def _open_trials(self) -> list[Mixture]:
        """Return the mixtures without scores; propose the next round if all have scores.

        A search that is opened on a log first goes through the rounds in the log.
        """
        told = {trial.number for trial in self.log.trials}
        while not (rest := [m for m in self._asked if m.about["trial"] not in told]):
            if self._round == self._last + bool(self._seeds):
                return []
            self._round += 1
            self._asked += self._begin_round()
        return rest

    def _begin_round(self) -> list[Mixture]:
        """Return the mixtures of the round: those in the log, and newly proposed ones.

        Under a trial number, the log may have another mixture than the one that would be proposed
        now, for example because another version of this program proposed it. Then the mixture in
        the log is returned, because it was measured.
        """
        trials = [trial for trial in self.log.trials if trial.round > self._first]
        logged = {trial.number: _asked(trial) for trial in trials if trial.round == self._round}
        begun = [trial.number for trial in trials if trial.round <= self._round]
        if len(begun) < len(trials) and begun[-1:] == [self._first_number + len(begun)]:
            return list(logged.values())  # a later round has begun, so this round is complete
        confirming = self._round > self._last
        proposed = self._repeat() if confirming else self._propose(self._round)
        return [logged.get(mixture.about["trial"], mixture) for mixture in proposed]

    def _searched(self) -> list[Trial]:
        """Return the trials of this budget, and all trials from before the present settings."""
        return [trial for trial in self.log.trials if trial.round <= self._last]

    def _repeated(self) -> list[Trial]:
        """Return the trials that confirm the answer; they do not count in the budget."""
        return [trial for trial in self.log.trials if trial.round > self._last]

    def _conclude(self, known: Observations) -> Answer:
        forecast = self._forecast(known)
        base = self.base
        if forecast is None or (found := self._predict_best(known, forecast)) is None:
            return choose_mixture(known, base, forecast)
        copies = self._bootstrap(forecast, _COPIES) if forecast.knows_gaps else None
        return choose_mixture(known, base, forecast, found, copies)

    def _predict_best(self, known: Observations, forecast: Surrogate) -> Mixture | None:
        """Return the mixture that is predicted best; None if nothing can be predicted.

        If runs to confirm the answer are in the log, the mixture is taken from these runs.
        """
        if not forecast.useful:
            return None
        measured = {trial.mixture.fingerprint for trial in self._searched()}
        for trial in self._repeated():
            if trial.mixture.fingerprint not in measured:
                return trial.mixture
        rng = propose.generator(self.seed, self._last + 1)
        tried = known.weights[: known.measured]
        pool = propose.unmeasured(self._draw(self.preset.pool, rng), tried)
        if not len(pool):
            return None
        return self._mixture(find_best(forecast, pool, self.preset, self._limits, rng))

    def _bootstrap(self, forecast: Surrogate, draws: int) -> Bootstrap:
        if (key := (forecast, draws)) not in self._copies:
            rng = propose.generator(self.seed, self._last + 2)
            pool = self._draw(min(self.preset.pool, _STARTS), rng)
            # Keep only the bootstrap of the last forecast, because it is fitted to the most trials.
            self._copies = {key: bootstrap(forecast, self._base, pool, self._limits, draws, rng)}
        return self._copies[key]

    def _evidence(self, trials: Sequence[Trial]) -> Observations:
        trials, apart = self._levelled(trials)
        return Observations.of(
            trials,
            self.clusters,
            self.targets,
            self._importance / self._importance.sum(),
            self._allowed,
            self.base,
            self._columns,
            apart,
        )

    def _levelled(self, trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Return ``trials`` and `TrialLog.apart`, with the scores of carried trials shifted.

        Carried trials come from an earlier search. Their scores are shifted to the level of this
        search's own trials (`transfer.level`). If cells and targets have not changed, no score is
        shifted.
        """
        apart, origin = self.log.apart, self.log.origin
        if origin is None or origin.get("same"):
            return list(trials), apart
        carried = [trial for trial in trials if self.log.is_carried(trial)]
        own = [trial for trial in trials if not self.log.is_carried(trial)]
        scored = [trial for trial in own if trial.scores is not None]
        there, here = (self._columns.of(rows_of(t, self.clusters)) for t in (carried, scored))
        if apart:
            there = np.concatenate([there, self._columns.of_old(apart)[1]])
        told = level([*carried, *apart], there, scored, here, list(self.targets))
        return [*told[: len(carried)], *own], told[len(carried) :]

    def _forecast(self, known: Observations) -> Surrogate | None:
        """Return predictors fitted to ``known``; None if there are too few trials or predictors."""
        if len(known.trials) < FEWEST or not self.preset.predictors:
            return None
        numbers = [trial.number for trial in known.trials]
        if self._fitted is None or self._fitted[0] != numbers:
            makes = self.preset.predictors
            forecast = Surrogate(known, makes, self.seed, self._features, self._columns)
            self._fitted = numbers, forecast
            self.table = forecast.table
        return self._fitted[1]

    def _propose(self, round_: int) -> list[Mixture]:
        """Return the mixtures of a round, proposed from the trials before that round."""
        known = self._evidence(before := [t for t in self.log.trials if t.round < round_])
        tried = [trial.mixture.array(self.clusters) for trial in before]
        size = self._sizes[round_ - self._first - 1]
        anchors = [mixture.array(self.clusters) for mixture in self._enqueued(round_, before)]
        if round_ == self._first + 1 and (first := self._anchors(before)):
            # One place is for the token shares, with which the answer is compared.
            anchors = [*anchors[: max(0, size - 1)], *first]
        anchors = anchors[:size]
        size -= len(anchors)
        rng = propose.generator(self.seed, round_)
        drawn = round_ <= self._first + self._drawn
        forecast = None if drawn else self._forecast(known)
        pool = self._draw(4 * size if forecast is None else self.preset.pool, rng)
        pool = propose.unmeasured(pool, self._rows([*tried, *anchors]))
        if forecast is None or not len(pool) or not size:
            rows = pool[:size]
        elif self.preset.later == "top":
            total = forecast.total(pool)
            rows = propose.from_top(pool, total, self.preset.top * size, size, rng)
        else:
            forecast = forecast.exploring()
            rows = most_informative(forecast, pool, self._rows(tried), size, self._limits, rng)
        runs = [(trial.mixture, trial.seed) for trial in before]
        number = self._first_number + len(self._asked)
        asked: list[Mixture] = []
        for row in [*anchors, *rows]:
            mixture = self._mixture(row)
            seed = next(s for s in itertools.count(self.seed) if (mixture, s) not in runs)
            runs.append((mixture, seed))
            about = {"trial": number + len(asked) + 1, "round": round_, "seed": seed}
            asked.append(Mixture(mixture.weights, about))
        return asked

    def _repeat(self) -> list[Mixture]:
        """Return the mixtures of the round that confirms the answer, each with every seed."""
        known = self._evidence(self._searched())
        if not known.trials:
            return []
        mixtures = to_confirm(self._conclude(known), self.base)
        return [
            Mixture(mixture.weights, {"trial": number, "round": self._round, "seed": seed})
            for number, (seed, mixture) in enumerate(
                itertools.product(self._seeds, mixtures.values()),
                self._first_number + len(self._asked) + 1,
            )
        ]

    def _anchors(self, before: Sequence[Trial]) -> list[Floats]:
        """Return the mixtures to measure first: the repeated token shares, and equal weights.

        Repeats that trials in ``before`` have measured already are left out. If trials were carried
        over from another search, equal weights are left out, because they would add little.
        """
        live = (self._prior > 0).astype(np.float64)
        (uniform,) = self._limits.project(live[None] / live.sum())
        base, even = self.base, self._mixture(uniform)
        mixtures = [trial.mixture for trial in before]
        anchors = [self._base] * max(0, self._repeats - mixtures.count(base))
        carried = self.log.origin is not None and bool(before)
        if carried or np.allclose(uniform, self._base) or even in mixtures:
            return anchors
        return [*anchors, uniform]

    def _enqueued(self, round_: int, before: Sequence[Trial | Mixture]) -> list[Mixture]:
        """Return the enqueued mixtures that may be in ``round_`` and are not in ``before``."""
        mixtures = [each.mixture if isinstance(each, Trial) else each for each in before]
        return [m for first, m in self.log.enqueued if first <= round_ and m not in mixtures]

    def _draw(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` candidates, ``[n, K]``; fewer candidates if there are very many clusters."""
        # With a thousand clusters, the largest pool would take gigabytes.
        n = min(n, 10_000_000 // len(self.clusters))
        priors = [propose.temper(self._prior, power) for power in self.preset.tempers]
        return propose.candidates(n, priors, self._limits, self.preset.concentration, rng)

    def _rows(self, rows: Sequence[Floats]) -> Floats:
        return np.array(rows, np.float64).reshape(-1, len(self.clusters))

    def _mixture(self, row: Floats) -> Mixture:
        return Mixture.of(dict(zip(self.clusters, row.tolist(), strict=True)))

    def _find(self, mixture: Mixture) -> Mixture:
        """Return the mixture that was asked for under the trial number of ``mixture``."""
        number = mixture.about.get("trial") if isinstance(mixture, Mixture) else None
        told = {trial.number: trial.status for trial in self.log.trials}
        if number in told:
            raise UsageError(f"trial {number} was told before ({told[number]}); tell each once")
        asked = {m.about["trial"]: m for m in self._open_trials()}
        if number is None or asked.get(number) != mixture:
            raise UsageError(
                f"the search did not ask for this mixture (trial {number}); tell a mixture that "
                "ask() returned, with its number in .about: open are "
                + (f"trials {min(asked)} to {max(asked)}" if asked else "none")
                + ("" if number else _OWN_MIXTURE)
            )
        return asked[number]


def _open_log(log: str | Path | TrialLog | None, settings: dict[str, object]) -> TrialLog:
    """Return the ``log`` of a search, which continues with ``settings``; None begins a new log."""
    if log is None:
        return TrialLog(settings)
    if not isinstance(log, TrialLog):
        return TrialLog.open(Path(log), settings, PROXY_SETTINGS)
    log.continue_with(settings, PROXY_SETTINGS)
    return log


def _asked(trial: Trial) -> Mixture:
    """Return the mixture of ``trial`` as `Search.ask` returned it."""
    about = {"trial": trial.number, "round": trial.round, "seed": trial.seed}
    return Mixture(trial.mixture.weights, about)


def _directions(targets: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return ``min`` or ``max`` by target; ``min`` for all targets if ``targets`` is a list.

    The result is sorted by name, so that sums over targets do not depend on the given order.

    Raises:
        UsageError: ``targets`` are neither names nor directions by name.
    """
    if isinstance(targets, Mapping):
        return dict(sorted(targets.items()))
    names = [targets] if isinstance(targets, str) else list(targets)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(
            f'targets must be a dictionary of directions, such as {{"piqa": "min"}}, or names of '
            f"targets to minimise, not {short(targets)}"
        )
    return dict.fromkeys(sorted(names), "min")


def check_settings(
    clusters: Sequence[str],
    targets: Mapping[str, str],
    budget: int,
    seed: int,
    rounds: Sequence[int],
    confirm: int,
) -> None:
    """Raise `UsageError` for the first impossible setting."""
    if confirm < 0:
        raise UsageError(f"confirm is a number of seeds, 0 or more, not {confirm}")
    if not clusters or len(set(clusters)) < len(clusters):
        raise UsageError(f"clusters are different names, at least one, not {list(clusters)}")
    if not targets or not set(targets.values()) <= {"min", "max"}:
        raise UsageError(f'targets are "min" or "max" by name, at least one, not {dict(targets)}')
    if budget < 1 or seed < 0:
        raise UsageError(f"budget is 1 or more and seed 0 or more, not {budget} and {seed}")
    if min(rounds) < 0 or not any(rounds):
        raise UsageError(f"rounds are a ratio such as 4, 2, 1, not {list(rounds)}")


def importance_by_target(importance: Mapping[str, float], targets: Sequence[str]) -> Floats:
    """Return the weight of each of ``targets`` in the mean over targets, ``[T]``; 1 by default.

    Raises:
        UsageError: A target is unknown, a weight is negative, or all are 0.
    """
    weights = by_name("importance", importance, targets)
    if not weights.any():
        raise UsageError(f"importance must have a number that is not 0, not {dict(importance)}")
    return weights


def _shares(prior: Mixture | Mapping[str, float] | None, clusters: Sequence[str]) -> Floats:
    """Return the token shares ``prior`` as ``[K]``; equal weights if ``prior`` is None."""
    if prior is None:
        prior = Mixture.uniform(list(clusters))
    elif not isinstance(prior, Mixture):
        prior = Mixture.of(prior)
    return prior.array(clusters)
