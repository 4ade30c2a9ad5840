"""The command ``climb contamination``: find test questions in documents of finished shards."""

from pathlib import Path

import click

from climbstream.loader.cli.completion import PLACE
from climbstream.loader.cli.main import task_timeout_option
from climbstream.loader.cli.options import OUTPUT, json_option, show
from climbstream.loader.core.files import write_json


@click.command()
@click.argument("directory", type=PLACE)
@click.argument("tasks", nargs=-1, required=True)
@click.option("--out", type=OUTPUT, help="File to write the result to, as JSON.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes.  [default: one per core]"
)
@task_timeout_option
@json_option
def contamination(
    directory: str, tasks: tuple[str, ...], out: Path | None, workers: int | None, as_json: bool
) -> None:
    """List the documents of the shards in DIRECTORY, a folder or URL, that contain items of TASKS.

    A task may be a file of JSON lines, JSON, CSV, Parquet or Arrow, with one question per record.
    Its fields have the names that common data sets use, or those of the files of lm-eval
    --log_samples. A task may also be a text file in UTF-8, with one item per paragraph.
    lm-eval=NAME is a task of lm-eval. label=NAME and cluster=NAME are the held-out documents of
    this label or cluster in DIRECTORY. The text of documents is decoded from the tokens in the
    shards.

    An item counts as found if a document contains 80 % of the item's words in their order. An item
    of 8 to 12 words needs 85 %. An item of fewer than 8 words needs all of its words and, if the
    task has answers, its answer near the question. If the other words are rare in the task, one
    word may be missing in an item of 8 to 12 words (6 to 12, if the task has answers). Words that
    are in many items of the task count less. Letter case, punctuation and line breaks make no
    difference.
    """
    from climbstream.builder.contamination.shards import (  # noqa: PLC0415
        check_shards,
        report_text,
    )
    from climbstream.builder.contamination.tasks import read_tasks  # noqa: PLC0415

    report = check_shards(directory, read_tasks(tasks, directory), workers=workers)
    if out is not None:
        write_json(out, report)
    show(report, report_text(report), as_json=as_json)
