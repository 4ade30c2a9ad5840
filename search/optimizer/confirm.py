"""Confirm: the candidates for the answer are run again, side by side, before one is believed.

The best of many is lucky for the most part. So the mixtures that may become the answer and the
token shares are run with new seeds, the same for all; differences within a seed are free of what
its runs have in common. They are weighed together with what the search knew.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from climbstream.loader.formats.mixture import Mixture

from .answer import BASE, Answer, Candidate, Confirmation
from .conclude import MIN_GAIN_SDS, upper_confidence_sd
from .observations import Observations
from .trials import Trial

_NAMES = {"measured": "the measured best", "predicted": "the predicted best"}


def to_confirm(answer: Answer, base: Mixture) -> dict[str, Mixture]:
    """Return the mixtures to run again: ``baseline``, ``measured`` and ``predicted`` if others.

    Empty if nothing but the token-share mixture is left.
    """
    found = {BASE: base} | {c.choice: c.mixture for c in answer.candidates}
    return found if len(found) > 1 else {}


def confirm(answer: Answer, base: Mixture, trials: Sequence[Trial], known: Observations) -> Answer:
    """Choose again, by ``trials`` of what `to_confirm` names.

    Args:
        answer: What the search concluded.
        base: The token-share mixture, brought under the limits.
        trials: Runs of the candidates; seeds of which one failed do not count.
        known: The evidence that ``answer`` was concluded from, which says how scores are joined.
    """
    mixtures = to_confirm(answer, base)
    by_seed: dict[int, dict[str, Trial]] = {}
    for trial in trials:
        name = next(name for name, mixture in mixtures.items() if mixture == trial.mixture)
        if trial.scores is not None:
            by_seed.setdefault(trial.seed, {})[name] = trial
    whole = {seed: of for seed, of in sorted(by_seed.items()) if of.keys() == mixtures.keys()}
    if not whole:
        return replace(answer, reason=f"{answer.reason} All runs to confirm that failed.")
    scores = {
        name: {
            target: [(of[name].scores or {})[target] for of in whole.values()]
            for target in known.targets
        }
        for name in mixtures
    }
    totals = {
        name: known.joined(known.standard(np.array([*by.values()]).T))
        for name, by in scores.items()
    }
    # What is left without the means of mixtures and of seeds is noise.
    left = np.stack([*totals.values()])
    left = left - left.mean(axis=1, keepdims=True) - left.mean(axis=0) + left.mean()
    freedom = (left.shape[0] - 1) * (left.shape[1] - 1)
    noise, repeats = known.noise()
    squares = float((left**2).sum())
    doubts = [upper_confidence_sd(math.sqrt(squares / freedom), freedom)] if freedom else []
    if noise is not None:
        # That of single runs is no less; a few pairs say less of it than all repeats together.
        pooled = (squares + repeats * noise**2) / (freedom + repeats)
        doubts += [upper_confidence_sd(math.sqrt(pooled), freedom + repeats)]
    error = min(doubts) * math.sqrt(2 / len(whole)) if doubts else None

    def weigh(candidate: Candidate) -> tuple[Candidate, float]:
        """Join what the search knew of a gain with what the runs say; and return the latter."""
        gain = float((totals[BASE] - totals[candidate.choice]).mean())
        if error is None or candidate.gain is None or candidate.gain_sd is None:
            return replace(candidate, gain=gain, gain_sd=error), gain
        if abs(gain - candidate.gain) > MIN_GAIN_SDS * math.hypot(candidate.gain_sd, error):
            # They contradict each other, and these runs were not chosen for their luck.
            return replace(candidate, gain=gain, gain_sd=error), gain
        # Equal runs leave no doubt at all, and divide by it.
        one, other = (max(sd, 1e-9) ** -2 for sd in (candidate.gain_sd, error))
        joined = (one * candidate.gain + other * gain) / (one + other)
        return replace(candidate, gain=joined, gain_sd=(one + other) ** -0.5), gain

    weighed = [weigh(candidate) for candidate in answer.candidates]
    best, again = max(weighed, key=lambda pair: pair[0].gain or 0.0)
    assert best.gain is not None
    sure = again > 0 and best.gain_sd is not None and best.gain > MIN_GAIN_SDS * best.gain_sd
    by_target = ", ".join(
        f"{target} {fmean(ours):.5g} against {fmean(theirs):.5g}"
        for (target, ours), theirs in zip(
            scores[best.choice].items(), scores[BASE].values(), strict=True
        )
    )
    doubt = "" if best.gain_sd is None else f" ± {best.gain_sd:.2f}"
    said = (
        f"run again with {len(whole)} seeds, {_NAMES[best.choice]} is {abs(again):.2f} sd "
        f"{'better' if again > 0 else 'worse'} than the token-share mixture ({by_target}); with "
        f"what the search knew the gain is {best.gain:.2f}{doubt} sd"
    )
    first = said if sure else f"no gain over the token-share mixture is sure: {said}"
    choice, mixture = (best.choice, best.mixture) if sure else (BASE, base)
    return replace(
        answer,
        mixture=Mixture(mixture.weights, {"choice": choice}),
        choice=choice,
        reason=f"{first[0].upper()}{first[1:]}. Before that: {answer.reason}",
        gain=best.gain,
        gain_sd=best.gain_sd,
        candidates=[candidate for candidate, _ in weighed],
        confirmation=Confirmation(seeds=[*whole], scores=scores),
    )
