"""Outcome: a comparison of the best mixture with the token shares, target by target, in words.

A trial is one mixture with the scores of a model that was trained on it. Scores are in the target's
own unit. A gain is uncertain for two reasons: other seeds give other scores, and other items
(documents or questions) give other scores. The error due to seeds is estimated from the trials of a
search and of its confirmation. The error due to items is estimated from `ItemEvidence`. A gain
counts as certain only if it is clearly larger than both errors together, and if no target has fewer
than `MIN_ITEMS` items.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from climbstream.loader.core.console import counted, decimals, with_error
from climbstream.loader.formats.mixture import Mixture
from climbstream.search.predictors.base import USEFUL, Skill

from .answer import BASE, Answer, Candidate, Outcome
from .conclude import MIN_RAW_GAIN_SDS, upper_confidence_sd
from .confirm import seed_error
from .items import ItemEvidence, TargetItems, objection, with_few_items
from .observations import Observations
from .trials import Trial

JOINT_SCORE = (
    "The joint score is the weighted mean of the scores on all targets, each in standard "
    "deviations of the scores of all proxies."
)
_BEYOND = 0.01
"""A mixture is said to lie outside of what was trained if it gives a cluster more weight than every
trained mixture does, by at least this difference."""
_PAIRED = (
    "Both mixtures were run with the same seeds, and what a seed does to both cancels in the gain. "
    "So the ± of a gain may be smaller than the two others together."
)
_SMALL_CHANGE = 0.25
"""An answer does not explain how an expected gain changes the gain of the new runs, if the change
is smaller than this fraction of the standard error."""
_NEW_SEEDS = (
    "Runs of both with new seeds, which a search makes with --confirm (in Python: confirm=),"
)


def settle(
    answer: Answer,
    base: Mixture,
    known: Observations,
    again: Sequence[Trial] = (),
    evidence: ItemEvidence | None = None,
    names: Mapping[int, str] | None = None,
) -> Answer:
    """Return ``answer`` with its reason, and with its gain checked against the error due to items.

    If the gain is uncertain with this error, the answer becomes the token shares.

    Args:
        answer: The answer of the search, after its confirmation if there was one.
        base: The token shares, moved within the limits.
        known: The trials from which ``answer`` was chosen.
        again: The trials that confirmed ``answer``.
        evidence: The scores of trials on each item; None if these scores are unknown.
        names: Names of trials in the reason, by number of the trial; default: "trial" and the
            number.
    """
    evidence = evidence or ItemEvidence()
    best, start = contender(answer), answer
    scored = {t: evidence.targets[t] for t in known.targets if t in evidence.targets}
    few = with_few_items(scored)

    def sides(candidate: Candidate | None) -> list[_Side]:
        return [
            _Side(start, base, candidate, known, again, evidence, target)
            for target in known.targets
        ]

    outcomes = [side.outcome() for side in sides(best)]
    if answer.choice != BASE and best is not None:
        item_sds = {c.choice: [side.item_sd() for side in sides(c)] for c in answer.candidates}
        answer = _with_items(answer, base, known, item_sds, few=bool(few))
    warnings = [text for t, items in scored.items() if (text := items.warning(t))]
    predicted_only = answer.choice == "predicted" and answer.confirmation is None
    if predicted_only:
        warnings += _weak_predictions(answer.table)
    answer = replace(answer, outcomes=outcomes, warnings=warnings, predicted_only=predicted_only)
    # The confirmation may have written a sentence to `reason`; keep it.
    first = answer.measured_best.trials[0]
    trial = (names or {}).get(first, f"trial {first}")
    reason = _reason(answer, best, known, trial, few)
    return replace(answer, reason=f"{reason}{answer.reason}")


def _weak_predictions(table: Sequence[Skill]) -> list[str]:
    """Return a warning for each target with predictions that are hardly better than the mean."""
    last = {skill.target: skill for skill in table}  # the last one joins all predictors
    return [
        f"predictions of {target} are not surely better than the mean of all scores (rank "
        f"correlation {skill.spearman:.2f} over {skill.rows} mixtures): train more mixtures before "
        "you use this one"
        for target, skill in last.items()
        if skill.verdict != USEFUL
    ]


def contender(answer: Answer) -> Candidate | None:
    """Return the mixture to compare with the token shares: the answer, or the best other mixture.

    The result is None if no mixture scored better than the token shares.
    """
    runs = answer.confirmation.scores if answer.confirmation else None
    if runs is None and answer.choice == BASE and answer.measured_best == answer.baseline:
        return None
    candidates = [c for c in answer.candidates if runs is None or c.choice in runs]
    chosen = [c for c in candidates if c.choice == answer.choice]
    return max(
        chosen or candidates,
        key=lambda c: -math.inf if c.gain is None else c.gain,
        default=None,
    )


def _with_items(
    answer: Answer,
    base: Mixture,
    known: Observations,
    item_sds: Mapping[str, Sequence[float | None]],
    *,
    few: bool,
) -> Answer:
    """Return ``answer`` with the error due to items added to all errors of gains in sd.

    If the gain is uncertain with this error, or if a target has too ``few`` items, the answer
    becomes the token shares. ``item_sds`` is the error due to items by choice of the candidate, one
    for each target, in the target's unit.
    """
    if answer.gain is None or answer.gain_sd is None:
        return answer
    # In sd, by choice of the candidate and target.
    errors = {
        choice: {
            target: (sd or 0.0) / abs(scale)
            for target, scale, sd in zip(known.targets, known.scale.tolist(), sds, strict=True)
        }
        for choice, sds in item_sds.items()
    }

    def whole(sd: float, choice: str) -> float:
        of_items = errors[choice].values()
        return math.hypot(sd, *(w * e for w, e in zip(known.importance, of_items, strict=True)))

    candidates = [
        replace(
            c,
            gain_sd=None if c.gain_sd is None else whole(c.gain_sd, c.choice),
            gains={t: (g, math.hypot(sd, errors[c.choice][t])) for t, (g, sd) in c.gains.items()},
        )
        for c in answer.candidates
    ]
    gain_sd = whole(answer.gain_sd, answer.choice)
    certain = gain_sd == answer.gain_sd or answer.gain > MIN_RAW_GAIN_SDS * gain_sd
    answer = replace(answer, gain_sd=gain_sd, candidates=candidates)
    if certain and not few:
        return answer
    return replace(answer, choice=BASE, mixture=Mixture(base.weights, {"choice": BASE}))


class _Side:
    """The scores of ``best`` and of the token shares on one target, and the errors of both."""

    def __init__(
        self,
        answer: Answer,
        base: Mixture,
        best: Candidate | None,
        known: Observations,
        again: Sequence[Trial],
        evidence: ItemEvidence,
        target: str,
    ) -> None:
        self._answer, self._best, self._target = answer, best, target
        self._evidence = evidence
        self._scale = abs(float(known.scale[[*known.targets].index(target)]))
        self._sign = 1.0 if known.targets[target] == "min" else -1.0
        noise, self._repeats = known.noise_on(target)
        self._noise = None if noise is None else noise * self._scale
        seeds = answer.confirmation.seeds if answer.confirmation else []
        confirmed = [t for t in again if t.seed in seeds]
        trials = confirmed or known.trials[: known.measured]
        self._base_trials = [t.number for t in trials if t.mixture == base]
        self._trials = (
            [] if best is None else [t.number for t in trials if t.mixture == best.mixture]
        )
        if best is not None and not self._trials:
            # The mixture was predicted and never run. So the error due to items is that of the
            # best mixture that was run.
            self._trials = answer.measured_best.trials

    def outcome(self) -> Outcome:
        """Return the scores of both mixtures on the target, and the gain with its errors."""
        items = self._evidence.targets.get(self._target)
        baseline, baseline_sd = self._scored(BASE)
        best, best_sd = (None, None) if self._best is None else self._scored(self._best.choice)
        item_sd = self.item_sd()
        gain, gain_sd = self._gain(best, baseline)
        if gain_sd is not None:
            gain_sd = math.hypot(gain_sd, item_sd or 0.0)
        return Outcome(
            target=self._target,
            unit=items.unit if items else "",
            best=best,
            best_sd=best_sd,
            baseline=baseline,
            baseline_sd=baseline_sd,
            gain=gain,
            gain_sd=gain_sd,
            item_sd=item_sd,
            seeds=len(self._answer.confirmation.seeds) if self._answer.confirmation else 0,
            items=len(items.sizes) if items else None,
            scored_on=items.text if items else "",
        )

    def _scored(self, choice: str) -> tuple[float | None, float | None]:
        """Return the score of ``choice`` and its standard error over runs; None means unknown."""
        if self._answer.confirmation is not None:
            scores = self._answer.confirmation.scores[choice][self._target]
            return fmean(scores), self._error_of_mean(len(scores))
        picks = {
            BASE: self._answer.baseline,
            "measured": self._answer.measured_best,
            "predicted": self._answer.predicted_best,
        }
        if (pick := picks[choice]) is None:
            return None, None
        if choice == "predicted":
            return pick.scores[self._target], pick.errors.get(self._target)
        return pick.scores[self._target], self._error_of_mean(len(pick.trials))

    def _error_of_mean(self, runs: int) -> float | None:
        """Return the standard error of the mean score of ``runs`` runs of one mixture.

        Two scores may agree by chance. So the noise is estimated from all mixtures that were run
        several times, in the search and in its confirmation, and with few of them it is estimated
        cautiously: see `upper_confidence_sd`.
        """
        squares, freedom = self._repeats * (self._noise or 0.0) ** 2, self._repeats
        if self._answer.confirmation is not None:
            for by_target in self._answer.confirmation.scores.values():
                scores = np.array(by_target[self._target])
                squares += float(((scores - scores.mean()) ** 2).sum())
                freedom += len(scores) - 1
        if not freedom:
            return None
        return upper_confidence_sd(math.sqrt(squares / freedom), freedom) / math.sqrt(runs)

    def _gain(
        self, best: float | None, baseline: float | None
    ) -> tuple[float | None, float | None]:
        """Return the gain of the best mixture, and the error of the gain over runs."""
        if self._best is None or best is None or baseline is None:
            return None, None
        gain = (baseline - best) * self._sign
        if self._answer.confirmation is not None:
            by_choice = self._answer.confirmation.scores
            matrix = np.array([scores[self._target] for scores in by_choice.values()])
            return gain, seed_error(matrix, self._noise, self._repeats)
        if self._target in self._best.gains:
            # Predicted from all trials, and without optimism: see `choose_mixture`.
            expected, error = self._best.gains[self._target]
            return expected * self._scale, error * self._scale
        if len(self._answer.measured_best.scores) == 1:
            gain = gain if self._best.gain is None else self._best.gain * self._scale
            sd = self._best.gain_sd
            return gain, None if sd is None else sd * self._scale
        errors = [self._scored(choice)[1] for choice in (self._best.choice, BASE)]
        if None in errors:
            return gain, None
        return gain, math.hypot(*(error for error in errors if error is not None))

    def item_sd(self) -> float | None:
        """Return the error of the gain due to the choice of items; None if it is unknown."""
        sd = self._evidence.gain_sd(self._target, self._trials, self._base_trials)
        if sd is None:
            return None
        freedom = max(1, round(self._evidence.targets[self._target].effective - 1))
        return upper_confidence_sd(sd, freedom)


def _reason(
    answer: Answer,
    best: Candidate | None,
    known: Observations,
    trial: str,
    few: Mapping[str, TargetItems],
) -> str:
    """Return the result in one sentence, and further sentences on how certain it is.

    ``trial`` names the best measured trial. ``few`` are the targets with too few items.
    """
    parts = "; ".join(_compared(outcome, answer.base_name, known) for outcome in answer.outcomes)
    how, scored_on = _how(answer, best, trial), _scored_on(answer.outcomes)
    measured = ", ".join(f"{n} {s:.5g}" for n, s in answer.measured_best.scores.items())
    unscored = f"the {answer.base_name} have no score"
    if answer.baseline is None and answer.predicted_only:
        lead = (
            f"Predicted only, not trained: {parts}; the best measured is {trial} ({measured}), "
            f"and {unscored}{scored_on}."
        )
    elif answer.baseline is None:
        lead = f"The best is {trial} ({measured}); {unscored}{scored_on}."
    elif best is None:
        lead = f"No gain over the {answer.base_name}: none scored better ({parts}){scored_on}."
    elif answer.choice == BASE:
        scored = "is predicted to score" if is_predicted(answer, best) else "scored"
        lead = (
            f"It is not certain that any mixture is better than the {answer.base_name}: the best "
            f"other one {scored} {parts}{how}{scored_on}."
        )
    elif answer.predicted_only:
        lead = f"Predicted only, not trained: {parts}{scored_on}."
    else:
        lead = f"Found {parts}{how}{scored_on}."
    behind = _behind(answer, f"{trial} ({measured})")
    how_certain = (
        *_interval(answer, best, known),
        *_decision(answer, best, known, few),
    )
    passed_over = _passed_over(answer, best, f"{trial} ({measured})")
    untrained = _untrained(answer, best, known)
    alone = _certain_alone(answer, best, few)
    return " ".join([lead, *behind, *untrained, *passed_over, *how_certain, *alone])


def _certain_alone(answer: Answer, best: Candidate | None, few: Collection[str]) -> list[str]:
    """Return sentences on the targets on which alone the gain would be certain; [] without any.

    Gains that were not corrected for picking the best of many mixtures are left out, and so are the
    targets ``few``, which have too few items.
    """
    if answer.choice != BASE or best is None or len(answer.outcomes) == 1:
        return []
    if answer.confirmation is None and not best.gains:
        return []
    clear = [
        f"{outcome.target} {_expected(outcome)}"
        for outcome in answer.outcomes
        if outcome.target not in few
        and outcome.gain is not None
        and outcome.gain_sd is not None
        and outcome.gain > MIN_RAW_GAIN_SDS * outcome.gain_sd
    ]
    if not clear:
        return []
    return [
        f"On one target alone, the gain is more than {MIN_RAW_GAIN_SDS:g} times its error: "
        f"{'; '.join(clear)}. If this target is what matters, run the command again with it as the "
        "only target, or give it more weight with --importance; the proxies are used again."
    ]


def _passed_over(answer: Answer, best: Candidate | None, measured: str) -> list[str]:
    """Return a sentence on the best measured mixture if the answer compares a predicted one.

    The result is [] if no measured mixture scored better than the token shares.
    """
    baseline = answer.baseline
    if answer.choice != BASE or best is None or baseline is None or not is_predicted(answer, best):
        return []
    if answer.measured_best.score >= baseline.score:
        return []
    return [
        f"The best measured mixture, that of {measured}, also scored better than the "
        f"{answer.base_name}."
    ]


def _behind(answer: Answer, measured: str) -> list[str]:
    """Return a sentence that the prediction is no better than the best measured score.

    The result is [] if the prediction is better, or is not the answer.
    """
    predicted = answer.predicted_best
    if not answer.predicted_only or predicted is None:
        return []
    if predicted.score < answer.measured_best.score:
        return []
    return [
        f"No prediction is better than the best measured score, that of {measured}. But the best "
        "of many scores is partly luck, so train both mixtures with a new seed before you choose."
    ]


def is_predicted(answer: Answer, best: Candidate) -> bool:
    """Return whether the scores of ``best`` are predictions, because no model was trained on it."""
    return best.choice == "predicted" and answer.confirmation is None


def _untrained(answer: Answer, best: Candidate | None, known: Observations) -> list[str]:
    """Return a sentence that ``best`` was not trained; [] if it was.

    The sentence also says if ``best`` lies outside of what was trained: see `_BEYOND`.
    """
    if best is None or not is_predicted(answer, best):
        return []
    most: dict[str, float] = {}
    for trial in known.trials[: known.measured]:
        for name, weight in trial.mixture.weights.items():
            most[name] = max(weight, most.get(name, 0.0))
    weights = best.mixture.weights
    name = max(weights, key=lambda name: weights[name] - most.get(name, 0.0))
    said = "No model was trained on this mixture"
    if weights[name] - most.get(name, 0.0) < _BEYOND:
        return [f"{said}."]
    return [
        f"{said}, and it is unlike all trained mixtures: it gives {name} the weight "
        f"{weights[name]:.1%}, and no trained mixture gives this cluster more than "
        f"{most.get(name, 0.0):.1%}."
    ]


def _compared(outcome: Outcome, base_name: str, known: Observations) -> str:
    """Return the two scores on one target, and their difference, as text."""
    unit = f" {outcome.unit}" if outcome.unit else ""
    name = "" if len(known.targets) == 1 and unit else f"{outcome.target} "
    if outcome.best is None or outcome.baseline is None or outcome.gain is None:
        score = outcome.baseline if outcome.best is None else outcome.best
        if score is None:
            return name.strip()
        sd = outcome.baseline_sd if outcome.best is None else outcome.best_sd
        shown = with_error(score, sd, decimals([sd], [score])) if sd else f"{score:.5g}"
        return f"{name}{shown}{unit}"
    sds = [sd for sd in (outcome.best_sd, outcome.baseline_sd, outcome.gain_sd) if sd]
    digits = decimals(sds, (outcome.best, outcome.baseline))
    ours = with_error(outcome.best, outcome.best_sd, digits)
    theirs = with_error(outcome.baseline, outcome.baseline_sd, digits)
    sign = 1.0 if known.targets[outcome.target] == "min" else -1.0
    difference = sign * (outcome.baseline - outcome.best)
    # The error is that of the gain, which may have been corrected: see `_corrected`.
    sd = outcome.gain_sd if math.isclose(difference, outcome.gain, abs_tol=1e-9) else None
    by = _better_by(difference, sd, digits)
    return f"{name}{ours} against {base_name} {theirs}{unit}, {by}"


def _better_by(gain: float, sd: float | None, digits: int) -> str:
    way = "better" if gain >= 0 else "worse"
    return f"{way} by {with_error(abs(gain), sd, digits)}"


def _how(answer: Answer, best: Candidate | None, trial: str) -> str:
    """Return text that says which runs the scores come from."""
    if answer.confirmation is not None:
        return f" in {counted(len(answer.confirmation.seeds), 'seed')}"
    if best is None or answer.baseline is None:
        return ""
    return "" if best.choice == "predicted" else f" ({trial})"


def _scored_on(outcomes: Sequence[Outcome]) -> str:
    """Return text that says how much text, or how many items, score the targets."""
    parts = [
        f"{o.scored_on} score {'it' if len(outcomes) == 1 else o.target}"
        for o in outcomes
        if o.scored_on
    ]
    return f"; {', '.join(parts)}" if parts else ""


def _interval(answer: Answer, best: Candidate | None, known: Observations) -> list[str]:
    """Return sentences on the interval of the gain (or why it is unknown) and its computation."""
    if best is None or answer.baseline is None:
        return []
    alone = len(known.targets) == 1
    why = _corrected(answer, best)
    if answer.choice == BASE and answer.confirmation is None:
        if alone:
            return [f"{why}, it is expected to be {_expected(answer.outcomes[0])}."] if why else []
        if best.gain != answer.gain or answer.gain_sd is None:
            return []  # `gain` is that of another mixture, or unknown
    if answer.gain is None or answer.gain_sd is None:
        return ["How much of that is luck is unknown: no mixture was run twice."]
    scale, unit, name = _joint_unit(answer, known)
    digits = decimals([scale * answer.gain_sd], [scale * answer.gain])
    gain, sd = (scale * value for value in (answer.gain, answer.gain_sd))
    bounds = [
        f"between {with_error(gain - times * sd, None, digits)} and "
        f"{with_error(gain + times * sd, None, digits)} with {level} % confidence"
        for level, times in ((68, 1.0), (95, 1.96))
    ]
    shown = f"{with_error(gain, None, digits)}{unit}; it is {' and '.join(bounds)}."
    if answer.confirmation:
        lead = _joined_with_search(answer, best, known, name, digits)
    elif why and (alone or not best.gains):
        lead = f"{why}, the {name} is"
    elif why:
        each = "; ".join(f"{o.target} {_expected(o)}" for o in answer.outcomes if o.gain)
        lead = f"{why}, these gains are expected: {each}. The {name} is"
    else:
        lead = f"The {name} is"
    return [f"{lead} {shown}"] if alone else [f"{lead} {shown}", JOINT_SCORE]


def _joint_unit(answer: Answer, known: Observations) -> tuple[float, str, str]:
    """Return the factor and the unit in which the joint gain is shown, and its name in a sentence.

    With a single target, this is the unit of the target.
    """
    if len(known.targets) > 1:
        return 1.0, "", "gain in the joint score of all targets"
    (outcome,) = answer.outcomes
    scale = abs(float(known.scale[0]))
    if outcome.unit:
        return scale, f" {outcome.unit}", "gain"
    return scale, "", f"gain in {outcome.target}"


def _joined_with_search(
    answer: Answer, best: Candidate, known: Observations, name: str, digits: int
) -> str:
    """Return how a sentence about the joint gain begins, after a confirmation.

    It says whether this gain is that of the new runs alone, or is joined with an earlier one. The
    earlier gain is stated if it makes a difference.
    """
    new = sum(
        weight * (outcome.gain or 0.0) / abs(scale)
        for weight, scale, outcome in zip(
            known.importance, known.scale, answer.outcomes, strict=True
        )
    )
    gain, expected = best.gain or 0.0, best.expected
    if expected is None or math.isclose(new, gain, rel_tol=1e-6, abs_tol=1e-9):
        return f"Only the new runs count here: the {name} is"
    if abs(new - gain) < _SMALL_CHANGE * (answer.gain_sd or 0.0):
        return f"Joined with what the search had expected, the {name} is"
    scale, unit, _ = _joint_unit(answer, known)
    shown = [with_error(scale * value, None, digits) for value in (expected, new)]
    return (
        f"Before the new runs, the search had expected a {name} of {shown[0]}{unit}; in the "
        f"new runs, it is {shown[1]}{unit}. If both are joined, each weighted by its certainty, "
        f"the {name} is"
    )


def _expected(outcome: Outcome) -> str:
    """Return the gain of an outcome as text, with its error."""
    assert outcome.gain is not None
    sds = [sd for sd in (outcome.best_sd, outcome.baseline_sd, outcome.gain_sd) if sd]
    return _better_by(outcome.gain, outcome.gain_sd, decimals(sds, [outcome.gain]))


def _decision(
    answer: Answer, best: Candidate | None, known: Observations, few: Mapping[str, TargetItems]
) -> list[str]:
    """Return sentences that say why a gain is not called certain; [] if there is no such gain."""
    if answer.choice != BASE or best is None or answer.gain is None or answer.gain_sd is None:
        return []
    if few and answer.gain > 0:
        return [objection(few)]
    more = f"{_missing(answer)} would reduce the error."
    if answer.confirmation is None:
        return [more] if (best.gain or 0.0) > 0 else []
    if answer.gain <= 0:
        return ["This gain decides, and not that of the new runs alone."]
    limit = MIN_RAW_GAIN_SDS * answer.gain_sd
    if answer.gain > limit:
        return ["But it did not score better with the new seeds, so this gain is not certain."]
    scale = _joint_unit(answer, known)[0]
    gain, sd = (scale * value for value in (answer.gain, answer.gain_sd))
    digits = decimals([sd], [gain])
    return [
        f"A gain is called certain if it is more than {MIN_RAW_GAIN_SDS:g} times its standard "
        f"error, because the mixture was chosen among many. This gain of "
        f"{with_error(gain, None, digits)} is {answer.gain / answer.gain_sd:.2f} times its error "
        f"of {with_error(sd, None, digits)}. {more}"
    ]


def _missing(answer: Answer) -> str:
    """Return what would reduce the larger part of the error of the gain: items or seeds."""
    of_items = [(o.item_sd or 0.0) ** 2 for o in answer.outcomes]
    of_all = [(o.gain_sd or 0.0) ** 2 for o in answer.outcomes]
    if sum(of_items) > sum(of_all) / 2:
        return "More documents or questions in the target"
    return "More seeds (--confirm)" if answer.confirmation else _NEW_SEEDS


def _corrected(answer: Answer, best: Candidate) -> str:
    """Return how the gain of ``best`` is more than a difference of two scores; "" if it is not."""
    pick = answer.predicted_best if best.choice == "predicted" else answer.measured_best
    if answer.confirmation or pick is None or answer.baseline is None or best.gain is None:
        return ""
    difference = answer.baseline.score - pick.score
    if math.isclose(difference, best.gain, abs_tol=1e-9):
        return ""
    if difference > best.gain:
        return "After allowing for picking the best of many mixtures"
    return "Counting the scores of all mixtures, and not only of these two"


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return ``outcomes`` as rows of a table; `outcome_heads` returns its column headings."""
    rows = []
    for outcome in outcomes:
        values = [v for v in (outcome.best, outcome.baseline) if v is not None]
        sds = [sd for sd in (outcome.best_sd, outcome.baseline_sd, outcome.gain_sd) if sd]
        digits = decimals(sds, values)
        pairs = (
            (outcome.best, outcome.best_sd),
            (outcome.baseline, outcome.baseline_sd),
            (outcome.gain, outcome.gain_sd),
        )
        cells = ["" if v is None else with_error(v, sd, digits) for v, sd in pairs]
        rows.append((outcome.target, *cells, outcome.unit, outcome.scored_on))
    return rows


