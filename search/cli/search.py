"""The commands ``climb search`` and ``climb train``.

Modules that train models are imported inside the functions that use them. These modules load torch,
which takes seconds, and neither ``--help`` nor an error in the options should wait for torch.
"""

from collections.abc import Callable, Mapping
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
from climbstream.loader.cli.main import slurm_print_option, task_timeout_option, timeout_option
from climbstream.loader.cli.options import (
    COUNT,
    INPUT,
    OUTPUT,
    GroupedCommand,
    grouping_option,
    json_option,
    show,
    split_number,
)
from climbstream.loader.core.console import text_table
from climbstream.loader.core.engines.engine import ENGINES
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.cluster_tables import largest, others_text
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import BEST_OTHER, SEARCH
from climbstream.loader.monitoring.metrics import TensorBoardWriter, Writer
from climbstream.loader.weights.schedule import Schedule
from climbstream.search.experiments.report import compared_mixtures
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.answer import Answer
from climbstream.search.optimizer.constraints import Group
from climbstream.search.optimizer.outcome import outcome_heads, outcome_note, outcome_rows
from climbstream.search.optimizer.presets import DOREMI, PRESETS
from climbstream.search.training.model import SIZES
from climbstream.search.training.settings import TrainSettings

from .leaks import check_targets

logger = get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT = {
    field.name: field.default for field in (*fields(TrainSettings), *fields(SearchSettings))
}
"""Defaults of the fields of `TrainSettings` and `SearchSettings`, by name of the field."""
_FROM_BASE = 3e-3
"""Best learning rate of proxies that start from a base model: docs/decisions/proxies.md."""
_OF_DOREMI = frozenset(
    "directory targets out preset proxy_tokens average workers as_json seed base model seq_len "
    "batch_rows learning_rate task_timeout strict skip_check dry_run grouping".split()
)
"""Parameters of the command that have an effect with the preset doremi."""
_OF_MODEL = ("learning_rate", "batch_rows", "seq_len", "base", "model")
_GROUPS = {
    "Targets": "targets importance allowed",
    "The search": "preset budget confirm final_tokens max_epochs seed enqueue earlier retarget out",
    "Other models": "prior_runs",
    "Limits of weights": "grouping prior min_weight max_weight pinned groups",
    "Proxies": "proxy_tokens average base model seq_len batch_rows learning_rate keep_proxies",
    "How it runs": "strict skip_check engine workers slurm_print task_timeout dry_run tensorboard "
    "as_json",
}
_DIRECTORY = click.argument("directory", type=INPUT)
_tensorboard_option = click.option(
    "--tensorboard", is_flag=True, help="Also write the measured numbers to OUT/events."
)


def _writers(out: Path, tensorboard: bool) -> list[Writer]:
    return [TensorBoardWriter(out / "events")] if tensorboard else []


_dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help=(
        "Show the cost (models, tokens, FLOPs, disk, and the time from a measured step); write "
        "nothing."
    ),
)


def _setting(*names: str, **options: Any) -> Callable[[F], F]:
    """Make the option of a setting; --help shows the default of the setting."""
    name = names[-1].removeprefix("--").replace("-", "_")
    return click.option(*names, default=_DEFAULT[name], show_default=True, **options)


