"""The option ``--scratch`` of commands that can write to a bucket."""

from pathlib import Path

import click

scratch_option = click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder for work on an --out of s3://…, seen by all nodes.  [default: in the cache]",
)
