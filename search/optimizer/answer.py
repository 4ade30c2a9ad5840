"""Answer: the mixture that a search chose, and how certain its gain is.

A trial is one mixture with the scores of a model that was trained on it. Scores and gains "in sd"
are in standard deviations of the scores of all trials. A lower score is better.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from climbstream.loader.core.typed import check_version, convert
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import Skill

BASE = "baseline"
"""Value of ``choice`` for the token shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A mixture and its score, which is measured or predicted."""

    mixture: Mixture
    score: float
    """Score in sd; lower is better. 0 is the mean of all trials."""
    sd: float | None
    """Standard error of ``score``; for a prediction, the out-of-fold error. None means unknown."""
    scores: dict[str, float]
    """Scores by target, each in the unit of the target."""
    trials: list[int]
    """Numbers of the trials whose mean is ``score``; empty if ``score`` is predicted."""
    errors: dict[str, float] = field(default_factory=dict)
    """Standard error of each of ``scores``, by target; empty if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A mixture that may be better than the token shares."""

    choice: str
    """``measured`` (the mixture has the best measured score) or ``predicted`` (the best predicted
    score)."""
    mixture: Mixture
    gain: float | None
    """Gain over the token shares in sd, minus the part that is expected to be luck. A negative gain
    means that the candidate is worse. None means unknown."""
    gain_sd: float | None
    """Standard error of ``gain``. With 68 % confidence, the true gain differs from ``gain`` by no
    more than this error. None means unknown."""
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Gain on each target and its standard error, as `gain` and `gain_sd`, but in sds of the scores
    on this target; without the targets for which they are unknown."""
    expected: float | None = None
    """Value of ``gain`` before the new runs of a confirmation; None without new runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Scores of the candidates and of the token shares from runs with new seeds."""

    seeds: list[int]
    """The new seeds; all mixtures are run with each of them."""
    scores: dict[str, dict[str, list[float]]]
    """Scores by choice and target, in the target's own unit, one for each of ``seeds``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Scores of the best mixture and of the token shares on one target, in the target's own unit.

    A number that is unknown is None.
    """

    target: str
    unit: str
    """Unit of the scores, such as ``bits per byte``; "" if the unit is unknown."""
    best: float | None
    """Score of the answer. If the answer is the token shares, this is the score of the best other
    mixture. None if there is no other mixture, or if the token shares scored best and nothing was
    run again."""
    best_sd: float | None
    """Standard error of ``best`` over runs."""
    baseline: float | None
    """Score of the token shares."""
    baseline_sd: float | None
    """Standard error of ``baseline`` over runs."""
    gain: float | None
    """Gain of the best mixture over the token shares; negative if the best mixture is worse."""
    gain_sd: float | None
    """Standard error of ``gain``; it includes the errors due to seeds and due to items."""
    item_sd: float | None
    """The part of ``gain_sd`` that is due to the choice of documents or questions."""
    seeds: int
    """Number of seeds with which both mixtures were run again to confirm the answer; 0 if they were
    not run again."""
    items: int | None
    """Number of documents or questions on which the target is scored."""
    scored_on: str
    """Number of items and amount of text, such as ``7 documents, 21 kB of text``; "" if
    unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The mixture that a search chose, and how certain its gain is.

    Fields that are "in sd" are in standard deviations of the scores of all trials.
    """

    mixture: Mixture
    """The mixture to train on."""
    choice: str
    """Which mixture ``mixture`` is:

    - ``measured``: the mixture with the best measured score;
    - ``predicted``: the mixture with the best predicted score;
    - ``baseline``: the token shares, because no mixture is certainly better."""
    reason: str
    """The result as text, in the target's unit, with the interval of the gain."""
    measured_best: Pick
    """The measured mixture with the best score."""
    predicted_best: Pick | None
    """The mixture with the best predicted score. None if predictions are no better than the mean of
    all scores."""
    baseline: Pick | None
    """The token shares, moved within the limits; None if no run of them has scores."""
    noise: float | None
    """Standard deviation of the scores of repeated runs of one mixture, as a fraction of the
    standard deviation of the scores of all trials; None without repeats."""
    gain: float | None
    """Gain over ``baseline`` in sd, minus the part that is expected to be luck. A negative gain
    means that ``baseline`` is better. None if ``baseline`` is None."""
    gain_sd: float | None
    """Standard error of ``gain``, in sd; None if unknown."""
    table: list[Skill]
    """For each target and predictor, how well the predictor predicts mixtures that it was not
    fitted on."""
    out_of_fold: list[tuple[float, float]]
    """For each scored trial, a pair of scores in sd: the score predicted from the other trials, and
    the measured score."""
    candidates: list[Candidate]
    """The best measured and the best predicted mixture. A mixture that equals the token shares is
    left out."""
    front: list[Pick]
    """With several targets, the measured mixtures that no other measured mixture dominates
    (`front_of`), best first. With one target, an empty list."""
    confirmation: Confirmation | None = None
    """Scores of the candidates and token shares when run again; None if they were not run again."""
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For each cluster, an 80 % interval of its weight in the best mixture (`Search.spread`). Empty
    if nothing can be predicted."""
    outcomes: list[Outcome] = field(default_factory=list)
    """The numbers from which ``reason`` is written, one `Outcome` for each target."""
    dependence: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """By target and cluster, pairs of a weight of the cluster and the score that is predicted at
    this weight (`Search.dependence`)."""
    warnings: list[str] = field(default_factory=list)
    """Warnings, each with a remedy, for these cases:

    - the shards have items of a target, or were not searched for them;
    - a target has too few items;
    - runs of other models make the predictions of a target worse;
    - no model was trained on ``mixture``."""
    predicted_only: bool = False
    """Whether the scores of ``mixture`` are predictions, because no model was trained on it."""
    base_name: str = "token shares"
    """Name of the mixture with which ``mixture`` is compared; ``equal weights`` if the token shares
    are unknown."""
    words: dict[str, str] = field(default_factory=dict)
    """Words of each cluster, by name of the cluster; empty if the clusters have no words."""

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
        """Return the answer from the JSON values that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is not an answer of this version.
        """
        fields = check_version(value, cls.version, "answer")
        return convert(_with_mixtures(fields), cls, "answer of a search")


def _with_mixtures(value: Any) -> Any:
    """Return the JSON ``value`` with the value of each key ``mixture`` converted to a `Mixture`."""
    if isinstance(value, dict):
        return {
            name: Mixture.from_json(inner) if name == "mixture" else _with_mixtures(inner)
            for name, inner in value.items()
        }
    return [_with_mixtures(inner) for inner in value] if isinstance(value, list) else value
