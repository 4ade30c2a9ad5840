"""The demonstration: from a corpus to shards, a search, and a comparison of trained models."""

import contextlib
import os
import sys
from pathlib import Path

import click

from climbstream.loader import Mixture
from climbstream.loader.cli.main import call
from climbstream.loader.cli.options import COUNT, json_option, show
from climbstream.loader.core.console import say, text_table, with_error
from climbstream.loader.core.files import lock, write_bytes
from climbstream.loader.core.html_page import page, section
from climbstream.loader.formats.cluster_tables import cluster_table
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import DEMO
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.evaluation.targets import choose_target
from climbstream.search.experiments.report import comparison_sections, search_sections
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.answer import Answer
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.training.settings import TrainSettings

from .search import mixture_text

FOUND, SHARES, UNIFORM = "found", "token-share", "uniform"


@click.command()
@click.option("--source", default="python:", help="Any corpus.  [default: text of this machine]")
@click.option("--label", default="source", show_default=True, help="Column of a known domain.")
@click.option("--target", help="What to be good at.  [default: the kind of middle size]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="demo",
    show_default=True,
    help="Folder of all that is made.",
)
@click.option(
    "--clusters",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Of the corpus, and weights to find.",
)
@click.option(
    "--budget", type=click.IntRange(1), default=28, show_default=True, help="Proxies in all."
)
@click.option(
    "--proxy-tokens",
    type=COUNT,
    default=300_000,
    show_default=True,
    help="Tokens of a proxy.",
)
@click.option(
    "--final-tokens",
    type=COUNT,
    default=600_000,
    show_default=True,
    help="Tokens of a final run.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Runs of each final mixture.",
)
@json_option
def demo(
    source: str,
    label: str,
    target: str | None,
    out: Path,
    clusters: int,
    budget: int,
    proxy_tokens: int,
    final_tokens: int,
    seeds: int,
    as_json: bool,
) -> None:
    """Run all steps on real text: build, search, and compare trained models.

    The mixture of the search, the token shares and equal weights are compared on held-out text of
    one kind, in bits per byte. Run again after an interrupt, it continues where it stopped.
    """
    # Torch takes seconds, for which --help should not wait.
    from climbstream.search.experiments.compare import compare  # noqa: PLC0415
    from climbstream.search.experiments.proxy_search import run_search  # noqa: PLC0415

    os.environ.setdefault("CLIMBSTREAM_CACHE", str((out / "cache").absolute()))
    shards = out / "shards"
    with lock(out):
        DEMO.begin(out, {"demo": 1})  # each of its parts keeps its own plan
    say(f"1/3 build: {source} to {shards}")
    _build(source, label, clusters, shards)
    target = target or choose_target(shards)
    say(f"2/3 search: {budget} proxies of {proxy_tokens:,} tokens for {target}")
    settings = SearchSettings(
        budget=budget,
        proxy=TrainSettings(tokens=proxy_tokens),
        final_tokens=final_tokens,
    )
    answer = run_search(shards, [target], out / "search", settings)
    say(f"3/3 compare: {3 * seeds} models of {final_tokens:,} tokens")
    opened = ShardDirectory(shards)
    manifest = opened.manifest
    comparison = compare(
        shards,
        {
            FOUND: answer.mixture,
            SHARES: manifest.token_shares,
            UNIFORM: Mixture.uniform(manifest.names),
        },
        [target],
        TrainSettings(tokens=final_tokens),
        range(1, seeds + 1),
        out / "compare",
    )[target]
    holds, verdict = comparison.verdict(FOUND)
    lead = (
        f"Searched with {budget} proxies of {proxy_tokens:,} tokens for {target}, in "
        f"{manifest.tokens:,} tokens of {source!r}; compared after {final_tokens:,} tokens, on "
        "text that neither shards nor search have seen."
    )
    report = _write_report(opened, out, lead, answer, comparison)
    value = {
        "target": target,
        "scores": comparison.scores,
        "holds": holds,
        "verdict": verdict,
        "mixture": answer.mixture.weights,
        "report": str(report),
    }
    show(value, _summary(shards, out, target, answer, comparison), as_json=as_json)


def _build(source: str, label: str, clusters: int, shards: Path) -> None:
    """Build ``shards`` as ``climb build`` does; its output goes to standard error."""
    options = f"build --vocab-size 1024 --holdout 0.06 --clusters {clusters} --label".split()
    with contextlib.redirect_stdout(sys.stderr):
        call([*options, label, "--out", str(shards), source])


def _write_report(
    shards: ShardDirectory, out: Path, lead: str, answer: Answer, comparison: Comparison
) -> Path:
    """Write the report of comparison, search and clusters; return its path."""
    sections = [
        *comparison_sections(comparison, FOUND),
        *search_sections(
            out / "shards", answer, TrialLog.open(out / "search" / "trials.jsonl").trials
        ),
        section("The clusters", cluster_table(shards.clusters())),
    ]
    report = out / "report.html"
    write_bytes(report, page("climbstream demo", lead, sections))
    return report


def _summary(shards: Path, out: Path, target: str, answer: Answer, comparison: Comparison) -> str:
    """Lay the result out for a terminal: the claim, the paired table, and where all of it lies."""
    rows, digits = [], comparison.digits
    for name in comparison.scores:
        gain = "" if name == FOUND else with_error(*comparison.gain(FOUND, name), digits)
        rows.append((name, with_error(*comparison.mean(name), digits), gain))
    heads = ("mixture", comparison.unit, f"{FOUND} is better by")
    _, verdict = comparison.verdict(FOUND)
    places = (
        ("shards", shards),
        ("mixture", out / "search" / "mixture.json"),
        ("trials", out / "search" / "trials.jsonl"),
        ("report", out / "report.html"),
    )
    return "\n\n".join(
        (
            verdict,
            f"Held-out text of {target}:\n{text_table(heads, rows)}",
            *([f"warning: {comparison.warning}"] if comparison.warning else []),
            f"The search: {answer.reason}",
            mixture_text(shards, answer.mixture),
            text_table(("what", "where"), places, left=2),
        )
    )
