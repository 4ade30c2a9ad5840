"""The commands ``climb search`` and ``climb train``.

What trains is imported where it is called: torch takes seconds, for which neither ``--help`` nor a
mistake in the options should wait.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from climbstream.loader import Mixture
from climbstream.loader.cli.completion import (
    PLACE,
    SOURCE,
    complete_targets,
    complete_weights,
)
from climbstream.loader.cli.main import task_timeout_option, timeout_option
from climbstream.loader.cli.options import COUNT, GroupedCommand, json_option, show, split_number
from climbstream.loader.core.console import text_table
from climbstream.loader.core.engines.engine import ENGINES
from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.monitoring.metrics import TensorBoardWriter, Writer
from climbstream.loader.weights.schedule import Schedule
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.answer import Answer
from climbstream.search.optimizer.constraints import Group
from climbstream.search.optimizer.outcome import OUTCOME_HEADS, outcome_rows
from climbstream.search.optimizer.presets import DOREMI, PRESETS
from climbstream.search.training.model import SIZES
from climbstream.search.training.settings import TrainSettings

from .leaks import check_targets

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT = {field.name: field.default for field in fields(TrainSettings)}
_FROM_BASE = 3e-3
"""Best learning rate of proxies that start from trained weights: docs/decisions/proxies.md."""
_OF_DOREMI = frozenset(
    "directory targets out preset proxy_tokens average workers as_json seed base model seq_len "
    "batch_rows learning_rate task_timeout strict skip_check".split()
)
"""What may be said with the preset doremi."""
_GROUPS = {
    "What to be good at": "targets importance allow",
    "The search": "preset budget confirm final_tokens max_epochs seed out",
    "Limits of weights": "prior min_weight max_weight pin group",
    "Proxies": "proxy_tokens average base model seq_len batch_rows learning_rate",
    "How it runs": "engine workers task_timeout dry_run tensorboard as_json",
}
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_tensorboard_option = click.option(
    "--tensorboard", is_flag=True, help="Write what is measured to OUT/events too."
)


def _writers(out: Path, tensorboard: bool) -> list[Writer]:
    return [TensorBoardWriter(out / "events")] if tensorboard else []


_dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Say what it costs: models, tokens, FLOPs, time by a measured step, disk; write nothing.",
)


def _model_options(command: F) -> F:
    """Give ``command`` the options that say how a model is trained."""
    for option in (
        click.option("--seed", default=0, show_default=True, help="Keys weights and order."),
        click.option(
            "--learning-rate",
            type=float,
            help="At its highest.  "
            f"[default: {_DEFAULT['learning_rate']:g}; {_FROM_BASE:g} from a base]",
        ),
        click.option(
            "--batch-rows",
            default=_DEFAULT["batch_rows"],
            show_default=True,
            help="Rows of a step.",
        ),
        click.option(
            "--seq-len", default=_DEFAULT["seq_len"], show_default=True, help="Tokens of a row."
        ),
        click.option(
            "--base",
            help="Model to go on from, a folder like OUT/model of climb train; not --model.",
        ),
        click.option(
            "--model",
            type=click.Choice(list(SIZES)),
            default="tiny",
            show_default=True,
            help="Size, from 0.2 to 310 million parameters.",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=GroupedCommand, groups=_GROUPS)
@_DIRECTORY
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    shell_complete=complete_targets,
    help="What to be good at.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the search.")
@click.option("--budget", default=112, show_default=True, help="Proxies in all.")
@click.option(
    "--preset",
    type=click.Choice([*PRESETS, DOREMI]),
    default="robust",
    show_default=True,
    help="Recipe; see above.",
)
@click.option(
    "--proxy-tokens", type=COUNT, default=300_000, show_default=True, help="Tokens of a proxy."
)
@click.option(
    "--average",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Part of a proxy's steps, the last, whose mean weights are scored.",
)
@click.option("--final-tokens", type=COUNT, help="Of the final run; proxies repeat as it.")
@click.option("--max-epochs", default=4.0, show_default=True, help="Repeats in that run.")
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Seeds with which the best are run again, beside the budget.",
)
@click.option("--prior", type=SOURCE, help="Mixture to draw around.  [default: token shares]")
@click.option(
    "--min-weight",
    multiple=True,
    shell_complete=complete_weights,
    help="CLUSTER=WEIGHT, at least; several may be given.",
)
@click.option(
    "--max-weight", multiple=True, shell_complete=complete_weights, help="CLUSTER=WEIGHT, at most."
)
@click.option(
    "--pin", multiple=True, shell_complete=complete_weights, help="CLUSTER=WEIGHT, just that."
)
@click.option(
    "--group",
    multiple=True,
    shell_complete=complete_weights,
    help="CLUSTER,CLUSTER=LEAST:MOST, their sum.",
)
@click.option("--importance", multiple=True, help="TARGET=WEIGHT in the mean.  [default: 1]")
@click.option("--allow", multiple=True, help="TARGET=BY how much it may get worse.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Proxies at a time.  [default: a GPU or core each]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="Where proxies run.",
)
@click.option("--strict", is_flag=True, help="A target that stands in the shards is an error.")
@click.option("--skip-check", is_flag=True, help="Do not look for the targets in the shards.")
@_dry_run_option
@task_timeout_option
@_tensorboard_option
@_model_options
@json_option
def search(
    directory: Path,
    targets: tuple[str, ...],
    out: Path,
    budget: int,
    preset: str,
    proxy_tokens: int,
    average: float,
    final_tokens: int | None,
    max_epochs: float,
    confirm: int,
    prior: str | None,
    min_weight: tuple[str, ...],
    max_weight: tuple[str, ...],
    pin: tuple[str, ...],
    group: tuple[str, ...],
    importance: tuple[str, ...],
    allow: tuple[str, ...],
    workers: int | None,
    engine: str,
    strict: bool,
    skip_check: bool,
    dry_run: bool,
    tensorboard: bool,
    seed: int,
    as_json: bool,
    **model: Any,
) -> None:
    """Find the mixture of the shards in DIRECTORY that is best for the targets.

    A target is held-out text: label=NAME or cluster=NAME of what the build kept out, or a file of
    text or JSON lines, scored in bits per byte; or a multiple-choice task, JSON lines with query,
    choices and gold: FILE asks for the bits per byte of the right answers, error=FILE for the part
    of wrong ones. lm-eval=TASK is a multiple-choice task of that harness, or a .yaml file of one.
    The search sees half of it, or its validation split. First the targets are looked for in the
    shards: items that stand there are told, and with --strict they are an error.

    When the budget is spent, the best measured and the best predicted mixture and the token shares
    are run again side by side; the answer is what surely beats the token shares, or these.

    Small proxies of few tokens drown in the noise between runs. Train one model for longer, on the
    token shares, and let all of them begin with it: climb train DIRECTORY --tokens 4000000 --out
    BASE, then climb search with --base BASE/model.

    The preset robust is the one to take. climb is the paper (arXiv 2504.13161); regmix draws once
    and takes the mean of the 100 mixtures predicted best (arXiv 2407.01492); random takes the best
    of those that it measured. doremi asks no targets and has no budget: a proxy's weights follow
    its excess loss over a reference (arXiv 2305.10429); the targets are scored alone.

    A search that was interrupted goes on when the same command is run again.
    """
    proxy = _settings(proxy_tokens, average=average, **model)
    if strict and skip_check:
        raise UsageError("--strict refuses what --skip-check does not look for; give one of them")
    check = None if skip_check else partial(check_targets, directory, targets, strict=strict)
    if preset == DOREMI:
        _refuse_options_of_search()
        from climbstream.search.experiments.doremi_search import run_doremi  # noqa: PLC0415

        found = run_doremi(directory, targets, out, proxy, seed, workers=workers, check=check)
        show(found, _doremi_text(directory, targets, found, out), as_json=as_json)
        return
    settings = SearchSettings(
        budget=budget,
        preset=preset,
        proxy=proxy,
        seed=seed,
        final_tokens=final_tokens,
        max_epochs=max_epochs,
        confirm=confirm,
        prior=Mixture.load(prior) if prior else None,
        min_weight=_numbers("--min-weight", min_weight),
        max_weight=_numbers("--max-weight", max_weight),
        pinned=_numbers("--pin", pin),
        groups=_groups(group),
        importance=_numbers("--importance", importance),
        allowed=_numbers("--allow", allow),
    )
    from climbstream.search.experiments.proxy_search import dry_search, run_search  # noqa: PLC0415

    if dry_run:
        plan = dry_search(directory, targets, out, settings, workers=workers)
        show(plan.to_json(), plan.text(out), as_json=as_json)
        return
    answer = run_search(
        directory,
        targets,
        out,
        settings,
        workers=workers,
        engine=engine,
        writers=_writers(out, tensorboard),
        check=check,
    )
    text = (
        f"{answer.reason}\n\n{outcomes_text(answer)}{mixture_text(directory, answer.mixture)}\n\n"
        f"{out / 'mixture.json'} · report: {out / 'report.html'}"
    )
    show(answer.to_json(), text, as_json=as_json)


@click.command()
@click.argument("directory", type=PLACE)
@click.option("--mixture", type=SOURCE, help="File, or hf://OWNER/NAME.  [default: token shares]")
@click.option("--schedule", type=click.Path(path_type=Path), help="File of mixtures by step.")
@click.option("--tokens", type=COUNT, required=True, help="To train on in all.")
@click.option("--max-epochs", type=float, help="Of each cluster.  [default: no limit]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--save-every",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Steps between checkpoints; a run that is killed loses the steps since the last.",
)
@click.option(
    "--heldout-every",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="Steps between losses on held-out text, where there is some; 0: never.",
)
@click.option(
    "--lanes",
    type=click.IntRange(min=1),
    default=_DEFAULT["lanes"],
    show_default=True,
    help="A multiple of every number of processes that the run will have.",
)
@timeout_option("Give up ranks that have not come for so long.  [default: 600]")
@_dry_run_option
@_tensorboard_option
@_model_options
@json_option
def train(
    directory: str,
    mixture: str | None,
    schedule: Path | None,
    tokens: int,
    max_epochs: float | None,
    out: Path,
    save_every: int,
    heldout_every: int,
    lanes: int,
    dry_run: bool,
    tensorboard: bool,
    seed: int,
    as_json: bool,
    **model: Any,
) -> None:
    """Train one model on the shards in DIRECTORY, a folder or URL; leave it in OUT/model.

    A run that was interrupted goes on from its last checkpoint when the same command is run again;
    Ctrl-C and SIGTERM save one before they end it. Several processes train it together by torchrun
    --no-python --nproc-per-node N climb train ..., one a GPU where there are some; N divides
    --lanes and the rows of a batch, and may be another one when the run goes on.

    A schedule is {"version": 1, "schedule": [{"step": 0, "weights": {...}}, {"step": 1000,
    "weights": {...}, "ramp": 200}]}: at step 1000 weights begin to change, and have changed after
    200 steps more.
    """
    if mixture and schedule:
        raise UsageError("--mixture and --schedule both say what to train on; give one")
    weights = Schedule.load(schedule) if schedule else Mixture.load(mixture) if mixture else None
    settings = _settings(tokens, lanes=lanes, **model)
    if dry_run:
        from climbstream.search.experiments.cost import plan_train  # noqa: PLC0415

        plan = plan_train(directory, weights, settings)
        show(plan.to_json(), plan.text(out), as_json=as_json)
        return
    from climbstream.search.training.distributed import is_first  # noqa: PLC0415
    from climbstream.search.training.run import train_run  # noqa: PLC0415

    result = train_run(
        directory,
        weights,
        settings,
        seed,
        out,
        max_epochs,
        _writers(out, tensorboard),
        save_every,
        heldout_every,
    )
    if not is_first():
        return
    text = f"loss {result['loss']:.4f} nats a token after {result['tokens']:,} tokens · {out}"
    show(result, text, as_json=as_json)


def _refuse_options_of_search() -> None:
    """Refuse what was given and would do nothing with the preset doremi."""
    context = click.get_current_context()
    given = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name and parameter.name not in _OF_DOREMI
        if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(f"doremi searches nothing, so leave out {', '.join(given)}")


def _settings(tokens: int, **options: Any) -> TrainSettings:
    """Make settings of what `_model_options` gave."""
    if options["learning_rate"] is None:
        from_base = options["base"] is not None
        options["learning_rate"] = _FROM_BASE if from_base else _DEFAULT["learning_rate"]
    return TrainSettings(tokens=tokens, **options)


def _numbers(option: str, given: tuple[str, ...]) -> dict[str, float]:
    """Read what an option was given, ``NAME=NUMBER`` each time."""
    found = {}
    for one in given:
        try:
            name, number = split_number(one)
        except ValueError:
            raise UsageError(f"{option} {one}: say NAME=NUMBER") from None
        found[name] = number
    return found


def _groups(given: tuple[str, ...]) -> dict[str, Group]:
    """Read ``CLUSTER,CLUSTER=LEAST:MOST``."""
    found = {}
    for one in given:
        names, _, bounds = one.rpartition("=")
        least, _, most = bounds.partition(":")
        try:
            found[names] = Group(names.split(","), float(least), float(most))
        except ValueError:
            raise UsageError(f"--group {one}: say CLUSTER,CLUSTER=LEAST:MOST") from None
    return found


def _doremi_text(
    directory: Path, targets: tuple[str, ...], found: dict[str, Any], out: Path
) -> str:
    """Lay out what `run_doremi` found."""
    scores = found["scores"]
    rows = [(t, f"{scores['mixture'][t]:.4f}", f"{scores['token_shares'][t]:.4f}") for t in targets]
    table = text_table(("target", "doremi", "token shares"), rows)
    mixture = mixture_text(directory, Mixture.from_json(found["mixture"]))
    return f"{table}\n\n{mixture}\n\n{out / 'mixture.json'}"


def outcomes_text(answer: Answer) -> str:
    """Lay out the answer beside the token shares, target by target, for a terminal; "" of old ones.

    A mixture is the best, or the best other one where the answer is the token shares.
    """
    if not answer.outcomes:
        return ""
    rows = outcome_rows(answer.outcomes)
    notes = [f"warning: {warning}" for warning in answer.warnings]
    return "\n".join([text_table(OUTCOME_HEADS, rows), *notes]) + "\n\n"


def mixture_text(directory: Path, mixture: Mixture) -> str:
    """Lay out a mixture beside the token shares, for a terminal."""
    shards = ShardDirectory(directory)
    words = {info.name: info.words for info in shards.clusters()}
    shares = shards.manifest.token_shares.weights
    rows = [
        (name, words.get(name, ""), f"{share:.1%}", f"{mixture.weights.get(name, 0.0):.1%}")
        for name, share in shares.items()
    ]
    return text_table(("cluster", "words", "token share", "weight"), rows, left=2)
