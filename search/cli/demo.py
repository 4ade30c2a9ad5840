"""The command ``climb demo``: build shards, search a mixture, compare trained models."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import call
from climbstream.loader.cli.options import COUNT, OUTPUT, json_option, show
from climbstream.loader.core.console import say, text_table, with_error
from climbstream.loader.core.files import lock, write_bytes
from climbstream.loader.core.html_page import page, section
from climbstream.loader.formats.cluster_tables import cluster_table
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import DEMO, TRIALS
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.evaluation.targets import choose_target
from climbstream.search.experiments.report import comparison_sections, search_sections
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.answer import BASE, Answer
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.training.settings import TrainSettings

from .search import mixture_text

FOUND, SHARES, UNIFORM = "found", "token-share", "uniform"
_NOT_FOUND = (
    "The search found no mixture that is surely better than the token shares, so the token shares "
    "are compared with equal weights."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demo:
    """The settings of a demonstration, and the folder that it fills."""

    source: str
    label: str
    out: Path
    clusters: int
    budget: int
    proxy_tokens: int
    final_tokens: int
    seeds: int

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return self.out / "shards"

    def lead(self, target: str, tokens: int, answer: Answer) -> str:
        """Return the first sentences of the report; the corpus has ``tokens`` tokens."""
        searched = (
            f"Searched with {self.budget} proxies of {self.proxy_tokens:,} tokens for {target}, in "
            f"{tokens:,} tokens of {self.source!r}; compared after {self.final_tokens:,} tokens, "
            "on text that neither shards nor search have seen."
        )
        return f"{searched} {_NOT_FOUND}" if answer.choice == BASE else searched


@click.command()
@click.option(
    "--source", default="python:", help="Corpus to build from.  [default: text of this machine]"
)
@click.option(
    "--label",
    default="source",
    show_default=True,
    help="Column with the known domain of a document.",
)
@click.option(
    "--target",
    help="Target, as in climb search.  [default: the kind of held-out text of median size]",
)
@click.option(
    "--out",
    type=OUTPUT,
    default="demo",
    show_default=True,
    help="Folder for all results.",
)
@click.option(
    "--clusters",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Number of clusters.",
)
@click.option(
    "--budget", type=click.IntRange(1), default=28, show_default=True, help="Number of proxies."
)
@click.option(
    "--proxy-tokens",
    type=COUNT,
    default=300_000,
    show_default=True,
    help="Tokens on which each proxy is trained.",
)
@click.option(
    "--final-tokens",
    type=COUNT,
    default=600_000,
    show_default=True,
    help="Tokens on which each compared model is trained.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of models that are trained on each compared mixture.",
)
@json_option
def demo(target: str | None, out: Path, as_json: bool, **options: Any) -> None:
    """Run all steps on real text: build, search, and compare trained models.

    Models are trained on three mixtures: the result of the search, the token shares, and equal
    weights. If the search found no better mixture than the token shares, models are trained only on
    the other two. The models are compared on held-out text of one kind, in bits per byte. A demo
    that was interrupted continues when the same command is run again.
    """
    demo = _Demo(out=out, **options)
    os.environ.setdefault("CLIMBSTREAM_CACHE", str((out / "cache").absolute()))
    with lock(out):
        DEMO.begin(out, {"demo": 1})  # each step keeps its own plan
    say(f"1/3 build: {demo.source} to {demo.shards}")
    _build(demo)
    target = target or choose_target(demo.shards)
    say(f"2/3 search: {demo.budget} proxies of {demo.proxy_tokens:,} tokens for {target}")
    answer = _search(demo, target)
    shards = ShardDirectory(demo.shards)
    mixtures = _mixtures(shards.manifest, answer)
    say(
        f"3/3 compare: {len(mixtures) * demo.seeds} models of {demo.final_tokens:,} tokens; "
        f"mixtures: {', '.join(mixtures)}"
    )
    comparison = _compare(demo, mixtures, target)
    name = next(iter(mixtures))
    holds, verdict = comparison.verdict(name)
    lead = demo.lead(target, shards.manifest.tokens, answer)
    value = {
        "target": target,
        "scores": comparison.scores,
        "choice": answer.choice,
        "holds": holds and name == FOUND,
        "verdict": verdict,
        "mixture": answer.mixture.weights,
        "report": str(_write_report(shards, out, lead, answer, comparison)),
    }
    show(value, _summary(demo.shards, out, target, answer, comparison), as_json=as_json)


def _build(demo: _Demo) -> None:
    """Build the shards as ``climb build`` does; its output goes to standard error."""
    options = f"build --vocab-size 1024 --holdout 0.06 --clusters {demo.clusters} --label".split()
    with contextlib.redirect_stdout(sys.stderr):
        call([*options, demo.label, "--out", str(demo.shards), demo.source])


def _search(demo: _Demo, target: str) -> Answer:
    """Search for the mixture that is best for ``target``, as ``climb search`` does."""
    # Imported here, because torch takes seconds to load, and --help should not wait for it.
    from climbstream.search.experiments.proxy_search import run_search  # noqa: PLC0415

    settings = SearchSettings(
        budget=demo.budget,
        proxy=TrainSettings(tokens=demo.proxy_tokens),
        final_tokens=demo.final_tokens,
    )
    return run_search(demo.shards, [target], demo.out / "search", settings)


def _mixtures(manifest: Manifest, answer: Answer) -> dict[str, Mixture]:
    """Return the mixtures to compare, by name; the answer of the search is the first."""
    uniform = Mixture.uniform(manifest.names)
    if answer.choice == BASE:
        return {SHARES: answer.mixture, UNIFORM: uniform}
    return {FOUND: answer.mixture, SHARES: manifest.token_shares, UNIFORM: uniform}


def _compare(demo: _Demo, mixtures: Mapping[str, Mixture], target: str) -> Comparison:
    """Train models on each of ``mixtures``, and score them on ``target``."""
    from climbstream.search.experiments.compare import compare  # noqa: PLC0415

    settings = TrainSettings(tokens=demo.final_tokens)
    seeds = range(1, demo.seeds + 1)
    return compare(demo.shards, mixtures, [target], settings, seeds, demo.out / "compare")[target]


def _write_report(
    shards: ShardDirectory, out: Path, lead: str, answer: Answer, comparison: Comparison
) -> Path:
    """Write the report on the comparison, the search and the clusters; return its path."""
    sections = [
        *comparison_sections(comparison, next(iter(comparison.scores))),
        *search_sections(out / "shards", answer, TrialLog.open(out / "search" / TRIALS).trials),
        section("The clusters", cluster_table(shards.clusters())),
    ]
    report = out / "report.html"
    write_bytes(report, page("climbstream demo", lead, sections))
    return report


def _summary(shards: Path, out: Path, target: str, answer: Answer, comparison: Comparison) -> str:
    """Format the result for a terminal: the verdict, the gains, the mixture, and the files."""
    rows, digits, first = [], comparison.digits, next(iter(comparison.scores))
    for name in comparison.scores:
        mean = with_error(*comparison.mean(name), digits)
        rows.append((name, mean, comparison.gain_text(first, name)))
    heads = ("mixture", comparison.unit, f"{first} is better by")
    _, verdict = comparison.verdict(first)
    places = (
        ("shards", shards),
        ("mixture", out / "search" / "mixture.json"),
        ("trials", out / "search" / TRIALS),
        ("report", out / "report.html"),
    )
    return "\n\n".join(
        (
            *([_NOT_FOUND] if answer.choice == BASE else []),
            verdict,
            f"Held-out text of {target}:\n{text_table(heads, rows)}",
            *([f"warning: {comparison.warning}"] if comparison.warning else []),
            f"The search: {answer.reason}",
            mixture_text(shards, answer.mixture),
            text_table(("what", "where"), places, left=2),
        )
    )
