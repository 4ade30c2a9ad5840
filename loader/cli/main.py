"""The command line, ``climb``: the table of commands, exit codes, and options of many commands.

The module of a command is imported only when the command is called, so ``climb --help`` is fast.
Results are written to stdout; progress and messages are written to stderr. An error is shown as one
line, without a traceback unless ``--debug`` is given. The type of the error determines the exit
code; see `climbstream.loader.core.errors`.
"""

import difflib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import click

from climbstream.loader.core.engines.task_timeout import TIMEOUT
from climbstream.loader.core.errors import ClimbError, UsageError
from climbstream.loader.core.files import disk_error
from climbstream.loader.core.log import show_messages, show_warnings_of_others, speaks
from climbstream.loader.core.signals import AGAIN, DRY, Stopped, raised_stop, unwind_on_signals
from climbstream.loader.core.streams import keep_streams
from climbstream.loader.core.visible_text import visible

from .examples import EXAMPLES
from .options import F


class _Home(NamedTuple):
    """Where a command is, what ``climb --help`` says about it, and what it needs."""

    place: str
    """Module and function of the command, as ``MODULE:NAME``."""
    help: str
    """The line about the command in ``climb --help``."""
    extra: str
    """The extra that installs what the command needs (``pip install 'climbstream[EXTRA]'``); "" if
    it needs none."""


COMMANDS = {
    "demo": _Home(
        "climbstream.search.cli.demo:demo", "Run all steps on real text, in some minutes.", "all"
    ),
    "build": _Home(
        "climbstream.builder.cli.build:build",
        "Turn a corpus into clusters and token shards.",
        "build",
    ),
    "dropped": _Home(
        "climbstream.builder.cli.dropped:dropped",
        "List, sample and filter what a build left out.",
        "build",
    ),
    "contamination": _Home(
        "climbstream.builder.cli.contamination:contamination",
        "List the documents of shards that contain test questions.",
        "build",
    ),
    "import": _Home(
        "climbstream.builder.cli.exchange:import_",
        "Turn a corpus that is already clustered into token shards.",
        "build",
    ),
    "export": _Home(
        "climbstream.builder.cli.exchange:export",
        "Write shards in a layout for other trainers.",
        "build",
    ),
    "publish": _Home(
        "climbstream.builder.cli.exchange:publish",
        "Publish shards or a mixture as a data set of the Hugging Face Hub.",
        "all",
    ),
    "pull": _Home(
        "climbstream.loader.cli.shards:pull",
        "Fetch shards from the Hub or another store; all, or those that a mixture needs.",
        "hub",
    ),
    "inspect": _Home(
        "climbstream.loader.cli.shards:inspect",
        "Show the clusters and sizes of a shard directory.",
        "",
    ),
    "regroup": _Home(
        "climbstream.loader.cli.shards:regroup", "Merge the clusters of shards into groups.", ""
    ),
    "verify": _Home(
        "climbstream.loader.cli.shards:verify",
        "Recompute every hash and count of a shard directory.",
        "build",
    ),
    "search": _Home(
        "climbstream.search.cli.search:search",
        "Find the mixture that is best for given targets.",
        "search",
    ),
    "fit": _Home(
        "climbstream.search.cli.fit:fit_command",
        "Find the best mixture from a table of finished runs.",
        "search",
    ),
    "compare": _Home(
        "climbstream.search.cli.compare:compare",
        "Show searches, runs or shard directories side by side.",
        "search",
    ),
    "train": _Home(
        "climbstream.search.cli.search:train", "Train one model on a mixture.", "search"
    ),
    "score": _Home(
        "climbstream.search.cli.score:score", "Score a model on held-out text or tasks.", "search"
    ),
    "weights": _Home(
        "climbstream.loader.cli.runs:weights", "Show or change the weights of a running job.", ""
    ),
    "audit": _Home(
        "climbstream.loader.cli.runs:audit",
        "Recompute from its weights log what a job served.",
        "",
    ),
    "monitor": _Home(
        "climbstream.loader.cli.runs:monitor",
        "Show a running job on a local web page.",
        "",
    ),
    "explain": _Home(
        "climbstream.loader.cli.runs:explain", "List the documents of a batch.", "build"
    ),
    "doctor": _Home(
        "climbstream.loader.cli.shards:doctor",
        "Check versions and conflicts of packages, disk and devices.",
        "",
    ),
}


