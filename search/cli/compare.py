"""The command ``climb compare``."""

from pathlib import Path

import click

from climbstream.loader.cli.options import INPUT, OUTPUT, json_option, show
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import write_bytes

_OURS = b"<!doctype html>"


@click.command()
@click.argument("folders", nargs=-1, required=True, type=INPUT)
@click.option("--out", type=OUTPUT, help="HTML file to write the comparison to.")
@json_option
def compare(folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Compare FOLDERS side by side: two or more searches, runs, or shard directories.

    For searches, the comparison shows results and mixtures. For runs, it shows losses and served
    shares. For shard directories, it shows sizes, the documents that were left out and why, known
    domains, and clusters with the same words. It always shows the settings that differ. No model is
    trained.
    """
    # Imported here, because numerical libraries take a second, and --help should not wait for them.
    from climbstream.search.experiments.side_by_side import side_by_side  # noqa: PLC0415

    if out is not None and out.exists():
        with out.open("rb") as file:
            if file.read(len(_OURS)) != _OURS:
                raise UsageError(
                    f"{out} exists, and climb did not write it, so it is not replaced; name "
                    "another file"
                )
    result = side_by_side(folders)
    text = result.text()
    if out is not None:
        write_bytes(out, result.page())
        text = f"{text}\n\npage: {out}"
    show(result.to_json(), text, as_json=as_json)
