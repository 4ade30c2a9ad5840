"""Answer: what a search found, and how sure that is.

Scores are in standard deviations over the trials ("sd"), and less is better.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.mixture import Mixture

from .predictor import Floats, Skill
from .trial import Evidence

SURE = 2.5
"""A gain counts from so many times its sd on: 12 of 180 searches in pure noise got there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A mixture and its score, measured or predicted."""

    mixture: Mixture
    score: float
    """In sd, lower is better, 0 is the mean of all trials."""
    sd: float | None
    """Uncertainty of ``score``, None if unknown; of a prediction, its error out of fold."""
    scores: dict[str, float]
    """By target, in the target's own units."""
    trials: list[int]
    """Numbers of the trials whose mean it is; none if predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search found, and how sure that is."""

    mixture: Mixture
    """The one to train on."""
    choice: str
    """``measured``, ``predicted``, or ``baseline``: nothing surely beats the token shares."""
    reason: str
    measured_best: Pick
    predicted_best: Pick | None
    """None if predictions are no better than the mean of all scores."""
    baseline: Pick | None
    """The token-share mixture, brought under the caps; None if no run of it has scores."""
    noise: float | None
    """Sd of a score between runs of one mixture; None without repeats."""
    gain: float | None
    """How much better than ``baseline``, in sd, after allowing for luck; negative if worse."""
    gain_sd: float | None
    """Uncertainty of ``gain``; None without repeats."""
    table: list[Skill]
    """What the predictor of each target is worth on mixtures that it was not fitted on."""

    version = 1

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        fields = asdict(self)
        fields["mixture"] = self.mixture.to_json()
        for name in ("measured_best", "predicted_best", "baseline"):
            if (pick := getattr(self, name)) is not None:
                fields[name]["mixture"] = pick.mixture.to_json()
        return {"version": self.version, **fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is predicted from the evidence."""

    best: Pick | None
    """Of the mixtures not measured; None if predictions are no better than a mean of scores."""
    expected: Floats
    """Total of each trial as predicted from the others, ``[n]``; without ``best`` 0, the mean."""
    error: float
    """Sd of the totals around ``expected``."""
    table: list[Skill]


def conclude(
    known: Evidence, measured: Sequence[Pick], baseline: Pick | None, forecast: Forecast
) -> Answer:
    """Choose between the best measured, the best predicted and the token-share mixture.

    The predicted best is taken if it beats the measured best by more than the noise. Whichever
    is taken must surely beat the token-share mixture: the best of a hundred noisy scores is lucky
    for the most part, so its gain is what `gain_over` leaves of it, and `SURE` times its sd.

    Args:
        known: The evidence.
        measured: One pick for each mixture in it.
        baseline: The one of them that is the token-share mixture, if that has scores.
        forecast: What is predicted from the evidence.
    """
    noise, _ = known.noise()
    best = pick = min(measured, key=lambda pick: pick.score)
    choice = "measured"
    if forecast.best is None:
        second = f"nothing can be predicted from {len(known.trials)} scored trials"
    else:
        lead = best.score - forecast.best.score
        second = (
            f"the predicted best is {abs(lead):.2f} sd {'better' if lead > 0 else 'worse'} than "
            f"the measured best, and noise is {'unknown' if noise is None else f'{noise:.2f} sd'}"
        )
        if noise is not None and lead > noise:
            choice, pick = "predicted", forecast.best

    gain = gain_sd = None
    name = f"trial {pick.trials[0]}" if pick.trials else "the predicted best"
    if baseline is None:
        first = f"{name} has {_listed(pick)}, and the token-share mixture has no score"
    else:
        gain, gain_sd = gain_over(baseline, pick, known, forecast)
        if pick is baseline:
            first = f"of {len(measured)} mixtures none scored better ({_listed(pick)})"
        else:
            left = "an unknown part" if gain_sd is None else f"{gain:.2f} ± {gain_sd:.2f} sd"
            first = (
                f"{name} ({_listed(pick)}) is {baseline.score - pick.score:.2f} sd better than the "
                f"token-share mixture ({_listed(baseline)}), of which {left} is not luck"
            )
        if gain <= SURE * (gain_sd or 0.0):
            choice, pick = "baseline", baseline
            first = f"no gain over the token-share mixture: {first}"
    return Answer(
        mixture=Mixture(pick.mixture.weights, {"choice": choice}),
        choice=choice,
        reason=f"{first[0].upper()}{first[1:]}; {second}.",
        measured_best=best,
        predicted_best=forecast.best,
        baseline=baseline,
        noise=noise,
        gain=gain,
        gain_sd=gain_sd,
        table=forecast.table,
    )


def gain_over(
    baseline: Pick, pick: Pick, known: Evidence, forecast: Forecast
) -> tuple[float, float | None]:
    """Return by how much ``pick`` beats ``baseline`` when luck is allowed for, and the sd of that.

    What was measured is weighed against what the other trials predict. The noise is taken to be
    as large as repeats allow, and not larger than what predictions leave unexplained. Without
    repeats nothing is known about luck: then it is the plain difference, and no sd.
    """
    noise, freedom = known.noise()
    if noise is None:
        return baseline.score - pick.score, None
    noise = min(upper(noise, freedom), forecast.error)
    rows = [row for row, trial in enumerate(known.trials) if trial.number in pick.trials]
    expected = float(forecast.expected[rows].mean()) if rows else pick.score
    score, sd = believed(pick.score, expected, len(rows), noise, forecast.error)
    return baseline.score - score, math.hypot(sd, noise / math.sqrt(len(baseline.trials)))


def believed(
    mean: float, expected: float, repeats: int, noise: float, error: float
) -> tuple[float, float]:
    """Weigh what was measured of a mixture against what is expected of it.

    Args:
        mean: Of the scores measured.
        expected: What the other trials predict.
        repeats: Scores measured; may be 0.
        noise: Sd of one score.
        error: Sd of scores around what is expected of them, noise included.

    Returns:
        Score and sd of the mixture itself: the posterior of a normal with a normal prior.
    """
    doubt = max(error**2 - noise**2, 0.0)
    if not repeats:
        return expected, math.sqrt(doubt)
    variance = noise**2 / repeats
    trust = doubt / (doubt + variance) if doubt + variance > 0 else 1.0
    return expected + trust * (mean - expected), math.sqrt(trust * variance)


def upper(sd: float, freedom: int) -> float:
    """Return what an ``sd`` with ``freedom`` degrees of freedom does not pass, at 80 % confidence.

    A few repeats agree by chance often: with one degree of freedom this is 4 times ``sd``, with 5
    it is 1.5 times.
    """
    # Wilson and Hilferty's approximation of chi-squared, at the normal quantile of 20 %.
    part = 2 / (9 * freedom)
    return sd / math.sqrt((1 - part - 0.8416 * math.sqrt(part)) ** 3)


def measured_pick(known: Evidence, rows: NDArray[np.int64]) -> Pick:
    """Join ``rows`` of the evidence, the repeats of one mixture."""
    noise, _ = known.noise()
    return Pick(
        mixture=known.trials[rows[0]].mixture,
        score=float(known.total[rows].mean()),
        sd=None if noise is None else noise / math.sqrt(len(rows)),
        scores=known.units(known.scores[rows].mean(axis=0)),
        trials=[known.trials[row].number for row in rows],
    )


def _listed(pick: Pick) -> str:
    """Name the scores of ``pick``: ``arc 0.41, piqa 1.93``."""
    return ", ".join(f"{name} {score:.5g}" for name, score in pick.scores.items())
