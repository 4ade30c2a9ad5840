"""The command ``climb score``."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from climbstream.loader.cli.completion import complete_targets
from climbstream.loader.cli.options import INPUT, json_option, show
from climbstream.loader.core.console import text_table, with_error


@click.command()
@click.argument("model", type=INPUT)
@click.argument("directory", type=INPUT)
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    shell_complete=complete_targets,
    help="Target, as in climb search; may be used several times.",
)
@click.option(
    "--half",
    type=click.Choice(["validation", "test"]),
    default="test",
    show_default=True,
    help="Half of each target to score; searches use only the validation half.",
)
@click.option(
    "--seq-len",
    type=click.IntRange(min=1),
    help="Tokens per row.  [default: what the model can read, at most 2048]",
)
@json_option
def score(
    model: Path,
    directory: Path,
    targets: tuple[str, ...],
    half: Literal["validation", "test"],
    seq_len: int | None,
    as_json: bool,
) -> None:
    """Score the Hugging Face model in the folder MODEL on targets; lower scores are better.

    MODEL may contain any causal language model, such as OUT/model of climb train. A target is given
    as in climb search: label=NAME or cluster=NAME of the held-out text of the shards in DIRECTORY,
    a file of text, or a multiple-choice task. Text and right answers are scored in bits per byte,
    so that models with different tokenizers can be compared. error=FILE is scored by the fraction
    of wrong answers. The number after ± is the standard error that is due to the choice of texts or
    questions.
    """
    from climbstream.search.experiments.model_score import score_model  # noqa: PLC0415 - torch

    scores = score_model(model, directory, targets, half=half, seq_len=seq_len)
    rows = [
        (s.target, with_error(s.score, s.sd, 4), s.unit, f"{s.items:,}", f"{s.bytes:,}")
        for s in scores
    ]
    table = text_table(("target", "score", "unit", "items", "bytes"), rows)
    text = "\n".join([table, *(f"warning: {s.warning}" for s in scores if s.warning)])
    value = {"model": str(model), "half": half, "scores": [asdict(s) for s in scores]}
    show(value, text, as_json=as_json)
