"""The commands that look at a run: audit, explain, monitor.

What plans steps or reads shards anew is imported where it is called: it is compiled, which takes
most of a second to load, for which neither ``--help`` nor the monitor should wait.
"""

import json
from dataclasses import asdict
from pathlib import Path

import click

from climbstream.loader.core.console import say
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.signals import Stopped
from climbstream.loader.core.table import text_table
from climbstream.loader.monitoring.run_status import RunWatch
from climbstream.loader.monitoring.server import HOST, Monitor

from .main import json_option, show

_RUN = click.argument("run", type=click.Path(path_type=Path))
_SHARDS = click.option("--shards", help="Folder or URL.  [default: where they were when it ran]")


@click.command()
@_RUN
@_SHARDS
@json_option
def audit(run: Path, shards: str | None, as_json: bool) -> None:
    """Recompute what the job in the folder RUN served; exit 4 if a step differs.

    Each step is planned again from weights.jsonl and the indexes of the shards, and compared with
    served.jsonl.
    """
    from climbstream.loader.audit.auditor import audit_run  # noqa: PLC0415
    from climbstream.loader.audit.replay import Replay  # noqa: PLC0415

    result = audit_run(Replay(run, shards))
    rows = [
        (c.name, f"{c.target:.4%}", f"{c.served:.4%}", f"{c.tokens:,}", f"{c.epochs:.3f}")
        for c in result.clusters
    ]
    more = f"from step {result.first:,} on, " if result.first else ""
    more += f"{result.again:,} were served once more after a restart" if result.again else ""
    if result.unwritten:
        more += f"; {result.unwritten:,} were not written down, and what follows agrees with them"
    text = (
        f"{run}: {result.steps:,} steps are as the weights log says\n"
        + (f"{more.strip('; ')}\n" if more else "")
        + "\n"
        + text_table(("cluster", "target", "served", "tokens", "epochs"), rows)
    )
    show(asdict(result), text, as_json=as_json)


@click.command()
@_RUN
@click.option("--step", type=click.IntRange(min=0), required=True, help="Number of the batch.")
@click.option("--row", type=click.IntRange(min=0), help="Of the global batch.  [default: all]")
@_SHARDS
@json_option
def explain(run: Path, step: int, row: int | None, shards: str | None, as_json: bool) -> None:
    """List the documents of which the job in the folder RUN made a batch."""
    from climbstream.loader.audit.explain import explain_step  # noqa: PLC0415
    from climbstream.loader.audit.replay import Replay  # noqa: PLC0415

    pieces = explain_step(Replay(run, shards), step, row)
    heads = ("row", "cluster", "lane", "epoch", "shard", "document", "tokens", "id", "origin")
    rows = [
        (
            p.row,
            p.cluster,
            p.lane,
            p.epoch,
            p.shard,
            p.document,
            f"{p.first:,}-{p.first + p.tokens - 1:,}",
            p.id or "",
            p.origin or "",
        )
        for p in pieces
    ]
    text = f"{run}, step {step:,}\n\n{text_table(heads, rows, left=9)}"
    show({"step": step, "pieces": [asdict(p) for p in pieces]}, text, as_json=as_json)


@click.command()
@_RUN
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="Of the page.  [default: a free one]"
)
@click.option("--json", "as_json", is_flag=True, help="Write where the run stands, and end.")
def monitor(run: Path, port: int, as_json: bool) -> None:
    """Show the job in the folder RUN on a local web page, and change its weights there.

    The address that is printed is good for this machine only, and holds a token: whoever has it
    may change the weights.
    """
    watch = RunWatch(run)
    if as_json:
        click.echo(json.dumps(watch.look()))
        return
    try:
        server = Monitor(watch, port)
    except OSError as error:
        raise UsageError(f"{HOST}:{port} cannot be listened on: {error.strerror}") from None
    with server:
        try:
            click.echo(server.url)
            say("open this address in a browser of this machine; Ctrl-C ends")
            server.serve_forever()
        except (KeyboardInterrupt, Stopped):
            say("ended; the run goes on")
