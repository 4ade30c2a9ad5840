"""Comparison: scores of several mixtures, their mean gains with standard errors, and the verdict.

Runs with the same seed start from the same weights. So mixtures are compared seed by seed, which
cancels part of the noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from climbstream.loader.core.console import counted, decimals, with_error


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of several mixtures on one target, lower is better."""

    scores: dict[str, list[float]]
    """Scores by name of mixture, one for each seed, in the same order of seeds."""
    unit: str = "bits per byte"
    scored_on: str = ""
    """What scores the target: ``7 documents, 21 kB of text``; or ""."""
    item_sds: dict[tuple[str, str], float] = field(default_factory=dict)
    """For two names of mixtures, the sd of the gain of the first over the second that is due to the
    choice of items."""
    warning: str = ""
    """A warning that too few items score the target, with the remedy; or ""."""

    def mean(self, name: str) -> tuple[float, float]:
        """Mean score of a mixture and its standard error."""
        return mean_and_error(self.scores[name])

    def gain(self, name: str, over: str) -> tuple[float, float]:
        """Mean paired gain of one mixture over another, positive if better, and its error.

        The error is that over seeds, joined with that over items if it is known.
        """
        pairs = zip(self.scores[over], self.scores[name], strict=True)
        gain, error = mean_and_error([theirs - ours for theirs, ours in pairs])
        return gain, math.hypot(error, self.item_sds.get((name, over), 0.0))

    def gain_text(self, name: str, over: str) -> str:
        """Say the gain of ``name`` for a cell of a table; "" over itself."""
        if over == name:
            return ""
        if over in self.same_as(name):
            return "the same mixture"
        return with_error(*self.gain(name, over), self.digits)

    def same_as(self, name: str) -> list[str]:
        """Name the others with the same score for each seed: models of the same mixture."""
        mine = self.scores[name]
        return [other for other in self.scores if other != name and self.scores[other] == mine]

    def verdict(self, name: str) -> tuple[bool, str]:
        """Return whether ``name`` beats all others, and a sentence.

        It does if each gain is more than twice its standard error.
        """
        same = self.same_as(name)
        others = [other for other in self.scores if other not in (name, *same)]
        gains = {other: self.gain(name, other) for other in others}
        holds = not same and all(gain > 2 * error for gain, error in gains.values())
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
        if holds:
            return True, f"{text[0].upper()}{text[1:]}."
        if same:
            return False, (
                f"No gain: {name} is the same mixture as {' and '.join(same)}, because nothing "
                f"better was found. {text[0].upper()}{text[1:]}. Give the search a larger budget, "
                "larger proxies or more text to score."
            )
        return False, (
            f"No sure gain: {text}. Not every gain is twice its error. Give the search a larger "
            "budget, larger proxies or more text to score, or take the simpler mixture."
        )

    @property
    def digits(self) -> int:
        """How many decimals of the scores to show."""
        values = [score for scores in self.scores.values() for score in scores]
        return decimals([self.mean(name)[1] for name in self.scores], values)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error; the error of a single value is infinite."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return fmean(values), error
