"""Report of a search: the path of the search, its mixture, and how sure the gain is."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from climbstream.loader.core.console import text_table
from climbstream.loader.core.html_page import bar, claim, paragraph, scatter_plot, section, table
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.evaluation.comparison import Comparison, mean_and_error
from climbstream.search.optimizer.answer import BASE, Answer
from climbstream.search.optimizer.trials import Trial
from climbstream.search.predictors.base import Skill, spearman

_COLORS = ("blue", "orange", "green")
_CHOICES = {
    BASE: "token shares",
    "measured": "best measured",
    "predicted": "best predicted",
}


def comparison_sections(comparison: Comparison, name: str) -> list[str]:
    """Show the result and the table of a comparison; ``name`` is the mixture of the search."""
    holds, text = comparison.verdict(name)
    rows = []
    for other, scores in comparison.scores.items():
        mean, error = comparison.mean(other)
        gain = "" if other == name else "{:+.4f} ± {:.4f}".format(*comparison.gain(name, other))
        rows.append(
            (
                f"<b>{escape(other)}</b>",
                f"{mean:.4f} ± {error:.4f}",
                ", ".join(f"{score:.4f}" for score in scores),
                gain,
            )
        )
    heads = ("mixture", "bits per byte, mean ± standard error", "by seed", f"gain of {name}")
    return [section("The result", claim(text, holds=holds), table(heads, rows, numbers=(1, 3)))]


def search_sections(directory: Path, answer: Answer, trials: Sequence[Trial]) -> list[str]:
    """Show the scores by round, the mixture, and how good the predictor was."""
    shards = ShardDirectory(directory)
    shares = shards.manifest.token_shares.weights
    words = {info.name: info.words for info in shards.clusters()}
    return [
        section("The search", paragraph(answer.reason), *_paths(answer, trials)),
        *_confirmed(answer),
        *_front(answer),
        section("The mixture", _weights(shares, words, answer)),
        section("The clusters", *_rounds(list(shares), answer, trials)),
        section("The predictors", _skills(answer), _predicted(answer)),
    ]


def table_sections(
    shares: Mapping[str, float], answer: Answer, trials: Sequence[Trial]
) -> list[str]:
    """Show the results of a table of finished runs; the mixture is compared with ``shares``."""
    return [
        section("The answer", paragraph(answer.reason), *_paths(answer, trials)),
        *_front(answer),
        section("The mixture", _weights(shares, {}, answer)),
        section("The clusters", *_rounds(list(shares), answer, trials)),
        section("The predictors", _skills(answer), _predicted(answer)),
    ]


def _paths(answer: Answer, trials: Sequence[Trial]) -> list[str]:
    """Draw one picture for each target: score by trial, a colour for each round."""
    pictures = []
    for target in answer.measured_best.scores:
        rounds = sorted({trial.round for trial in trials})
        series = [
            (
                _round_name(number, answer, trials),
                _COLORS[(number - 1) % len(_COLORS)],
                [
                    (float(trial.number), trial.scores[target])
                    for trial in trials
                    if trial.round == number and trial.scores is not None
                ],
            )
            for number in rounds
        ]
        lines = []
        if answer.baseline is not None:
            lines.append(("token shares", answer.baseline.scores[target]))
        pictures.append(scatter_plot(series, "proxy", f"{target}, lower is better", lines))
    if failed := [trial for trial in trials if trial.scores is None]:
        why = "; ".join(f"{trial.number}: {trial.why}" for trial in failed[:5])
        pictures.append(paragraph(f"{len(failed)} proxies failed: {why}"))
    return pictures


def _weights(shares: Mapping[str, float], words: Mapping[str, str], answer: Answer) -> str:
    """Weights of the clusters beside their shares of the tokens."""
    most = max(*shares.values(), *answer.mixture.weights.values())
    rows = [
        [
            f"<code>{escape(name)}</code>",
            escape(words.get(name, "")),
            f"{bar(share / most)}&nbsp;{share:.1%}",
            f"{bar(weight / most, 'orange')}&nbsp;{weight:.1%}",
            f"{weight / share:.2f}x" if share else "",
        ]
        for name, share in shares.items()
        for weight in [answer.mixture.weights.get(name, 0.0)]
    ]
    heads = ["cluster", "words", "token share", "weight", "ratio"]
    if not answer.spread:
        return table(heads, rows, numbers=(4,))
    for row, name in zip(rows, shares, strict=True):
        row.append("{:.1%} to {:.1%}".format(*answer.spread[name]))
    lead = (
        "Had the proxies erred otherwise, the best would lie between the two weights of the last "
        "column in 8 of 10 cases; a cluster with a wide range matters little."
    )
    return table([*heads, "best between"], rows, numbers=(4, 5)) + paragraph(lead)


def _front(answer: Answer) -> list[str]:
    """Show the mixtures that are best for some importance of the targets."""
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
        "Measured mixtures that no other beats on all targets (the Pareto front). Each is the best "
        "for some way to weigh the targets, and some are there by luck."
    )
    heads = ["trials", *targets, "most of"]
    numbers = range(1, 1 + len(targets))
    return [section("Between the targets", paragraph(lead), table(heads, rows, numbers=numbers))]


def skills_text(skills: Sequence[Skill]) -> str:
    """Lay out for a terminal how good predictors are."""
    rows = [(s.target, s.predictor, f"{s.r2:.3f}", f"{s.spearman:.3f}", s.verdict) for s in skills]
    return text_table(("target", "predictor", "R²", "rank", "out of fold"), rows, left=2)


def _confirmed(answer: Answer) -> list[str]:
    """Show the scores of the mixtures that were run again, side by side."""
    if answer.confirmation is None:
        return []
    targets = list(answer.measured_best.scores)
    base = answer.confirmation.scores[BASE]
    rows = []
    for choice, scores in answer.confirmation.scores.items():
        cells = [f"<b>{escape(_CHOICES[choice])}</b>"]
        for target in targets:
            pairs = zip(scores[target], base[target], strict=True)
            mean, error = mean_and_error(scores[target])
            less, doubt = mean_and_error([ours - theirs for ours, theirs in pairs])
            cells += [f"{mean:.5g} ± {error:.2g}"]
            cells += ["" if choice == BASE else f"{less:+.5g} ± {doubt:.2g}"]
        rows.append(cells)
    heads = ["mixture"]
    for target in targets:
        heads += [target, "against the token shares"]
    seeds = len(answer.confirmation.seeds)
    lead = f"Runs with {seeds} new seeds, the same for all; mean ± standard error, in pairs."
    return [
        section(
            "Run again", paragraph(lead), table(heads, rows, numbers=range(1, 1 + 2 * len(targets)))
        )
    ]


def _rounds(names: Sequence[str], answer: Answer, trials: Sequence[Trial]) -> list[str]:
    """Show mean weights by round, and how scores vary with the weight of each cluster."""
    scored = [trial for trial in trials if trial.scores is not None]
    weights = np.array([trial.mixture.array(names) for trial in scored])
    rounds = np.array([trial.round for trial in scored])
    numbers = np.unique(rounds).tolist()
    means = [weights[rounds == number].mean(axis=0) for number in numbers]
    targets = list(answer.measured_best.scores)
    rows = []
    for k, name in enumerate(names):
        goes = [
            spearman(weights[:, k], np.array([(t.scores or {})[target] for t in scored]))
            for target in targets
        ]
        rows.append(
            [
                f"<code>{escape(name)}</code>",
                *(f"{mean[k]:.1%}" for mean in means),
                *(f"{value:+.2f}" for value in goes),
            ]
        )
    heads = ["cluster", *(_round_name(n, answer, trials) for n in numbers)]
    heads += [f"goes with {target}" for target in targets]
    lead = (
        "Mean weight of each cluster in the proxies of a round; and the rank correlation of its "
        "weight with the score: below 0, more of it comes with better scores."
    )
    return [paragraph(lead), table(heads, rows, numbers=range(1, len(heads)))]


def _round_name(number: int, answer: Answer, trials: Sequence[Trial]) -> str:
    last = answer.confirmation is not None and number == max(trial.round for trial in trials)
    return "run again" if last else f"round {number}"


def _predicted(answer: Answer) -> str:
    """Plot the score of each proxy against its prediction from the other proxies."""
    return scatter_plot(
        [("proxy", "blue", answer.out_of_fold)],
        "predicted",
        "measured, sd, by what the other proxies predict of it",
    )


def _skills(answer: Answer) -> str:
    if not answer.table:
        return paragraph("Too few proxies were scored to fit one.")
    rows = [
        (
            escape(skill.target),
            escape(skill.predictor),
            f"{skill.r2:.2f}",
            f"{skill.spearman:.2f}",
            skill.verdict,
        )
        for skill in answer.table
    ]
    heads = ("target", "predictor", "R² out of fold", "rank correlation out of fold", "")
    return table(heads, rows, numbers=(2, 3))