class _LazyGroup(click.Group):
    """A group of click whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].place.partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is no command")
        if examples := EXAMPLES.get(cmd_name):
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that ``args`` name; the error for an unknown name suggests others."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, home.help) for name, home in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="climbstream", message="%(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def root(debug: bool) -> None:
    """Which data, in which proportion? Cluster a corpus, search the mixture, stream it."""


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    keep_streams()
    unwind_on_signals(DRY if "--dry-run" in sys.argv else AGAIN)
    show_messages()
    show_warnings_of_others()
    code = run(sys.argv[1:])
    if code:
        # Exit at once, so that no thread that is still running, and no signal, can change the exit
        # code.
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit()


def run(arguments: Sequence[str]) -> int:
    """Run ``climb`` with ``arguments``; show errors, and return the exit code."""
    try:
        return call(arguments)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(visible(shown.getvalue()), err=True, nl=False)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"\n{AGAIN}", err=True)
        return 130
    except Stopped as stopped:
        return _say_stopped(stopped)
    except Exception as error:
        if raised := raised_stop():
            return _say_stopped(raised)
        if "--debug" in arguments:
            click.echo(visible(traceback.format_exc()), err=True, nl=False)
        ours = _ours(error, arguments)
        said = (
            str(ours)
            if ours
            else f"internal error, {error!r}; to see its traceback, run climb --debug COMMAND"
        )
        click.echo(visible(f"error: {said}"), err=True)
        return ours.exit_code if ours else ClimbError.exit_code


def _say_stopped(stopped: Stopped) -> int:
    """Show the message of ``stopped``, and return the exit code."""
    if speaks():
        click.echo(f"\n{stopped}", err=True)
    return stopped.exit_code


def call(arguments: Sequence[str]) -> int:
    """Run ``climb`` with ``arguments``, and return the exit code; errors are raised, not shown."""
    result = root.main(list(arguments), "climb", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _ours(error: Exception, arguments: Sequence[str]) -> ClimbError | None:
    """Return the `ClimbError` that tells the user about ``error``; None if the cause is a bug.

    Errors of the disk and of missing packages are turned into a `ClimbError`.
    """
    if isinstance(error, ClimbError):
        return error
    if isinstance(error, ModuleNotFoundError):
        extras = [COMMANDS[a].extra for a in arguments if a in COMMANDS]
        extra = extras[0] if extras and extras[0] else "all"
        return UsageError(f"{error.name} is not installed; run pip install 'climbstream[{extra}]'")
    return disk_error(error)


def timeout_option(meaning: str) -> Callable[[F], F]:
    """Return a decorator that adds the option ``--task-timeout``, with the help text ``meaning``.

    The value of the option is not passed to the command as an argument. Until the command ends, the
    value is in an environment variable, which `task_timeout` reads.
    """
    return click.option(
        "--task-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        expose_value=False,
        callback=_set_timeout,
        help=meaning,
    )


def _set_timeout(context: click.Context, _option: click.Parameter, value: float | None) -> None:
    if value is not None:
        _set_variable(context, TIMEOUT, str(value))


def _print_jobs(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        from climbstream.loader.core.engines.slurm import PRINT

        _set_variable(context, PRINT, "1")


def _set_variable(context: click.Context, name: str, value: str) -> None:
    """Set an environment variable until the command ends."""
    before = os.environ.get(name, "")
    os.environ[name] = value
    context.call_on_close(lambda: os.environ.update({name: before}))


task_timeout_option = timeout_option(
    "End a process that uses no CPU time for this number of seconds.  [default: 600]"
)
slurm_print_option = click.option(
    "--slurm-print",
    is_flag=True,
    expose_value=False,
    callback=_print_jobs,
    help="With --engine slurm: print the jobs' script for you to submit.",
)
