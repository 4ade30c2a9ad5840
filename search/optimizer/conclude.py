"""Conclude: chooses the answer of a search from measured and predicted scores.

A trial is one mixture with the scores of a model that was trained on it. A mixture that is chosen
as the best of many was also lucky. The optimism of its gain is the part of the gain that is due to
this luck. Scores and gains are in standard deviations ("sd") of the scores of all trials.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import NORMAL_95

from .acquisition import Bootstrap
from .answer import BASE, Answer, Candidate, Pick
from .observations import Observations
from .surrogate import Surrogate

NORMAL_80 = 0.8416
"""The 80 % quantile of the normal distribution."""
MIN_GAIN_SDS = NORMAL_95
"""A gain counts as certain if it is at least this many times its sd. This limit is for gains that
were corrected for optimism, which the bootstrap estimates, if predictions are surely useful."""
MIN_RAW_GAIN_SDS = 2.5
"""Any other gain counts as certain if it is at least this many times its sd.
docs/decisions/searching.md has the rate of false gains with each of the two limits."""
OPTIMISM_SD = 0.5
"""Fraction of the optimism found by the bootstrap that is added to the sd of a gain."""


def choose_mixture(
    known: Observations,
    base: Mixture,
    forecast: Surrogate | None,
    found: Mixture | None = None,
    copies: Bootstrap | None = None,
) -> Answer:
    """Choose between the best measured mixture, the best predicted one and the token shares.

    The best of a hundred noisy scores is mostly luck. So scores are first corrected for luck:

    - With a Gaussian process, the process predicts a score from the scores of similar mixtures.
    - Without a process, a score is shrunk towards its prediction from the other trials (`shrink`).

    If the best predicted mixture is better than the best measured mixture after this correction,
    the predicted mixture is taken, else the measured one.

    The gain of this mixture over the token shares still contains optimism, because the mixture was
    chosen among thousands. If `bootstrap` has estimated the optimism, this estimate is subtracted
    from the gain. The gain must then exceed `MIN_GAIN_SDS` times its sd. Without an estimate, or if
    predictions may be useful only by chance, the gain must exceed `MIN_RAW_GAIN_SDS` times its sd.
    If the gain is smaller, the answer is the token shares.

    The ``reason`` of the answer is left empty; `settle` writes it.

    Args:
        known: The scored trials.
        base: The token shares.
        forecast: Predictions from the trials; None if there are no predictions.
        found: The mixture that is predicted best; None if predictions are useless.
        copies: Estimate of the optimism of a gain; None if there is no estimate.
    """
    evidence = _Evidence.of(known, base, forecast, copies)
    best = min(evidence.measured, key=lambda pick: pick.score)
    predicted = None
    if forecast is not None and found is not None:
        predicted = evidence.predicted_pick(forecast, found)
    lead = None if predicted is None else evidence.lead(predicted, best)
    choice, pick = "measured", best
    if predicted is not None and lead is not None and lead > 0 and evidence.doubt is not None:
        choice, pick = "predicted", predicted
    gain, gain_sd = evidence.gain(pick)
    if evidence.baseline and gain is not None and gain <= evidence.threshold * (gain_sd or 0.0):
        choice, pick = BASE, evidence.baseline
    pairs = (
        []
        if forecast is None
        else zip(forecast.expected.tolist(), known.total.tolist(), strict=True)
    )
    return Answer(
        mixture=Mixture(pick.mixture.weights, {"choice": choice}),
        choice=choice,
        reason="",
        measured_best=best,
        predicted_best=predicted,
        baseline=evidence.baseline,
        noise=evidence.noise,
        gain=gain,
        gain_sd=gain_sd,
        table=[] if forecast is None else forecast.table,
        out_of_fold=list(pairs),
        candidates=_candidates(evidence, best, predicted),
        front=front_of(evidence.measured, known.targets) if len(known.targets) > 1 else [],
    )


@dataclass(frozen=True, slots=True)
class _Evidence:
    """The measured and predicted scores of mixtures, in sd, with the errors of these scores."""

    known: Observations
    base: Mixture
    measured: list[Pick]
    """All mixtures that have scores."""
    baseline: Pick | None
    """The token shares; None if they have no score."""
    noise: float | None
    """Sd of the scores of repeated runs of one mixture; None without repeats."""
    doubt: float | None
    """Cautious estimate of the sd of scores between runs of one mixture; None if unknown."""
    error: float
    """Sd of measured scores around ``expected``."""
    expected: NDArray[np.float64]
    """Joint score of each trial as predicted from the other trials, ``[n]``; zeros without
    predictions."""
    process: Surrogate | None
    """Predictions that can estimate the sd of a gain, because they use Gaussian processes; None if
    there are none, or if they are useless."""
    copies: Bootstrap | None
    """Results of searches on resampled scores, which estimate optimism; None without them."""

    @classmethod
    def of(
        cls,
        known: Observations,
        base: Mixture,
        forecast: Surrogate | None,
        copies: Bootstrap | None,
    ) -> Self:
        """Collect the evidence, with the predictions of ``forecast`` if they are useful."""
        noise, freedom = known.noise()
        measured = [measured_pick(known, rows, noise) for rows in known.repeats()]
        baseline = next((pick for pick in measured if pick.mixture == base), None)
        useful = forecast if forecast is not None and forecast.useful else None
        error = useful.error if useful else float(known.total.std())
        # Without repeats, all errors of the predictions count as noise.
        doubt = error if useful else None
        if noise is not None:
            doubt = min(upper_confidence_sd(noise, freedom, NORMAL_95), error)
        return cls(
            known=known,
            base=base,
            measured=measured,
            baseline=baseline,
            noise=noise,
            doubt=doubt,
            error=error,
            expected=useful.expected if useful else np.zeros_like(known.total),
            process=useful if useful and useful.knows_gaps else None,
            copies=copies,
        )

    def predicted_pick(self, forecast: Surrogate, mixture: Mixture) -> Pick:
        """Return ``mixture`` with the scores that ``forecast`` predicts."""
        row = self._row(mixture)[None]
        scores, errors = forecast.scores(row), forecast.sds(row)[0] * np.abs(self.known.scale)
        return Pick(
            mixture=mixture,
            score=float(self.known.joined(scores)[0]),
            sd=self.error,
            scores=self.known.units(scores[0]),
            trials=[],
            errors=dict(zip(self.known.targets, errors.tolist(), strict=True)),
        )

    def lead(self, predicted: Pick, best: Pick) -> float:
        """Return the gain, in sd, of ``predicted`` over ``best``, corrected for luck."""
        if self.process:
            return self.process.gain(self._row(predicted.mixture), self._row(best.mixture))[0]
        return self._believe(best)[0] - predicted.score

    def gain(self, pick: Pick) -> tuple[float | None, float | None]:
        """Return the gain of ``pick`` over the token shares and the sd of the gain, both in sd.

        A value that is unknown is None.
        """
        if self.baseline is None:
            return None, None
        if self.process:
            gain, sd = self.process.gain(self._row(pick.mixture), self._row(self.base))
            optimism = self._optimism(pick)
            return gain - optimism, math.hypot(sd, OPTIMISM_SD * optimism)
        score, sd = self._believe(pick)
        if self.doubt is None:
            return self.baseline.score - score, None
        baseline_sd = self.doubt / math.sqrt(len(self.baseline.trials))
        return self.baseline.score - score, math.hypot(sd, baseline_sd)

    def gains(self, pick: Pick) -> dict[str, tuple[float, float]]:
        """Return the gain of ``pick`` over the token shares and its sd, by target, in sd.

        The importances of targets sum to 1. So if the optimism of the joint gain is subtracted from
        the gain on each target, the weighted mean of these gains is the joint gain.
        """
        if self.process is None or self.baseline is None:
            return {}
        gains, sds = self.process.gains(self._row(pick.mixture), self._row(self.base))
        optimism = self._optimism(pick)
        gains, sds = gains - optimism, np.hypot(sds, OPTIMISM_SD * optimism)
        pairs = zip(gains.tolist(), sds.tolist(), strict=True)
        return dict(zip(self.known.targets, pairs, strict=True))

    @property
    def threshold(self) -> float:
        """Size from which a gain over the token shares is certain, in multiples of its sd."""
        sure = self.copies is not None and self.process is not None and self.process.surely_useful
        return MIN_GAIN_SDS if sure else MIN_RAW_GAIN_SDS

    def _optimism(self, pick: Pick) -> float:
        """Return the optimism in the gain of ``pick``, in sd: see `choose_mixture`."""
        if self.copies is None or pick.mixture == self.base:
            return 0.0
        return self.copies.measured_optimism if pick.trials else self.copies.predicted_optimism

    def _row(self, mixture: Mixture) -> NDArray[np.float64]:
        return mixture.array(list(self.base.weights))

    def _believe(self, pick: Pick) -> tuple[float, float]:
        """Return the score of a pick, corrected for luck, and the sd of that score."""
        rows = [i for i, trial in enumerate(self.known.trials) if trial.number in pick.trials]
        if self.doubt is None:
            return pick.score, 0.0
        expected = float(self.expected[rows].mean()) if rows else pick.score
        return shrink(pick.score, expected, len(rows), self.doubt, self.error)


def _candidates(evidence: _Evidence, best: Pick, predicted: Pick | None) -> list[Candidate]:
    """Return the best measured and best predicted mixtures that are not the token shares."""
    candidates = []
    for choice, pick in (("measured", best), ("predicted", predicted)):
        if pick is not None and pick.mixture != evidence.base:
            gain, sd = evidence.gain(pick)
            candidates.append(
                Candidate(
                    choice=choice,
                    mixture=pick.mixture,
                    gain=gain,
                    gain_sd=sd,
                    gains=evidence.gains(pick),
                )
            )
    return candidates


def front_of(picks: Sequence[Pick], targets: Mapping[str, str]) -> list[Pick]:
    """Return the ``picks`` that no other pick dominates, ordered by joint score, best first.

    A pick dominates another pick if it is no worse on every target and better on at least one.
    ``targets`` maps names of targets to ``"min"`` if less is better, or ``"max"`` if more is
    better.
    """
    signs = np.array([1.0 if way == "min" else -1.0 for way in targets.values()])
    losses = np.array([[pick.scores[name] for name in targets] for pick in picks]) * signs
    no_worse = (losses[:, None] <= losses).all(axis=2)
    better = (losses[:, None] < losses).any(axis=2)
    beaten = (no_worse & better).any(axis=0)
    kept = [pick for pick, out in zip(picks, beaten.tolist(), strict=True) if not out]
    return sorted(kept, key=lambda pick: pick.score)


def shrink(
    mean: float, expected: float, repeats: int, noise: float, error: float
) -> tuple[float, float]:
    """Combine the measured mean score of a mixture with its expected score.

    Args:
        mean: Mean of the measured scores.
        expected: Prediction from the other trials.
        repeats: Number of measured scores; may be 0.
        noise: Sd of one measured score due to luck.
        error: Sd of measured scores around their predictions, which includes ``noise``.

    Returns:
        Mean and sd of the posterior normal distribution of the mixture's true score. The prior is a
        normal distribution with mean ``expected``.
    """
    doubt = max(error**2 - noise**2, 0.0)
    if not repeats:
        return expected, math.sqrt(doubt)
    variance = noise**2 / repeats
    trust = doubt / (doubt + variance) if doubt + variance > 0 else 1.0
    return expected + trust * (mean - expected), math.sqrt(trust * variance)


def upper_confidence_sd(sd: float, freedom: int, quantile: float = NORMAL_80) -> float:
    """Return an upper confidence bound of ``sd``, which has ``freedom`` degrees of freedom.

    ``quantile`` of the normal distribution states the confidence; by default it is 80 %. Few
    repeats often agree by chance, so that ``sd`` is too small. So with few degrees of freedom, the
    bound is far above ``sd``: 4 times ``sd`` with one degree, 1.5 times ``sd`` with five degrees.
    """
    # Wilson and Hilferty's approximation of the lower quantile of chi-squared. At 95 % with one
    # degree of freedom, the approximation is negative; the true value is .004.
    part = 2 / (9 * freedom)
    return sd / math.sqrt(max(1 - part - quantile * math.sqrt(part), 0.158) ** 3)


def measured_pick(known: Observations, rows: NDArray[np.int64], noise: float | None) -> Pick:
    """Return a mixture with its mean score over ``rows``, the repeated trials of this mixture.

    ``noise`` is the sd of one score; None means unknown.
    """
    return Pick(
        mixture=known.trials[rows[0]].mixture,
        score=float(known.joined(known.scores[rows].mean(axis=0, keepdims=True))[0]),
        sd=None if noise is None else noise / math.sqrt(len(rows)),
        scores=known.units(known.scores[rows].mean(axis=0)),
        trials=[known.trials[row].number for row in rows],
    )
