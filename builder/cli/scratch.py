"""The option ``--scratch`` of commands that can write to a bucket."""

import click

from climbstream.loader.cli.options import OUTPUT

scratch_option = click.option(
    "--scratch",
    type=OUTPUT,
    help="Folder for work if --out is s3://…; all nodes must see it.  [default: in the cache]",
)