def _weights(
    _context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[str, float]:
    """Parse ``words``, the values of ``option``: each is ``NAME=NUMBER``."""
    weights = {}
    for word in words:
        try:
            name, number = split_number(word)
        except ValueError:
            raise UsageError(f"{option.opts[0]} {word}: write NAME=NUMBER") from None
        weights[name] = number
    return weights


def _groups(
    _context: click.Context, option: click.Parameter, words: tuple[str, ...]
) -> dict[str, Group]:
    """Parse ``words``, the values of ``option``: each is ``CLUSTER,CLUSTER=LEAST:MOST``."""
    groups = {}
    for word in words:
        names, _, bounds = word.rpartition("=")
        least, _, most = bounds.partition(":")
        try:
            groups[names] = Group(
                [name.strip() for name in names.split(",")], float(least), float(most)
            )
        except ValueError:
            raise UsageError(f"{option.opts[0]} {word}: write CLUSTER,CLUSTER=LEAST:MOST") from None
    return groups


def _by_cluster(*names: str, help: str) -> Callable[[F], F]:  # noqa: A002
    """Make an option that is given as ``CLUSTER=WEIGHT`` and may be repeated."""
    return click.option(
        *names, multiple=True, shell_complete=complete_weights, callback=_weights, help=help
    )


def _model_options(command: F) -> F:
    """Add to ``command`` the options that decide how a model is trained."""
    return _together(
        command,
        click.option(
            "--seed",
            default=0,
            show_default=True,
            help="Seed of the initial parameters and of the order of rows.",
        ),
        click.option(
            "--learning-rate",
            type=float,
            help=f"Peak learning rate.  [default: {_DEFAULT['learning_rate']:g}; {_FROM_BASE:g} "
            "with --base]",
        ),
        _setting("--batch-rows", help="Rows per step."),
        _setting("--seq-len", help="Tokens per row."),
        click.option(
            "--base",
            help="Folder of a trained model to continue from, such as OUT/model of climb train; "
            "the model has its size, and --model is not used.",
        ),
        _setting(
            "--model",
            type=click.Choice(list(SIZES)),
            help="Size of the model, from 0.2 to 310 million parameters.",
        ),
    )


def _search_options(command: F) -> F:
    """Add to ``command`` the options that set fields of `SearchSettings`, and ``--from``."""
    return _together(
        command,
        click.option(
            "--allow",
            "allowed",
            multiple=True,
            callback=_weights,
            help=(
                "TARGET=NUMBER: by how much the score may be worse than that of the token shares, "
                "in the unit of the target."
            ),
        ),
        click.option(
            "--importance",
            multiple=True,
            callback=_weights,
            help="TARGET=WEIGHT: weight of a target in the mean of all targets.  [default: 1]",
        ),
        click.option(
            "--group",
            "groups",
            multiple=True,
            shell_complete=complete_weights,
            callback=_groups,
            help="CLUSTER,CLUSTER=LEAST:MOST: limits of the sum of these clusters' weights.",
        ),
        _by_cluster("--pin", "pinned", help="CLUSTER=WEIGHT: exactly this weight."),
        _by_cluster("--max-weight", help="CLUSTER=WEIGHT: at most this weight."),
        _by_cluster(
            "--min-weight", help="CLUSTER=WEIGHT: at least this weight; may be used several times."
        ),
        click.option(
            "--prior",
            type=SOURCE,
            help="Mixture around which the search draws mixtures.  [default: token shares]",
        ),
        click.option(
            "--confirm",
            type=click.IntRange(min=0),
            default=3,
            show_default=True,
            help="Number of seeds with which the best mixtures are trained again; the budget does "
            "not include these trainings.",
        ),
        click.option(
            "--from",
            "earlier",
            type=INPUT,
            help=(
                "Folder of an earlier search, from before climb regroup or climb build --append, "
                "whose trials are used as well."
            ),
        ),
        _setting("--max-epochs", help="Largest number of epochs of any cluster in the final run."),
        click.option(
            "--final-tokens",
            type=COUNT,
            help="Tokens of the final run; proxies repeat clusters as often as the final run will.",
        ),
        _setting("--budget", help="Number of proxies."),
    )


def _together(command: F, *options: Callable[[F], F]) -> F:
    for option in options:
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
    help="Text or task on which the mixture should be good; may be used several times.",
)
@click.option("--out", type=OUTPUT, required=True, help="Folder of the search.")
@click.option(
    "--preset",
    type=click.Choice([*PRESETS, DOREMI]),
    default=_DEFAULT["preset"],
    show_default=True,
    help="Method of search; see above.",
)
@click.option(
    "--proxy-tokens", type=COUNT, default=300_000, show_default=True, help="Tokens per proxy."
)
@click.option(
    "--average",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Average the model parameters over this fraction of the steps of a proxy, the last ones.",
)
@_search_options
@click.option(
    "--keep-proxies",
    type=COUNT,
    help="Largest total size of the trained proxies that are kept in OUT/proxies, such as 1G; see "
    "--retarget.  [default: none are kept]",
)
@click.option(
    "--retarget",
    type=INPUT,
    help="Folder of an earlier search that kept its proxies. The new search uses these proxies, "
    "and trains new ones only if --budget is given. Options for proxies, if not given, are those "
    "of the earlier search.",
)
@click.option(
    "--enqueue",
    multiple=True,
    type=SOURCE,
    help="Mixture file of your own, which is tried in place of a mixture that the search would "
    "propose; it counts in the budget. May be used several times.",
)
@click.option(
    "--prior-runs",
    multiple=True,
    type=INPUT,
    help="Table of runs of other models, or folder of a search; these runs show where to search. "
    "May be used several times, the cheapest models first.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help=(
        "Number of proxies that are trained at the same time.  [default: one per GPU, or one per "
        "core]"
    ),
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="Where proxies are trained.",
)
@click.option("--strict", is_flag=True, help="Refuse a target whose items are in the shards.")
@click.option("--skip-check", is_flag=True, help="Do not look for the targets in the shards.")
@grouping_option
@_dry_run_option
@slurm_print_option
@task_timeout_option
@_tensorboard_option
@_model_options
@json_option
def search(
    directory: Path,
    targets: tuple[str, ...],
    out: Path,
    preset: str,
    workers: int | None,
    engine: str,
    strict: bool,
    skip_check: bool,
    dry_run: bool,
    tensorboard: bool,
    prior: str | None,
    earlier: Path | None,
    keep_proxies: int | None,
    retarget: Path | None,
    enqueue: tuple[str, ...],
    prior_runs: tuple[Path, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Find the mixture of the shards in DIRECTORY that is best for the targets.

    A target is held-out text or a multiple-choice task. Held-out text is label=NAME or cluster=NAME
    of the documents that the build held out, or a file of text or JSON lines. Held-out text is
    scored in bits per byte.

    A task is a file of JSON lines with query, choices and gold, or lm-eval=TASK, where TASK is a
    task of lm-eval or a .yaml file that defines one. gold is the number of the right choice, from
    0, or its letter, from A. A task is scored in bits per byte of the right answers; error=FILE is
    scored by the fraction of wrong answers.

    The search uses half of the items of a target, or its validation split. First, the command looks
    for the items of the targets in the shards. If it finds some, it shows a warning or, with
    --strict, ends with an error.

    Each mixture is scored by a proxy: a small model that is trained on this mixture. After --budget
    proxies, further proxies are trained on three mixtures: the one with the best measured score,
    the one with the best predicted score, and the token shares. The answer is one of the first two
    mixtures if its gain over the token shares is so large that chance alone would hardly produce
    it. If neither mixture has such a gain, the answer is the token shares.

    If each proxy is trained on few tokens, the scores of proxies differ more by chance than because
    of their mixtures. So train one model for longer on the token shares, and start all proxies from
    that model: climb train DIRECTORY --tokens 4000000 --out BASE, then climb search with --base
    BASE/model.

    Use the preset robust. The other presets are methods of papers, or baselines. climb is the
    method of CLIMB (arXiv 2504.13161). regmix draws mixtures only once; its answer is the mean of
    the 100 mixtures with the best predicted scores (arXiv 2407.01492). random draws all mixtures at
    random, beside the token shares and equal weights, and predicts nothing; its answer is the
    mixture with the best measured score. Also with regmix and random, the answer is the token
    shares if no gain is certain. doremi uses no targets and no
    budget (arXiv 2305.10429). It trains one proxy. During this training, the weight of a cluster
    grows if the proxy's loss on the cluster is above the loss of a reference model. The targets are
    only scored, and do not influence the mixture.

    A search that was interrupted continues when the same command is run again. A finished search
    continues with its proxies if --budget is larger or the limits of weights differ. After climb
    regroup or climb build --append, name the earlier search with --from. Then the search begins
    with the trials of the earlier search, and --budget counts only new proxies.

    If an earlier search kept its proxies (--keep-proxies), a search for another target needs no new
    proxies: give the folder of the earlier search as --retarget, and a new folder as --out.

    Runs of smaller models show where a search for a larger model should look. Give them as
    --prior-runs: a table of runs, with a column w_CLUSTER for each cluster and a column for each
    target, or the folder of a search. The answer reports for each target how well those runs rank
    the new proxies. If those runs make predictions worse, they are not used, and a warning is
    shown.
    """
    if preset == DOREMI:
        _refuse_options_of_search()
    if retarget is not None:
        options |= _reused(retarget)
    of_model = {name: options.pop(name) for name in _OF_MODEL}
    proxy = _train_settings(options.pop("proxy_tokens"), average=options.pop("average"), **of_model)
    if strict and skip_check:
        raise UsageError(
            "--strict needs the check that --skip-check leaves out; give only one of them"
        )
    check = None if skip_check else partial(check_targets, directory, targets, strict=strict)
    if preset == DOREMI:
        from climbstream.search.experiments.doremi_search import (  # noqa: PLC0415
            dry_doremi,
            run_doremi,
        )

        if dry_run:
            plan = dry_doremi(directory, targets, out, proxy, workers=workers)
            show(plan.to_json(), plan.text(out), as_json=as_json)
            return
        seed = options["seed"]
        result = run_doremi(directory, targets, out, proxy, seed, workers=workers, check=check)
        show(result, _doremi_text(directory, targets, result, out), as_json=as_json)
        return
    mixture = Mixture.load(prior) if prior else None
    own = [Mixture.load(path) for path in enqueue]
    settings = SearchSettings(preset=preset, proxy=proxy, prior=mixture, **options)
    from climbstream.search.experiments.proxy_search import dry_search, run_search  # noqa: PLC0415

    if dry_run:
        plan = dry_search(
            directory,
            targets,
            out,
            settings,
            workers=workers,
            earlier=earlier,
            keep_proxies=keep_proxies or 0,
            retarget=retarget,
            prior_runs=prior_runs,
            enqueue=own,
        )
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
        earlier=earlier,
        keep_proxies=keep_proxies or 0,
        retarget=retarget,
        prior_runs=prior_runs,
        enqueue=own,
    )
    show(answer.to_json(), _answer_text(directory, answer, out), as_json=as_json)


@click.command()
@click.argument("directory", type=PLACE)
@click.option(
    "--mixture", type=SOURCE, help="Mixture file, or hf://OWNER/NAME.  [default: token shares]"
)
@click.option(
    "--schedule", type=INPUT, help=("File with weights that change during the run; see above.")
)
@click.option(
    "--tokens", type=COUNT, required=True, help="Tokens to train on, rounded down to whole steps."
)
@click.option(
    "--max-epochs", type=float, help="Largest number of epochs of any cluster.  [default: no limit]"
)
@click.option("--out", type=OUTPUT, required=True, help="Folder of the run.")
@click.option(
    "--save-every",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Steps between checkpoints; a killed run loses the steps since the last one.",
)
@click.option(
    "--heldout-every",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="Steps between measurements of the loss on held-out text; 0: never.",
)
@click.option(
    "--lanes",
    type=click.IntRange(min=1),
    default=_DEFAULT["lanes"],
    show_default=True,
    help="Number of lanes; a multiple of each number of processes that the run will have.",
)
@grouping_option
@timeout_option(
    "End the run if other ranks do not answer for this number of seconds.  [default: 600]"
)
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
    """Train one model on the shards in DIRECTORY, a folder or URL; write it to OUT/model.

    A run that was interrupted continues from its last checkpoint when the same command is run
    again. Ctrl-C and SIGTERM save a checkpoint before the run ends.

    To train one model with N processes, run torchrun --no-python --nproc-per-node N climb train
    ..., with one process per GPU if the machine has GPUs. --lanes and the rows of a batch must be
    multiples of N. N may change when the run continues.

    The file of --schedule contains {"version": 1, "schedule": [{"step": 0, "weights": {...}},
    {"step": 1000, "weights": {...}, "ramp": 200}]}. In this example, weights begin to change at
    step 1000, and reach the new weights 200 steps later.
    """
    if mixture and schedule:
        raise UsageError("--mixture and --schedule both say what to train on; give one")
    weights = Schedule.load(schedule) if schedule else Mixture.load(mixture) if mixture else None
    settings = _train_settings(tokens, lanes=lanes, **model)
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
    show(result, _train_text(result, tokens, out), as_json=as_json)


def _train_text(result: dict[str, Any], asked: int, out: Path | str) -> str:
    """Return the result of a run as text; ``asked`` is the number of tokens of ``--tokens``."""
    steps, tokens = result["steps"], result["tokens"]
    each = f", {steps:,} whole steps of {tokens // steps:,}, of the {asked:,} asked for"
    return (
        f"mean loss of the last tenth of the steps: {result['loss']:.4f} nats per token\n"
        f"{tokens:,} tokens{each if tokens != asked else ''} · {out}"
    )


def _refuse_options_of_search() -> None:
    """Raise `UsageError` if an option was given that the preset doremi does not use."""
    context = click.get_current_context()
    unused = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name and parameter.name not in _OF_DOREMI
        if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if unused:
        raise UsageError(
            f"--preset doremi does not use {', '.join(unused)}; leave out these options"
        )


def _reused(old: Path) -> dict[str, Any]:
    """Return the options, by parameter, that a search with the proxies of ``old`` takes from it.

    The proxies are trained as those of ``old``, and without ``--budget`` no new ones are trained.
    Options that are given on the command line keep their values.

    Raises:
        UsageError: The search in ``old`` kept no proxies.
    """
    from climbstream.search.experiments.kept_proxies import kept_trials  # noqa: PLC0415

    count = len(kept_trials(old))
    settings = read_plan(old / SEARCH.plan).get("settings", {})
    proxy = settings.get("proxy", {})
    known = {
        **{name: settings.get(name) for name in ("seed", "final_tokens")},
        **{name: proxy.get(name) for name in ("average", *_OF_MODEL) if name != "base"},
        "proxy_tokens": proxy.get("tokens"),
    }
    context = click.get_current_context()
    taken = {
        name: value
        for name, value in ({"budget": count, "confirm": 0} | known).items()
        if value is not None
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE
    }
    defaults = context.params | {"learning_rate": _DEFAULT["learning_rate"]}
    if other := [name for name in known if name in taken and taken[name] != defaults[name]]:
        shown = ", ".join(f"--{name.replace('_', '-')} {taken[name]}" for name in other)
        logger.info(f"as the search in {old}, this search has {shown}")
    return taken


def _train_settings(tokens: int, **options: Any) -> TrainSettings:
    """Return the settings of a model; ``options`` has the values of `_model_options` by name."""
    if options["learning_rate"] is None:
        from_base = options["base"] is not None
        options["learning_rate"] = _FROM_BASE if from_base else _DEFAULT["learning_rate"]
    return TrainSettings(tokens=tokens, **options)


def _answer_text(directory: Path, answer: Answer, out: Path) -> str:
    """Return the answer of a search and the paths of its files, as text for a terminal."""
    mixtures = mixture_text(directory, answer.mixture, compared_mixtures(answer))
    files = [str(out / "mixture.json")]
    if (other := out / BEST_OTHER).exists():
        files = [f"{files[0]}, which has the {answer.base_name}", f"best other mixture: {other}"]
    files.append(f"report: {out / 'report.html'}")
    return f"{answer.reason}\n\n{outcomes_text(answer)}{mixtures}\n\n{' · '.join(files)}"


def _doremi_text(
    directory: Path, targets: tuple[str, ...], result: dict[str, Any], out: Path
) -> str:
    """Return the result of `run_doremi` as text for a terminal."""
    scores = result["scores"]
    rows = [(t, f"{scores['mixture'][t]:.4f}", f"{scores['token_shares'][t]:.4f}") for t in targets]
    table = text_table(("target", "doremi", "token shares"), rows)
    mixture = mixture_text(directory, Mixture.from_json(result["mixture"]))
    warnings = [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join([table, *warnings, "", mixture, "", str(out / "mixture.json")])


def outcomes_text(answer: Answer) -> str:
    """Return a table for a terminal: scores of the answer and of the token shares by target.

    If the answer is the token shares, the table compares the best other mixture with them. The text
    is empty for an answer that an earlier version wrote, because it has no outcomes.
    """
    if not answer.outcomes:
        return ""
    rows = outcome_rows(answer.outcomes)
    notes = [outcome_note(answer), *(f"warning: {warning}" for warning in answer.warnings)]
    return "\n".join([text_table(outcome_heads(answer), rows), *filter(None, notes)]) + "\n\n"


def mixture_text(
    directory: Path, mixture: Mixture, others: Mapping[str, Mixture] | None = None
) -> str:
    """Return a table of the weights of a mixture and the token shares, for a terminal.

    ``others`` are further mixtures to show in the table, by column heading.
    """
    shards = ShardDirectory(directory)
    words = shards.words()
    shares = shards.manifest.token_shares.weights
    weights = {name: mixture.weights.get(name, 0.0) for name in shares}
    columns = [shares, weights, *(other.weights for other in (others or {}).values())]
    rows = [
        (name, words.get(name, ""), *(f"{column.get(name, 0.0):.1%}" for column in columns))
        for name in largest(weights)
    ]
    heads = ("cluster", "words", "token share", "weight", *(others or {}))
    return text_table(heads, rows, left=2) + others_text(weights, "mixture.json lists all")
