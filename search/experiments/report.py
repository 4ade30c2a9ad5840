"""The sections of a search's report: the result, the trials, and the quality of predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.loader import Mixture
from climbstream.loader.core.console import counted, decimals, text_table, with_error
from climbstream.loader.core.html_page import (
    ROUNDS,
    Series,
    bar,
    claim,
    facts,
    heat_cell,
    heat_map,
    paragraph,
    scatter_plot,
    section,
    small_curve,
    subheading,
    table,
    warning,
)
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.evaluation.comparison import Comparison, mean_and_error
from climbstream.search.optimizer.answer import BASE, Answer
from climbstream.search.optimizer.outcome import (
    contender,
    is_expected,
    is_predicted,
    outcome_heads,
    outcome_note,
    outcome_rows,
)
from climbstream.search.optimizer.trials import Trial
from climbstream.search.predictors.base import Skill, spearman

from .mixture_plots import AXES, DrawnMixture, DrawnMixtures

CHOICES = {
    BASE: "token shares",
    "measured": "best measured",
    "predicted": "best predicted",
}
_HEAT_ROWS = 40
"""Number of clusters in the heat map: the clusters with the largest weights."""
_TIP_CLUSTERS = 4
_SKILL_HEADS = ("target", "predictor", "R²", "rank correlation", "verdict")
SKILLS_NOTE = (
    "The score of each mixture is predicted from the scores of the other mixtures. R² is the "
    "fraction of the variance of the scores that the predictions explain: 1 is all, and 0 or less "
    "is no better than the mean score. The rank correlation is 1 if predictions and scores order "
    "the mixtures in the same way, and 0 if the two orders are unrelated. Predictions are useful "
    "if R² is above 0, and chance alone would give their rank correlation in at most 5 % of cases."
)
_FIGURES = 3
"""Largest number of targets whose gains are shown at the top of the report."""


def comparison_sections(comparison: Comparison, name: str) -> list[str]:
    """Return a comparison as HTML: the verdict on the mixture ``name``, and a table of mixtures."""
    holds, text = comparison.verdict(name)
    rows, digits = [], comparison.digits
    for other, scores in comparison.scores.items():
        rows.append(
            (
                f"<b>{escape(other)}</b>",
                with_error(*comparison.mean(other), digits),
                ", ".join(f"{score:.{digits}f}" for score in scores),
                comparison.gain_text(name, other),
            )
        )
    heads = ("mixture", comparison.unit, "by seed", f"{name} is better by")
    note = (
        "± is a standard error. For a mixture, it covers the seeds. For a difference, it covers "
        "the seeds and the scored items, compared in pairs."
    )
    parts = [claim(text, holds=holds), table(heads, rows, numbers=(1, 3)), paragraph(note)]
    if comparison.warning:
        parts.append(warning(comparison.warning))
    return [section("The result", *parts)]


def search_sections(
    directory: Path,
    answer: Answer,
    trials: Sequence[Trial],
    names: Mapping[int, str] | None = None,
) -> list[str]:
    """Return the HTML sections of a search on the shards in ``directory``.

    ``names`` says what to call some of the proxies, by number of the trial.
    """
    shards = ShardDirectory(directory)
    shares = shards.manifest.token_shares.weights
    return _sections(
        _Story(
            dict(shares), shards.words(), answer, list(trials), ("proxy", "proxies"), names or {}
        )
    )


def table_sections(
    shares: Mapping[str, float],
    answer: Answer,
    trials: Sequence[Trial],
    names: Mapping[int, str] | None = None,
) -> list[str]:
    """Return the HTML sections of a fit; the answer is compared with the mixture ``shares``.

    ``names`` says what to call each run, by its number.
    """
    return _sections(_Story(dict(shares), {}, answer, list(trials), ("run", "runs"), names or {}))


def _sections(story: "_Story") -> list[str]:
    answer = story.answer
    return [
        facts(_figures(story)),
        section("The answer", *_outcome(answer)),
        section("The mixture", _weights(story)),
        section("The search", *_paths(story)),
        section("Rounds", *_rounds(story)),
        *_mixtures(story),
        *_confirmed(answer),
        *_front(answer),
        *_dependence(story),
        section("The predictors", _skills(story), *_predicted(story)),
    ]


@dataclass(frozen=True, slots=True)
class _Story:
    """A search, its trials and its answer."""

    shares: dict[str, float]
    words: dict[str, str]
    answer: Answer
    trials: list[Trial]
    noun: tuple[str, str]
    """What trained a trial: singular and plural."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What to call trials, by number; without a name, the noun and the number."""

    def name_of(self, trial: Trial) -> str:
        """Return what to call ``trial``."""
        return self.names.get(trial.number, f"{self.noun[0]} {trial.number}")

    @property
    def targets(self) -> list[str]:
        """Names of the targets."""
        return list(self.answer.measured_best.scores)

    @property
    def scored(self) -> list[Trial]:
        """Trials with scores, ordered by round, then by number."""
        scored = (trial for trial in self.trials if trial.scores is not None)
        return sorted(scored, key=lambda trial: (trial.round, trial.number))

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds with trials."""
        return sorted({trial.round for trial in self.trials})

    def is_again(self, number: int) -> bool:
        """Return whether round ``number`` only repeats mixtures to confirm the answer."""
        return self.answer.confirmation is not None and number == self.rounds[-1]

    def round_name(self, number: int) -> str:
        """Return the name of a round in the report."""
        return "run again" if self.is_again(number) else f"round {number}"

    def color(self, number: int) -> str:
        """Return the colour of round ``number``, as a name in page.css."""
        return f"r{(number - 1) % ROUNDS}"

    def named(self, cluster: str) -> str:
        """Return the name of a cluster, followed by the first two of its typical words."""
        words = self.words.get(cluster, "").split(", ")
        return f"{cluster} {', '.join(words[:2])}".strip()

    def weights(self) -> NDArray[np.float64]:
        """Return the weights of the scored trials: ``[n, K]``."""
        return np.array([trial.mixture.array(list(self.shares)) for trial in self.scored])


def _figures(story: _Story) -> list[tuple[str, str]]:
    """Return the main results as pairs: a number or word, and words that explain it."""
    answer = story.answer
    name, weight = max(answer.mixture.weights.items(), key=lambda pair: pair[1])
    rounds = [number for number in story.rounds if not story.is_again(number)]
    again = sum(story.is_again(trial.round) for trial in story.trials)
    measured = {trial.mixture.fingerprint for trial in story.scored}
    models = f"measured with {counted(len(story.trials), *story.noun)}, in "
    models += counted(len(rounds), "round")
    if again:
        models += f"; {again:,} of the {story.noun[1]} only confirm the answer"
    return [
        _verdict(answer),
        *_gains(answer),
        (f"{weight:.0%}", f"weight of {story.named(name)}, the largest in the answer"),
        (f"{len(measured):,}", f"different mixtures, {models}"),
    ]


def _verdict(answer: Answer) -> tuple[str, str]:
    """Return two texts: whether the gain over all targets together is certain, and a comment."""
    over = "over all targets together" if len(answer.measured_best.scores) > 1 else ""
    if answer.predicted_only:
        return "predicted only", "no model was trained on the answer"
    if answer.choice == BASE:
        return "no certain gain", f"{over and f'{over}: '}the answer is the {answer.base_name}"
    if _is_certain(answer):
        more = "; read the warnings in the section of the answer" if answer.warnings else ""
        return "certain gain", f"over the {answer.base_name}{over and f', {over}'}{more}"
    why = "no mixture was run twice" if answer.baseline else f"the {answer.base_name} have no score"
    return "unknown gain", why


def _is_certain(answer: Answer) -> bool:
    """Return whether the answer was trained, and its gain over the token shares is certain."""
    known = answer.baseline is not None and answer.gain_sd is not None
    return known and answer.choice != BASE and not answer.predicted_only


def _gains(answer: Answer) -> list[tuple[str, str]]:
    """Return, for each of the first targets, two texts: the gain, and words that explain it."""
    best = contender(answer)
    if best is None:
        return []
    who = "the best other mixture" if answer.choice == BASE else "the answer"
    verb = "is expected to be" if is_expected(answer) else "is"
    if is_predicted(answer, best):
        verb = "is predicted to be"
    gains = []
    for outcome, row in zip(
        answer.outcomes[:_FIGURES], outcome_rows(answer.outcomes), strict=False
    ):
        if outcome.gain is not None:
            way = "better" if outcome.gain >= 0 else "worse"
            unit = f"{outcome.unit} by which " if outcome.unit else "by which "
            what = f"{unit}{who} {verb} {way} than the {answer.base_name} · {outcome.target}"
            gains.append((row[3].removeprefix("-"), what))
    return gains


def _outcome(answer: Answer) -> list[str]:
    """Return the section of the answer, in parts: verdict, table, reasons and warnings."""
    first, stop, rest = answer.reason.partition(". ")
    parts = [claim(first + stop.strip(), holds=_is_certain(answer))]
    if answer.outcomes:
        rows = [[escape(cell) for cell in row] for row in outcome_rows(answer.outcomes)]
        parts.append(table(outcome_heads(answer), rows, numbers=(1, 2, 3)))
    parts += [paragraph(text) for text in (rest, outcome_note(answer)) if text]
    return parts + [warning(text) for text in answer.warnings]


def _paths(story: _Story) -> list[str]:
    """Plot the scores of each target by trial, with one colour per round; list failed proxies."""
    pictures = []
    for target in story.targets:
        series = []
        for number in story.rounds:
            trials = [t for t in story.scored if t.round == number]
            if trials:
                series.append(
                    Series(
                        name=story.round_name(number),
                        color=story.color(number),
                        points=[(float(t.number), (t.scores or {})[target]) for t in trials],
                        tips=[_tip(story, trial) for trial in trials],
                        hollow=story.is_again(number),
                    )
                )
        lines = []
        if story.answer.baseline is not None:
            lines.append((story.answer.base_name, story.answer.baseline.scores[target]))
        unit = next((f", {o.unit}" for o in story.answer.outcomes if o.target == target), "")
        pictures.append(scatter_plot(series, story.noun[0], f"{target}{unit.rstrip(', ')}", lines))
    pictures = [f'<div class="plots">{"".join(pictures)}</div>']
    if failed := [trial for trial in story.trials if trial.scores is None]:
        why = "; ".join(
            f"{story.names.get(trial.number, trial.number)}: {trial.why}" for trial in failed[:5]
        )
        pictures.append(paragraph(f"{counted(len(failed), *story.noun)} failed: {why}"))
    return pictures


def _tip(story: _Story, trial: Trial) -> str:
    """Return the text that is shown at the point of a trial: its number and largest weights."""
    largest = sorted(trial.mixture.weights.items(), key=lambda pair: -pair[1])[:_TIP_CLUSTERS]
    listed = "\n".join(f"{weight:.0%} {story.named(name)}" for name, weight in largest)
    return f"{story.name_of(trial)}\n{listed}"


def _weights(story: _Story) -> str:
    """Return a table of the weights of the clusters in the answer and their token shares."""
    shares, answer = story.shares, story.answer
    others = compared_mixtures(answer)
    most = max(*shares.values(), *answer.mixture.weights.values())
    found = [(n, share, answer.mixture.weights.get(n, 0.0)) for n, share in shares.items()]
    heads = ["cluster", "words", answer.base_name, "weight", "ratio", *others]
    rows: list[list[str | tuple[str, str]]] = []
    for name, share, weight in sorted(found, key=lambda row: -row[2]):
        rows.append(
            [
                f"<code>{escape(name)}</code>",
                escape(story.words.get(name, "")),
                (f'data-v="{share}"', f"{bar(share / most)}&nbsp;{share:.1%}"),
                (f'data-v="{weight}"', f"{bar(weight / most, 'orange')}&nbsp;{weight:.1%}"),
                f"{weight / share:.2f}x" if share else "",
                *(f"{mixture.weights.get(name, 0.0):.1%}" for mixture in others.values()),
            ]
        )
        if answer.spread:
            rows[-1].append("{:.1%} to {:.1%}".format(*answer.spread[name]))
    if not answer.spread:
        return table(heads, rows, numbers=range(4, len(heads)), texts=(1,))
    heads.append(f"{CHOICES['predicted']} between")
    lead = (
        "The last column shows how much the weight in the best predicted mixture depends on "
        f"chance: if the scores of the {story.noun[1]} had differed by chance, the weight would be "
        "in this range in 8 of 10 cases. A cluster with a wide range matters little."
    )
    if answer.choice != "predicted":
        lead += " The answer is another mixture; its weights may be outside these ranges."
    parts = table(heads, rows, numbers=range(4, len(heads)), texts=(1,))
    return parts + paragraph(lead)


def compared_mixtures(answer: Answer) -> dict[str, Mixture]:
    """Return the mixtures to show beside the answer, by heading.

    - The best other mixture is shown if the answer is the token shares.
    - The best predicted mixture is shown if intervals of its weights are known (``spread``).
    """
    mixtures = {}
    best, predicted = contender(answer), answer.predicted_best
    if best is not None and answer.choice == BASE:
        mixtures[f"best other ({CHOICES[best.choice]})"] = best.mixture
    shown = [answer.mixture, *mixtures.values()]
    if answer.spread and predicted is not None and predicted.mixture not in shown:
        mixtures[CHOICES["predicted"]] = predicted.mixture
    return mixtures


def _front(answer: Answer) -> list[str]:
    """Return the section of the measured mixtures that no other mixture beats on all targets."""
    if not answer.front:
        return []
    targets = list(answer.measured_best.scores)
    rows = []
    for pick in answer.front:
        largest = sorted(pick.mixture.weights.items(), key=lambda pair: -pair[1])[:4]
        rows.append(
            [
                ", ".join(map(str, pick.trials)),
                *(f"{pick.scores[target]:.5g}" for target in targets),
                escape(", ".join(f"{name} {weight:.0%}" for name, weight in largest)),
            ]
        )
    lead = (
        "Measured mixtures for which no other measured mixture is better on all targets (the "
        "Pareto front). Some may be in this table only by luck."
    )
    heads = ["trials", *targets, "most of"]
    numbers = range(1, 1 + len(targets))
    return [
        section("Trade-off between targets", paragraph(lead), table(heads, rows, numbers=numbers))
    ]


def skills_text(skills: Sequence[Skill]) -> str:
    """Return a table for a terminal: how well each predictor predicts each target."""
    rows = [(s.target, s.predictor, f"{s.r2:.3f}", f"{s.spearman:.3f}", s.verdict) for s in skills]
    return text_table(_SKILL_HEADS, rows, left=2)


def _confirmed(answer: Answer) -> list[str]:
    """Return a list with the section on the repeated mixtures; [] without a confirmation."""
    if answer.confirmation is None:
        return []
    targets = list(answer.measured_best.scores)
    base = answer.confirmation.scores[BASE]
    rows = []
    for choice, scores in answer.confirmation.scores.items():
        cells = [f"<b>{escape(CHOICES[choice])}</b>"]
        for target in targets:
            pairs = zip(scores[target], base[target], strict=True)
            mean, error = mean_and_error(scores[target])
            gain, doubt = mean_and_error([theirs - ours for ours, theirs in pairs])
            digits = decimals([error, doubt], [mean])
            cells += [with_error(mean, error, digits)]
            cells += ["" if choice == BASE else with_error(gain, doubt, digits)]
        rows.append(cells)
    heads = ["mixture"]
    for target in targets:
        heads += [target, "better than the token shares by"]
    seeds = len(answer.confirmation.seeds)
    lead = (
        f"All mixtures were run with the same {seeds} new seeds. The table shows means ± their "
        "standard errors over these seeds alone. A gain is a mean over pairs of runs with the "
        "same seed; below 0, it is a loss. The ± of a gain in the table of the answer is larger, "
        "because it also covers other documents or questions in the target, and the noise of all "
        "proxies."
    )
    return [
        section(
            "Run again", paragraph(lead), table(heads, rows, numbers=range(1, 1 + 2 * len(targets)))
        )
    ]


def _rounds(story: _Story) -> list[str]:
    """Return parts of a section: weights by round, and rank correlations of weights with scores."""
    scored, names = story.scored, list(story.shares)
    if not scored:
        return []
    weights = story.weights()
    rounds = np.array([trial.round for trial in scored])
    numbers = [number for number in story.rounds if (rounds == number).any()]
    means = [weights[rounds == number].mean(axis=0) for number in numbers]
    most = max(float(np.max(means)), 1e-9)
    rows: list[list[str | tuple[str, str]]] = []
    for k, name in enumerate(names):
        goes = [
            spearman(weights[:, k], np.array([(t.scores or {})[target] for t in scored]))
            for target in story.targets
        ]
        rows.append(
            [
                f"<code>{escape(name)}</code>",
                escape(story.words.get(name, "")),
                *(heat_cell(mean[k] / most, f"{mean[k]:.1%}") for mean in means),
                *(f"{value:+.2f}" for value in goes),
            ]
        )
    heads = ["cluster", "words", *map(story.round_name, numbers)]
    heads += [f"rank correlation with {target}" for target in story.targets]
    lead = (
        f"Each column of the picture is a {story.noun[0]}, and each row is a cluster; a stronger "
        "colour is a larger weight. The table has the mean weight of each cluster in a round, and "
        "the rank correlation of this weight with the score. Below 0, mixtures with more of the "
        "cluster have lower scores."
    )
    shown = np.sort(np.argsort(-weights.max(axis=0), kind="stable")[:_HEAT_ROWS])
    picture = heat_map(
        [story.named(names[k]) for k in shown.tolist()],
        (weights[:, shown] / max(float(weights.max()), 1e-9)).tolist(),
        [(story.round_name(n), int((rounds == n).sum())) for n in numbers],
        f"Weights of the clusters in each {story.noun[0]}, over the rounds",
    )
    right = range(2, len(heads))
    return [paragraph(lead), picture, table(heads, rows, numbers=right, texts=(1,))]


def _mixtures(story: _Story) -> list[str]:
    """Return a list with the section that draws all mixtures; [] if nothing can be drawn."""
    names = list(story.shares)
    mixtures = DrawnMixtures(
        names=[story.named(name) for name in names],
        trials=[
            DrawnMixture(
                weights=trial.mixture.array(names).tolist(),
                color=story.color(trial.round),
                tip=f"{_tip(story, trial)}\n{_scores(trial)}",
            )
            for trial in story.scored
        ],
        best=story.answer.mixture.array(names).tolist(),
        others={
            heading: mixture.array(names).tolist()
            for heading, mixture in compared_mixtures(story.answer).items()
        },
        shares=list(story.shares.values()),
        rounds=[(story.round_name(n), story.color(n), False) for n in story.rounds],
    )
    if not story.scored or not (picture := mixtures.draw()):
        return []
    lead = (
        "Each line is a mixture; it crosses the axis of each cluster at the weight of that cluster."
    )
    if len(names) == 3:
        lead = (
            "Each point is a mixture; the nearer it is to the corner of a cluster, the larger the "
            "weight of that cluster."
        )
    elif len(names) > AXES:
        lead += f" Of {len(names):,} clusters, the {AXES} with the largest weights are shown."
    return [section("The mixtures tried", paragraph(lead), picture)]


def _scores(trial: Trial) -> str:
    """Return the scores of a trial by target, as text."""
    return ", ".join(f"{target} {score:.5g}" for target, score in (trial.scores or {}).items())


def _dependence(story: _Story) -> list[str]:
    """Return the section with the predicted score at several weights of each cluster."""
    parts = []
    for target, curves in story.answer.dependence.items():
        scores = [score for points in curves.values() for _, score in points]
        if not scores:
            continue
        span = (min(scores), max(scores))
        figures = [
            small_curve(
                story.named(name),
                points,
                span,
                f"{story.named(name)}: {target} is {points[0][1]:.5g} without it and "
                f"{points[-1][1]:.5g} at {points[-1][0]:.0%}",
            )
            for name, points in curves.items()
        ]
        heading = subheading(f"{target}, {span[0]:.5g} at the bottom to {span[1]:.5g} at the top")
        parts.append(f'{heading}<div class="grid">{"".join(figures)}</div>')
    if not parts:
        return []
    lead = (
        "Each curve is the predicted score by the weight of one cluster, from 0 to the largest "
        "weight that was tried. The other clusters keep their proportions (partial dependence: "
        "the mean over measured mixtures). All curves of a target have the same scale. A cluster "
        "with a flat curve matters little."
    )
    return [section("What each weight does", paragraph(lead), *parts)]


def _predicted(story: _Story) -> list[str]:
    """Plot the score of each proxy against its prediction from the other proxies."""
    answer, pairs = story.answer, story.answer.out_of_fold
    searched = [t for t in story.scored if not story.is_again(t.round)]
    scale, shift, unit = 1.0, 0.0, "sd"
    if len(story.targets) == 1 and len(searched) == len(pairs):
        (target,) = story.targets
        scores = np.array([(t.scores or {})[target] for t in searched])
        # Undo the standardisation; the sign of the factor tells whether more is better.
        away = np.array([measured for _, measured in pairs])
        scale = float(scores.std()) * (1.0 if away @ (scores - scores.mean()) >= 0 else -1.0)
        shift, unit = float(scores.mean()), answer.outcomes[0].unit if answer.outcomes else ""
    points = [(shift + scale * x, shift + scale * y) for x, y in pairs]
    sds = [] if answer.noise is None else [abs(scale) * answer.noise] * len(points)
    tips = [f"predicted {x:.5g}" for x, _ in points]
    series = Series(name=story.noun[0], color="blue", points=points, sds=sds, tips=tips)
    unit = unit and f", {unit}"
    picture = scatter_plot([series], f"predicted{unit}", f"measured{unit}", diagonal=True)
    if not picture:
        return []
    one, many = story.noun
    note = (
        f"Each point is a {one}: its measured score, and the score that is predicted from the "
        f"other {many}. On the dotted line, the two are equal."
    )
    if sds:
        note += " A bar is the noise of a single run: one standard deviation to each side."
    return [paragraph(note), picture]


def _skills(story: _Story) -> str:
    if not story.answer.table:
        return paragraph(f"Too few {story.noun[1]} have scores to fit a predictor.")
    rows = [
        (
            escape(skill.target),
            escape(skill.predictor),
            f"{skill.r2:.2f}",
            f"{skill.spearman:.2f}",
            skill.verdict,
        )
        for skill in story.answer.table
    ]
    return paragraph(SKILLS_NOTE) + table(_SKILL_HEADS, rows, numbers=(2, 3))
