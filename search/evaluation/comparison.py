"""Comparison: scores of several mixtures, their mean gains with standard errors, and a verdict.

Runs with the same seed start from the same model parameters, so part of their noise is the same.
This part cancels if mixtures are compared seed by seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from climbstream.loader.core.console import counted, decimals, with_error


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of several mixtures on one target; a lower score is better."""

    scores: dict[str, list[float]]
    """Scores by name of mixture, one per seed. The seeds are in the same order for all mixtures."""
    unit: str = "bits per byte"
    scored_on: str = ""
    """The items on which models are scored, such as ``7 documents, 21 kB of text``; "" if
    unknown."""
    item_sds: dict[tuple[str, str], float] = field(default_factory=dict)
    """For pairs of names, the standard deviation (sd) of the gain of the first mixture over the
    second, due to the choice of items (documents or questions)."""
    warning: str = ""
    """A warning, with the remedy, that the target has too few items; "" if it has enough items."""
    objection: str = ""
    """Why no gain on the target is certain, whatever its error; "" if a gain may be certain."""

    def mean(self, name: str) -> tuple[float, float]:
        """Return the mean score of a mixture and the standard error of this mean over seeds."""
        return mean_and_error(self.scores[name])

    def gain(self, name: str, over: str) -> tuple[float, float]:
        """Return the mean gain of ``name`` over ``over``, and the error of this mean.

        For each seed, the gain is the score of ``over`` minus the score of ``name``. So the gain is
        positive if ``name`` is better. The error combines the standard error over seeds with the sd
        over items, if this sd is known.
        """
        pairs = zip(self.scores[over], self.scores[name], strict=True)
        gain, error = mean_and_error([theirs - ours for theirs, ours in pairs])
        return gain, math.hypot(error, self.item_sds.get((name, over), 0.0))

    def gain_text(self, name: str, over: str) -> str:
        """Return the gain of ``name`` over ``over`` as text; "" if both are the same name.

        If both names have the same mixture, the text says so.
        """
        if over == name:
            return ""
        if over in self.same_as(name):
            return "the same mixture"
        return with_error(*self.gain(name, over), self.digits)

    def same_as(self, name: str) -> list[str]:
        """Return the other names with the same mixture as ``name``: all their scores are equal."""
        mine = self.scores[name]
        return [other for other in self.scores if other != name and self.scores[other] == mine]

    def verdict(self, name: str) -> tuple[bool, str]:
        """Return whether ``name`` beats all other mixtures, and the verdict in sentences.

        ``name`` beats all others if its gain over each of them is more than twice the error of this
        gain, if no other name has the same mixture, and if there is no ``objection``.
        """
        same = self.same_as(name)
        others = [other for other in self.scores if other not in (name, *same)]
        gains = {other: self.gain(name, other) for other in others}
        clear = not same and all(gain > 2 * error for gain, error in gains.values())
        digits = self.digits
        parts = [
            f"{other} {with_error(*self.mean(other), digits)}, "
            f"{'better' if gain >= 0 else 'worse'} by {with_error(abs(gain), error, digits)}"
            for other, (gain, error) in gains.items()
        ]
        text = f"{name} {with_error(*self.mean(name), digits)} {self.unit}"
        if parts:
            text += f" against {'; against '.join(parts)}"
        text += f"; in {counted(len(self.scores[name]), 'seed')}"
        if self.scored_on:
            text += f"; {self.scored_on} score it"
        if clear and self.objection:
            return False, f"No sure gain: {text}. {self.objection}"
        if clear:
            return True, f"{text[0].upper()}{text[1:]}."
        if same:
            return False, (
                f"No gain: {name} is the same mixture as {' and '.join(same)}, because nothing "
                f"better was found. {text[0].upper()}{text[1:]}. Give the search a larger budget, "
                "larger proxies or more text to score."
            )
        return False, (
            f"No sure gain: {text}. At least one gain is less than twice its error. Give the "
            "search a larger budget, larger proxies or more text to score, or take the simpler "
            "mixture."
        )

    @property
    def digits(self) -> int:
        """Number of decimals with which scores are shown."""
        values = [score for scores in self.scores.values() for score in scores]
        return decimals([self.mean(name)[1] for name in self.scores], values)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of ``values`` and its standard error, which is infinite for one value."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return fmean(values), error
