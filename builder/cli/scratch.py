"""The option ``--scratch`` of commands that can write to a bucket."""

import click

from climbstream.loader.cli.options import OUTPUT

scratch_option = click.option(
    "--scratch",
    type=OUTPUT,
    help="Folder for work on an --out of s3://…, seen by all nodes.  [default: in the cache]",
)
