"""The option ``--scratch`` of commands that can write to a bucket."""

from pathlib import Path

import click

scratch_option = click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder for work if --out is s3://…; all nodes must see it.  [default: in the cache]",
)
