"""The commands for a running or finished job: weights, audit, explain, monitor.

Modules that plan steps or read shards are imported inside the commands that use them. Their
compiled code takes almost a second to load, and ``--help`` and the monitor should not wait for it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from climbstream.loader.core.console import counted, duration, say, text_table
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.signals import Stopped
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.formats.outputs import TRAIN, has_ended
from climbstream.loader.monitoring.run_facts import RunFacts
from climbstream.loader.monitoring.run_status import LONG_SILENCE, RunStatus, silent_seconds
from climbstream.loader.monitoring.server import HOST, MonitorServer
from climbstream.loader.weights.interpolation import MOST_STEPS
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import (
    has_begun,
    open_weights_log,
    read_clusters,
    with_named_weights,
    write_request,
)
from climbstream.loader.weights.sources import waiting_change
from climbstream.loader.weights.update import EVERY, WeightsUpdate

from .completion import PLACE, complete_weights
from .options import INPUT, json_option, show, split_number

_LOOK_EVERY = 0.2
"""Seconds between two checks whether a run has begun."""
_RUN = click.argument("run", type=INPUT)
_SHARDS = click.option(
    "--shards",
    type=PLACE,
    help="Folder or URL of the shards.  [default: as in the run]",
)


@click.command()
@_RUN
@_SHARDS
@json_option
def audit(run: Path, shards: str | None, as_json: bool) -> None:
    """Check the record of what the job in the folder RUN served; exit 4 if a step differs.

    The audit computes again which rows each step had to serve, from the weights log (weights.jsonl)
    and the indexes of the shards. It compares the result with the ledger (served.jsonl), in which
    the job recorded what it served.
    """
    from climbstream.loader.audit.auditor import audit_run
    from climbstream.loader.audit.replay import Replay

    result = audit_run(Replay(run, shards))
    rows = [
        (c.name, f"{c.target:.4%}", f"{c.served:.4%}", f"{c.tokens:,}", f"{c.epochs:.3f}")
        for c in result.clusters
    ]
    more = [
        (result.first, f"from step {result.first + 1:,} on"),
        (result.again, f"{counted(result.again, 'step')} served again after a restart"),
        (
            result.abandoned,
            f"{counted(result.abandoned, 'later step')} served before a restart, and not served "
            "again since",
        ),
        (
            result.unwritten,
            f"{counted(result.unwritten, 'step')} missing in the ledger; later steps agree with "
            "the weights log",
        ),
    ]
    said = "; ".join(words for number, words in more if number)
    text = (
        f"{run}: {counted(result.steps, 'step')} served as the weights log says\n"
        + (f"{said}\n" if said else "")
        + _resumes_text(result.resumed)
        + "\n"
        + _cluster_table(run, ("cluster", "target", "served", "tokens", "epochs"), rows)
    )
    show(asdict(result), text, as_json=as_json)


def _resumes_text(steps: Sequence[int]) -> str:
    """Say, in a line, how often the run resumed, and what the ledger lacks then; "" if never."""
    if not steps:
        return ""
    return (
        f"resumed {counted(len(steps), 'time')}, last at step {steps[-1]:,}; if a job was killed, "
        "the steps that it served after its last line in the ledger are not counted\n"
    )


@click.command()
@_RUN
@click.option("--step", type=int, required=True, help="Number of the step, from 1.")
@click.option("--row", type=click.IntRange(min=0), help="Row of the global batch.  [default: all]")
@click.option("--text", "with_text", is_flag=True, help="Also print the text that was served.")
@_SHARDS
@json_option
def explain(
    run: Path, step: int, row: int | None, with_text: bool, shards: str | None, as_json: bool
) -> None:
    """List the documents in one batch of the job in the folder RUN.

    --step N means the batch after which N steps were done. Logs, metrics, checkpoints and
    loader.step count steps in the same way.

    The columns id and origin have the identifier of each document and the file that it came from.
    They are empty if the shards have no folder documents/, or are not in a local folder; --shards
    names one.
    """
    from climbstream.loader.audit.explain import explain_step
    from climbstream.loader.audit.replay import Replay

    pieces = explain_step(Replay(run, shards), step, row, text=with_text)
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
    text = (
        f"{run}, step {step:,}: the batch with which the run had done {counted(step, 'step')}\n\n"
        f"{text_table(heads, rows, left=9)}"
    )
    if with_text:
        text += "".join(
            f"\n\nrow {p.row}, {p.cluster}, shard {p.shard}, document {p.document}:\n{p.text}"
            for p in pieces
        )
    show({"step": step, "pieces": [asdict(p) for p in pieces]}, text, as_json=as_json)


@click.command()
@_RUN
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the page.  [default: a free one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the state of the run once, and end.")
def monitor(run: Path, port: int, as_json: bool) -> None:
    """Show the job in the folder RUN on a local web page, and change its weights there.

    If the run has not begun, the command waits for it. The printed address works only on this
    machine. Everyone who has the address can change the weights, because it contains a secret
    token.
    """
    if not as_json:
        _wait_for_run(run)
    watch = RunStatus(run)
    if as_json:
        click.echo(json.dumps(watch.look()))
        return
    try:
        server = MonitorServer(watch, port)
    except OSError as error:
        raise UsageError(
            f"port {port} of {HOST} cannot be used: {error.strerror}; choose another --port"
        ) from None
    with server:
        try:
            click.echo(server.url)
            say("open this address in a browser of this machine; Ctrl-C ends this command")
            server.serve_forever()
        except (KeyboardInterrupt, Stopped):
            say("climb monitor ended; the run continues")


def _wait_for_run(run: Path) -> None:
    """Wait until the job in the folder ``run`` has begun, so that it has a weights log.

    If the folder exists but belongs to no job, there is no wait, because a log may never come. A
    job makes its folder some seconds before its log.
    """
    if has_begun(run) or (run.exists() and not (run / TRAIN.plan).exists()):
        return
    say(f"no run has begun in {run.absolute()}; waiting for it; Ctrl-C ends")
    while not has_begun(run):
        time.sleep(_LOOK_EVERY)


@click.command()
@click.argument("run", type=INPUT)
@click.argument("named", nargs=-1, metavar="[CLUSTER=WEIGHT]...", shell_complete=complete_weights)
@click.option(
    "--only",
    is_flag=True,
    help="Give other clusters weight 0, and scale the named weights to sum to 1.",
)
@click.option(
    "--ramp",
    type=click.IntRange(0, MOST_STEPS),
    help="Number of steps in which the weights change linearly.  [default: 0, at once]",
)
@click.option(
    "--why", default="", help="Reason for the change, which is written to the weights log."
)
@json_option
def weights(
    run: Path, named: Sequence[str], only: bool, ramp: int | None, why: str, as_json: bool
) -> None:
    """Show the weights of the job in the folder RUN, or ask the job to change them.

    Without CLUSTER=WEIGHT, the weights are shown. With c03=0.4, cluster c03 gets 0.4 of the tokens;
    the clusters that are not named share the rest in their present proportions, or in those of a
    request that still waits. The job changes its weights without a restart.
    """
    log = open_weights_log(run)
    if not named:
        if only or ramp is not None or why:
            raise UsageError(
                "--only, --ramp and --why need new weights; name some, such as c03=0.4"
            )
        show(_log_value(run, log), _log_text(run, log), as_json=as_json)
        return
    waiting = waiting_change(run, log)
    mixture = with_named_weights(
        log, _shares(named), only=only, clusters=read_clusters(run), waiting=waiting
    )
    change = WeightsUpdate(mixture, ramp or 0, why)
    path = write_request(run, change, log.head)
    what = (
        f"a ramp of {counted(change.ramp, 'step')} to these weights"
        if change.ramp
        else "these weights"
    )
    text = (
        f"request to the job in {path}: {what}, as the change after record {log.records[-1].v}:\n"
        "\n"
        f"{_mixture_table(run, change.mixture)}\n"
        "\n"
        f"{_replaces_text(waiting, only=only)}"
        f"a job of one rank begins the change at most {EVERY} steps later, and a job of several "
        f"ranks at most {2 * EVERY} steps later (with Agreement(every=N), N and 2 N steps); then "
        f"climb weights {run} shows the step{_silence_text(run)}"
    )
    value = {
        "file": str(path),
        **change.to_json(),
        "after": log.head,
        "replaces": waiting.to_json() if waiting else None,
    }
    show(value, text, as_json=as_json)


def _replaces_text(waiting: WeightsUpdate | None, *, only: bool) -> str:
    """Say, in a line, what the new request keeps of the one that it replaces; "" without one."""
    if waiting is None:
        return ""
    lost = ["its weights"] if only else []
    lost += [f"its ramp of {counted(waiting.ramp, 'step')}"] if waiting.ramp else []
    lost += [f"its reason {waiting.why!r}"] if waiting.why else []
    return (
        "a request that the job has not followed yet is replaced"
        + ("" if only else "; the new weights begin from its weights")
        + (f"; not kept: {', '.join(lost)}" if lost else "")
        + "\n"
    )


def _silence_text(run: Path) -> str:
    """Say, in a line, that a request may have to wait, because the job seems to have stopped."""
    silence = silent_seconds(run)
    if silence is None or silence <= LONG_SILENCE:
        return ""
    return (
        f"\nthe job has written no metrics for {duration(silence)}; if it has stopped, the request "
        "waits in the file, and the job follows it when it is resumed"
    )


def _shares(named: Sequence[str]) -> dict[str, float]:
    """Return weights by cluster from words such as ``c03=0.4``.

    Raises:
        UsageError: A word has another form, or a cluster is named twice.
    """
    shares: dict[str, float] = {}
    for word in named:
        try:
            name, share = split_number(word)
        except ValueError:
            message = f"{word!r} is not a weight; write CLUSTER=WEIGHT, such as c03=0.4"
            raise UsageError(message) from None
        if name in shares:
            raise UsageError(f"cluster {name} is named twice; name it once")
        shares[name] = share
    return shares


def _log_value(run: Path, log: WeightsLog) -> dict[str, Any]:
    """Return a weights log, and the change that is requested but not applied, as JSON values."""
    last = log.records[-1]
    waiting = waiting_change(run, log)
    return {
        "run": str(run),
        "ended": has_ended(run),
        "head": log.head,
        "weights": log.mixture(last.at_step + last.steps).weights,
        "records": [record.to_json() for record in log.records],
        "asked": waiting.to_json() if waiting else None,
    }


def _log_text(run: Path, log: WeightsLog) -> str:
    """Return a text for a terminal: the weights after the last record, then all records."""
    last = log.records[-1]
    rows = [
        (r.v, f"{r.at_step:,}", r.kind, f"{r.steps:,}" if r.steps else "", r.hash[:8], r.why)
        for r in log.records
    ]
    holds = last.at_step + last.steps
    note = ""
    if waiting_change(run, log):
        note = "a change of weights is requested, and not yet in force" + _silence_text(run)
    if has_ended(run):
        note = "the run has ended, so its weights cannot change any more"
    return (
        f"{run}: {counted(len(rows), 'record')}; these weights hold after step {holds:,}\n\n"
        f"{_mixture_table(run, log.mixture(holds))}\n\n"
        + (f"used up: {', '.join(last.capped)}\n\n" if last.capped else "")
        + text_table(("record", "after step", "kind", "steps", "hash", "why"), rows, left=6)
        + (f"\n\n{note}" if note else "")
    )


def _mixture_table(run: Path, mixture: Mixture) -> str:
    rows = [(name, f"{w:.4%}") for name, w in sorted(mixture.weights.items())]
    return _cluster_table(run, ("cluster", "weight"), rows)


def _cluster_table(run: Path, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose rows begin with names of clusters, and add their words, if known."""
    words = RunFacts.read(run).words
    if not words:
        return text_table(heads, rows)
    heads = (heads[0], "words", *heads[1:])
    return text_table(heads, [(name, words.get(name, ""), *rest) for name, *rest in rows], left=2)
