"""From what was measured and is predicted to the mixture that is answered."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import Mixture

from .answer import BASE, Answer, Candidate, Pick
from .observations import Observations
from .surrogate import Surrogate

MIN_GAIN_SDS = 2.5
"""A gain counts from so many times its sd on: 12 of 180 searches in pure noise got there."""


def choose_mixture(
    known: Observations, base: Mixture, forecast: Surrogate | None, found: Mixture | None
) -> Answer:
    """Choose between the best measured, the best predicted and the token-share mixture.

    The best of a hundred noisy scores is lucky for the most part, so luck is allowed for: by a
    Gaussian process, to which a score is no more than a part of what is known of a mixture; where
    there is none, by shrinking it towards what the other trials predict (`shrink`). The predicted
    best is taken if it is better than what is left of the measured best. Whichever is taken must
    surely beat the token-share mixture, by `MIN_GAIN_SDS` times the sd of its gain.

    Args:
        known: The evidence.
        base: The token-share mixture.
        forecast: What is predicted from the evidence; None if nothing is.
        found: The mixture that is predicted best; None if predictions are useless.
    """
    noise, freedom = known.noise()
    measured = [measured_pick(known, rows, noise) for rows in known.repeats()]
    baseline = next((pick for pick in measured if pick.mixture == base), None)
    best = pick = min(measured, key=lambda pick: pick.score)
    useful = forecast is not None and forecast.useful
    process = forecast if forecast and useful and forecast.knows_gaps else None
    error = forecast.error if forecast and useful else float(known.total.std())
    expected = forecast.expected if forecast and useful else np.zeros_like(known.total)
    # Without repeats, all that is not predicted counts as noise.
    doubt = (
        min(upper_confidence_sd(noise, freedom), error)
        if noise is not None
        else error
        if useful
        else None
    )

    def row(mixture: Mixture) -> NDArray[np.float64]:
        return mixture.array(list(base.weights))

    def believe(pick: Pick) -> tuple[float, float]:
        """Score and sd of what was measured or predicted, luck allowed for."""
        rows = [i for i, trial in enumerate(known.trials) if trial.number in pick.trials]
        if doubt is None:
            return pick.score, 0.0
        at = float(expected[rows].mean()) if rows else pick.score
        return shrink(pick.score, at, len(rows), doubt, error)

    choice, predicted = "measured", None
    if forecast is None or found is None:
        second = f"nothing can be predicted from {len(known.trials)} scored trials"
    else:
        scores = forecast.scores(row(found)[None])
        predicted = Pick(
            mixture=found,
            score=float(known.joined(scores)[0]),
            sd=error,
            scores=known.units(scores[0]),
            trials=[],
        )
        lead = (
            process.gain(row(found), row(best.mixture))[0]
            if process
            else believe(best)[0] - predicted.score
        )
        second = (
            f"the predicted best is {abs(lead):.2f} sd {'better' if lead > 0 else 'worse'} than "
            "what is left of the measured best when luck is allowed for, and noise is "
            + ("unknown" if noise is None else f"{noise:.2f} sd")
        )
        if doubt is not None and lead > 0:
            choice, pick = "predicted", predicted

    def gain_of(pick: Pick) -> tuple[float | None, float | None]:
        """Gain over the token shares, and its sd."""
        if baseline is None:
            return None, None
        if process:
            return process.gain(row(pick.mixture), row(base))
        score, sd = believe(pick)
        if doubt is None:
            return baseline.score - score, None
        return baseline.score - score, math.hypot(sd, doubt / math.sqrt(len(baseline.trials)))

    candidates = []
    for kind, each in (("measured", best), ("predicted", predicted)):
        if each is not None and each.mixture != base:
            more, sd = gain_of(each)
            candidates.append(Candidate(choice=kind, mixture=each.mixture, gain=more, gain_sd=sd))
    gain, gain_sd = gain_of(pick)
    name = f"trial {pick.trials[0]}" if pick.trials else "the predicted best"
    if baseline is None:
        first = f"{name} has {_listed(pick)}, and the token-share mixture has no score"
    else:
        assert gain is not None
        if pick is baseline:
            first = f"of {len(measured)} mixtures none scored better ({_listed(pick)})"
        else:
            left = "an unknown part" if gain_sd is None else f"{gain:.2f} ± {gain_sd:.2f} sd"
            first = (
                f"{name} ({_listed(pick)}) is {baseline.score - pick.score:.2f} sd better than the "
                f"token-share mixture ({_listed(baseline)}), of which {left} is not luck"
            )
        if gain <= MIN_GAIN_SDS * (gain_sd or 0.0):
            choice, pick = BASE, baseline
            first = f"no gain over the token-share mixture: {first}"
    return Answer(
        mixture=Mixture(pick.mixture.weights, {"choice": choice}),
        choice=choice,
        reason=f"{first[0].upper()}{first[1:]}; {second}.",
        measured_best=best,
        predicted_best=predicted,
        baseline=baseline,
        noise=noise,
        gain=gain,
        gain_sd=gain_sd,
        table=[] if forecast is None else forecast.table,
        out_of_fold=[]
        if forecast is None
        else list(zip(forecast.expected.tolist(), known.total.tolist(), strict=True)),
        candidates=candidates,
        front=front_of(measured, known.targets) if len(known.targets) > 1 else [],
    )


def front_of(picks: Sequence[Pick], targets: Mapping[str, str]) -> list[Pick]:
    """Return those of ``picks`` that no other beats on one target and equals on the rest.

    ``targets`` are ``"min"`` or ``"max"`` by name. The order is that of their joined scores.
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


def upper_confidence_sd(sd: float, freedom: int) -> float:
    """Return what an ``sd`` with ``freedom`` degrees of freedom does not pass, at 80 % confidence.

    A few repeats agree by chance often: with one degree of freedom this is 4 times ``sd``, with 5
    it is 1.5 times.
    """
    # Wilson and Hilferty's approximation of chi-squared, at the normal quantile of 20 %.
    part = 2 / (9 * freedom)
    return sd / math.sqrt((1 - part - 0.8416 * math.sqrt(part)) ** 3)


def measured_pick(known: Observations, rows: NDArray[np.int64], noise: float | None) -> Pick:
    """Join ``rows`` of the evidence, the repeats of one mixture; ``noise`` is the sd of one."""
    return Pick(
        mixture=known.trials[rows[0]].mixture,
        score=float(known.joined(known.scores[rows].mean(axis=0, keepdims=True))[0]),
        sd=None if noise is None else noise / math.sqrt(len(rows)),
        scores=known.units(known.scores[rows].mean(axis=0)),
        trials=[known.trials[row].number for row in rows],
    )


def _listed(pick: Pick) -> str:
    """Name the scores of ``pick``: ``arc 0.41, piqa 1.93``."""
    return ", ".join(f"{name} {score:.5g}" for name, score in pick.scores.items())
