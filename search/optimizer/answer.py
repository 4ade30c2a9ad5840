"""Answer: the mixture of a search, and how sure its gain is.

Scores are in standard deviations over the trials ("sd"), and less is better.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from climbstream.loader.core.typed import check_version, convert
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Skill

BASE = "baseline"
"""The choice of the token shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A mixture and its score, measured or predicted."""

    mixture: Mixture
    score: float
    """Score in sd; lower is better, 0 is the mean of all trials."""
    sd: float | None
    """Uncertainty of ``score``; of a prediction, its error out of fold. None: unknown."""
    scores: dict[str, float]
    """Scores by target, in the target's own units."""
    trials: list[int]
    """Numbers of the trials whose mean it is; empty if predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A mixture that may be better than the token shares."""

    choice: str
    """``measured`` or ``predicted``."""
    mixture: Mixture
    gain: float | None
    """Gain over the token shares in sd, after allowing for luck; negative if worse."""
    gain_sd: float | None
    """Standard error of ``gain``: the true gain is within it with 68 % confidence; None:
    unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Scores of candidates and token shares that were run again with the same new seeds."""

    seeds: list[int]
    scores: dict[str, dict[str, list[float]]]
    """Scores by choice and target, one for each seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Scores of the best mixture and of the token shares on one target, in its own unit."""

    target: str
    unit: str
    """Unit of the scores, such as ``bits per byte``; "" if the search does not know it."""
    best: float | None
    """Score of the answer. If the answer is the token shares, the score of the best other mixture,
    or None."""
    best_sd: float | None
    """Its standard error over runs; None if unknown, as in all that follows."""
    baseline: float | None
    baseline_sd: float | None
    gain: float | None
    """How much better the best is, negative if worse."""
    gain_sd: float | None
    """Uncertainty of ``gain`` by runs and by items."""
    item_sd: float | None
    """The part of it that is due to the choice of documents or questions."""
    seeds: int
    """Number of seeds with which both were run side by side; 0: they were not."""
    items: int | None
    """Number of documents or questions that score the target."""
    scored_on: str
    """Their number and amount of text, such as ``7 documents, 21 kB of text``; or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The mixture that a search chose, and how sure its gain is."""

    mixture: Mixture
    """The mixture to train on."""
    choice: str
    """``measured``, ``predicted``, or ``baseline``: nothing surely beats the token shares."""
    reason: str
    """The result in a sentence, in the target's unit, with the interval of the gain."""
    measured_best: Pick
    predicted_best: Pick | None
    """The predicted best; None if predictions are no better than the mean of all scores."""
    baseline: Pick | None
    """The token shares, within the limits; None if no run of them has scores."""
    noise: float | None
    """Sd of a score between runs of one mixture; None without repeats."""
    gain: float | None
    """Gain over ``baseline`` in sd, after allowing for luck; negative if worse."""
    gain_sd: float | None
    """Uncertainty of ``gain``; None without repeats."""
    table: list[Skill]
    """How good the predictor of each target is on mixtures that it was not fitted on."""
    out_of_fold: list[tuple[float, float]]
    """For each scored trial, its prediction from the others and its score, in sd."""
    candidates: list[Candidate]
    """The best measured and the best predicted, if they are not the token shares."""
    front: list[Pick]
    """With several targets: the measured mixtures that no other beats on all of them, best
    first."""
    confirmation: Confirmation | None = None
    """Scores of the candidates that were run again; None: nothing was."""
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For each cluster, the weights between which the best mixture lies (`Search.spread`); or
    empty."""
    outcomes: list[Outcome] = field(default_factory=list)
    """The numbers behind ``reason``, by target, in the target's own unit."""
    dependence: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """By target and cluster: weights, and what is predicted with them (`Search.dependence`)."""
    warnings: list[str] = field(default_factory=list)
    """A warning for each target that too few items score, with the remedy, and for each that runs
    of other models do not tell."""

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
    """Return the JSON ``value`` with a `Mixture` in place of each ``mixture``."""
    if isinstance(value, dict):
        return {
            name: Mixture.from_json(inner) if name == "mixture" else _with_mixtures(inner)
            for name, inner in value.items()
        }
    return [_with_mixtures(inner) for inner in value] if isinstance(value, list) else value
