"""The command ``climb fit``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from climbstream.loader import Mixture
from climbstream.loader.cli.options import INPUT, OUTPUT, json_option, show
from climbstream.loader.core.console import counted, say, text_table
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import hash_file, lock, write_bytes, write_json
from climbstream.loader.core.html_page import page
from climbstream.loader.formats.outputs import FIT
from climbstream.search.experiments.fit_table import assumed_shares, fit, named_as, repeated_note
from climbstream.search.experiments.report import (
    SKILLS_NOTE,
    compared_mixtures,
    skills_text,
    table_sections,
)
from climbstream.search.experiments.run_table import read_runs
from climbstream.search.optimizer.answer import Answer


@click.command("fit")
@click.argument("tables", nargs=-1, required=True, type=INPUT)
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    help="Column of scores; COL=max if higher scores are better.",
)
@click.option("--weights", help="Pattern of the columns that hold weights.  [default: w_*]")
@click.option(
    "--prior",
    type=INPUT,
    help="Mixture file with the token shares.  [default: those in trials.jsonl, or the mean "
    "weights of the runs]",
)
@click.option("--max-weight", type=click.FloatRange(0, 1), help="Largest weight of any domain.")
@click.option("--out", type=OUTPUT, help="Folder of the results.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the fit."
)
@json_option
def fit_command(
    tables: tuple[Path, ...],
    targets: tuple[str, ...],
    weights: str | None,
    prior: Path | None,
    max_weight: float | None,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find the best mixture from finished runs: TABLES is one CSV file, or two.

    TABLES may also be one file, the trials.jsonl of a search; name targets as in that search.

    Each row is a run, with columns of weights and columns of scores. A column w_NAME holds the
    weights of the domain NAME. Lower scores are better. If there are two files, the first contains
    weights and the second contains scores. Their rows are joined on the column run or run_id, as in
    files of Olmix, or on the first column, as in files of RegMix. A run with two different scores
    in the second file is an error.

    Several targets count equally. Rows with equal weights are repetitions of one run. Some rows may
    be left out; the command shows their number and the reason.
    """
    if len(tables) > 2:
        raise UsageError(f"give one table, or two (weights and scores), not {len(tables)} files")
    ways = _ways(targets)
    table = read_runs(tables, list(ways), weights)
    notes = [*table.notes]
    if not prior and (hint := repeated_note(table)):
        notes.append(hint)
    for note in notes:
        say(note)
    given = named_as(Mixture.load(prior), table.domains) if prior else table.shares
    shares = assumed_shares(table) if given is None else given
    plan = {
        "fit": 1,
        "tables": [hash_file(path) for path in tables],
        "targets": ways,
        "weights": weights,
        "prior": None if given is None else given.weights,
        "max_weight": max_weight,
        "seed": seed,
    }
    with nullcontext() if out is None else _held(out, plan):
        answer = fit(table, ways, prior=given, max_weight=max_weight, seed=seed)
        value = {**answer.to_json(), "notes": notes}
        if out is not None:
            answer.mixture.save(out / "mixture.json")
            write_json(out / "answer.json", value)
            files = ", ".join(map(str, tables))
            lead = f"{counted(len(table.trials), 'run')} of {files}; targets {', '.join(ways)}."
            lead = ". ".join([lead.rstrip("."), *notes]) + "."
            sections = table_sections(shares.weights, answer, table.trials, table.names)
            write_bytes(out / "report.html", page("Fit", lead, sections))
    show(value, _text(answer, shares), as_json=as_json)


@contextmanager
def _held(out: Path, plan: Mapping[str, Any]) -> Iterator[None]:
    """Lock the folder ``out``, and record there that a fit with the settings ``plan`` begins."""
    with lock(out):
        FIT.begin(out, plan)
        yield


def _ways(targets: Sequence[str]) -> dict[str, str]:
    """Return, by target, ``min`` if lower scores are better, or ``max`` if higher ones are."""
    ways: dict[str, str] = {}
    for target in targets:
        name, _, way = target.rpartition("=")
        name, way = (name, way) if way in ("min", "max") and name else (target, "min")
        if ways.setdefault(name, way) != way:
            raise UsageError(f"target {name} cannot be both min and max; name it once")
    return ways


def _text(answer: Answer, shares: Mixture) -> str:
    """Format the answer for a terminal."""
    others = compared_mixtures(answer)
    columns = [shares.weights, answer.mixture.weights, *(m.weights for m in others.values())]
    rows = [
        (name, *(f"{weights.get(name, 0.0):.1%}" for weights in columns)) for name in shares.weights
    ]
    weight = "weight, predicted best" if answer.predicted_only else "weight"
    return "\n\n".join(
        (
            "\n".join([answer.reason, *(f"warning: {text}" for text in answer.warnings)]),
            f"{skills_text(answer.table)}\n{SKILLS_NOTE}",
            text_table(("domain", answer.base_name, weight, *others), rows),
        )
    )