def outcome_heads(answer: Answer) -> tuple[str, ...]:
    """Return the column headings of `outcome_rows`; the second names the compared mixture."""
    best = contender(answer)
    name = "best other" if answer.choice == BASE else "answer"
    if best is not None and is_predicted(answer, best):
        name += ", predicted"
    gain = "expected better by" if is_expected(answer) else "better by"
    return ("target", name, answer.base_name, gain, "unit", "scored on")


def is_expected(answer: Answer) -> bool:
    """Return whether the gains of `outcome_rows` are expected gains, not differences of two scores.

    An expected gain depends on the scores of all mixtures.
    """
    best = contender(answer)
    if best is None or not (len(answer.outcomes) == 1 or best.gains):
        return False
    return bool(_corrected(answer, best))


def outcome_note(answer: Answer) -> str:
    """Return a sentence about the numbers after ± in `outcome_rows`; "" if there are none."""
    if not any(o.best_sd or o.baseline_sd or o.gain_sd for o in answer.outcomes):
        return ""
    best = contender(answer)
    covers = "other seeds"
    if best is not None and is_predicted(answer, best):
        covers += " and errors of predictions"
    items = any(outcome.item_sd is not None for outcome in answer.outcomes)
    more = (
        "; that of a gain also covers other documents or questions in the target" if items else ""
    )
    note = f"± is a standard error: it covers {covers}{more}."
    if answer.confirmation is None:
        return note
    return f"{note} {_PAIRED}"
