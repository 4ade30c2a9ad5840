"""The parts of a search's report: its path, the mixture it found, and what that is worth."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from climbstream.loader import Manifest
from climbstream.loader.clusters import load_clusters
from climbstream.loader.page import bar, claim, dots, paragraph, section, table

from .answer import Answer
from .compare import Comparison
from .trial import Trial

_COLORS = ("blue", "orange", "green")


def comparison_sections(comparison: Comparison, name: str) -> list[str]:
    """Show the claim and the table of a comparison; ``name`` is the mixture that was found."""
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
    """Show what was measured round by round, the mixture, and how good the predictor was."""
    shares = Manifest.load(directory).token_shares.weights
    words = {info.name: ", ".join(info.terms[:5]) for info in load_clusters(directory)}
    return [
        section("The search", paragraph(answer.reason), *_paths(answer, trials)),
        section("The mixture", _weights(shares, words, answer)),
        section("The predictors", _skills(answer)),
    ]


def table_sections(
    shares: Mapping[str, float], answer: Answer, trials: Sequence[Trial]
) -> list[str]:
    """Show what a table of finished runs says; ``shares`` are what the mixture is compared with."""
    return [
        section("The answer", paragraph(answer.reason), *_paths(answer, trials)),
        section("The mixture", _weights(shares, {}, answer)),
        section("The predictors", _skills(answer)),
    ]


def _paths(answer: Answer, trials: Sequence[Trial]) -> list[str]:
    """One picture a target: score by trial, a colour a round."""
    pictures = []
    for target in answer.measured_best.scores:
        rounds = sorted({trial.round for trial in trials})
        series = [
            (
                f"round {number}",
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
        pictures.append(dots(series, "proxy", f"{target}, lower is better", lines))
    if failed := [trial for trial in trials if trial.scores is None]:
        why = "; ".join(f"{trial.number}: {trial.why}" for trial in failed[:5])
        pictures.append(paragraph(f"{len(failed)} proxies failed: {why}"))
    return pictures


def _weights(shares: Mapping[str, float], words: Mapping[str, str], answer: Answer) -> str:
    """Weights of the clusters beside their shares of the tokens."""
    most = max(*shares.values(), *answer.mixture.weights.values())
    rows = [
        (
            f"<code>{escape(name)}</code>",
            escape(words.get(name, "")),
            f"{bar(share / most)}&nbsp;{share:.1%}",
            f"{bar(weight / most, 'orange')}&nbsp;{weight:.1%}",
            f"{weight / share:.2f}x" if share else "",
        )
        for name, share in shares.items()
        for weight in [answer.mixture.weights.get(name, 0.0)]
    ]
    return table(("cluster", "words", "token share", "weight", "ratio"), rows, numbers=(4,))


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
