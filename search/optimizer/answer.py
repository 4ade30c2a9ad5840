"""Answer: what a search found, and how sure that is.

Scores are in standard deviations over the trials ("sd"), and less is better.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from climbstream.loader.core.typed import check_version, convert
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Skill

BASE = "baseline"
"""The choice that is the token-share mixture."""


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
class Candidate:
    """A mixture that may be better than the token shares."""

    choice: str
    """``measured`` or ``predicted``."""
    mixture: Mixture
    gain: float | None
    """How much better than the token shares, in sd, with luck taken off; negative if worse."""
    gain_sd: float | None
    """Uncertainty of ``gain``: it lies within one of them with 68 % confidence; None if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Candidates and token shares, run again with the same new seeds."""

    seeds: list[int]
    scores: dict[str, dict[str, list[float]]]
    """By choice and target, a score a seed."""


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
    out_of_fold: list[tuple[float, float]]
    """Of each scored trial what the others predict of it, and what it scored; in sd."""
    candidates: list[Candidate]
    """The best measured and the best predicted, if they are not the token shares."""
    front: list[Pick]
    """Of several targets: the measured mixtures that no other beats on all of them, best first."""
    confirmation: Confirmation | None = None
    """None: nothing was run again."""
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By cluster the weights between which the best mixture lies (`Search.spread`); or empty."""

    version = 1

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        fields = asdict(self)
        fields["mixture"] = self.mixture.to_json()
        for value, pick in zip(fields["front"], self.front, strict=True):
            value["mixture"] = pick.mixture.to_json()
        for name in ("measured_best", "predicted_best", "baseline"):
            if (pick := getattr(self, name)) is not None:
                fields[name]["mixture"] = pick.mixture.to_json()
        for value, candidate in zip(fields["candidates"], self.candidates, strict=True):
            value["mixture"] = candidate.mixture.to_json()
        return {"version": self.version, **fields}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no such answer.
        """
        fields = check_version(value, cls.version, "answer")
        return convert(_with_mixtures(fields), cls, "answer of a search")


def _with_mixtures(value: Any) -> Any:
    """Return ``value``, JSON, with each ``mixture`` in it read."""
    if isinstance(value, dict):
        return {
            name: Mixture.from_json(inner) if name == "mixture" else _with_mixtures(inner)
            for name, inner in value.items()
        }
    return [_with_mixtures(inner) for inner in value] if isinstance(value, list) else value
