"""A search over trained proxies: `Search` proposes, proxies measure, until the budget is spent."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from climbstream.loader import Mixture
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import open_engine
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import lock, read_json, write_bytes, write_json
from climbstream.loader.core.html_page import page
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import located
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import SEARCH
from climbstream.loader.monitoring.metrics import Writer, write_metrics
from climbstream.search.evaluation.ngrams import ngram_losses
from climbstream.search.evaluation.targets import target_hashes
from climbstream.search.optimizer.answer import Answer
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.optimizer.search import Search
from climbstream.search.training.base_model import check_base
from climbstream.search.training.trainer import default_mixture

from .proxy import PRELOAD, ProxyTask, hung_proxy, run_proxy
from .report import search_sections, skills_text
from .settings import SearchSettings

logger = get_logger(__name__)

_TRIALS = "trials.jsonl"
_LEFT = ("mixture.json", "answer.json", "report.html")
"""What a search leaves when it ends."""


def run_search(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: SearchSettings,
    *,
    workers: int | None = None,
    engine: str = "local",
    writers: Sequence[Writer] = (),
) -> Answer:
    """Search the mixture of ``directory`` that is best for ``targets``; go on if it was begun.

    ``engine`` is ``local``, processes of this machine, one a GPU if it has some; or ``ray``.
    ``writers`` get the scores and the weights of each proxy, by the number of proxies that are
    done, and what predictors were worth out of fold when it was proposed.

    Leaves ``trials.jsonl``, ``answer.json``, ``mixture.json`` and ``report.html`` in ``out``.

    Raises:
        UsageError: A target does not exist, or a setting cannot be.
        InvalidDataError: ``out`` holds another search, or no proxy could be trained.
        LockedError: Another process works on ``out``.
    """
    shards = ShardDirectory(directory)
    manifest = shards.manifest
    texts = target_hashes(directory, targets)
    check_base(settings.proxy.base, directory, settings.proxy.seq_len)
    with lock(out):
        plan = {
            "search": 1,
            "shards": manifest.fingerprint,
            "targets": texts,
            "settings": settings.to_json(),
        }
        if SEARCH.begin(out, plan):
            if all((out / name).exists() for name in _LEFT):
                logger.info(f"the search in {out} had ended; this is its answer")
                path = out / "answer.json"
                return located(Answer.from_json, read_json(path), str(path))
            logger.info(f"going on with the search in {out}")
        proxy = settings.rehearsal()
        features = {}
        if (preset := PRESETS.get(settings.preset)) and preset.features:
            features = ngram_losses(directory, targets, proxy.seq_len)
        search = Search(
            manifest.names,
            dict.fromkeys(targets, "min"),
            budget=settings.budget,
            preset=settings.preset,
            prior=settings.prior or default_mixture(shards, proxy),
            max_weight=settings.caps(manifest),
            min_weight=settings.min_weight,
            pinned=settings.pinned,
            groups=settings.groups,
            importance=settings.importance,
            allowed=settings.allowed,
            features=features,
            confirm=settings.confirm,
            seed=settings.seed,
            log=out / _TRIALS,
        )
        with open_engine(engine, workers, out / SEARCH.plan, gpus=True, preload=PRELOAD) as opened:
            while mixtures := search.ask():
                if search.table:
                    logger.info(f"what predictors are worth by now:\n{skills_text(search.table)}")
                worth = {f"{skill.target}/{skill.predictor}": skill.nmse for skill in search.table}
                tasks = [
                    ProxyTask(
                        directory=directory,
                        mixture=mixture,
                        seed=mixture.about["seed"],
                        settings=proxy,
                        targets=tuple(targets),
                    )
                    for mixture in mixtures
                ]
                done = len(search.log.trials)
                stage, total = "search", settings.budget
                if done >= settings.budget:
                    stage, total = "confirm", done + len(tasks)
                with Progress(stage, total, "proxies", done) as bar:
                    for task, result in opened.run(run_proxy, tasks, hung_proxy):
                        failed = result.scores is None
                        search.tell(
                            task.mixture, ClimbError(result.why) if failed else result.scores
                        )
                        numbers = {
                            "step": len(search.log.trials),
                            "score": result.scores or {},
                            "weight": task.mixture.weights,
                            "nmse": worth,
                        }
                        write_metrics(numbers, *writers)
                        bar.add(1, f"round {task.mixture.about['round']}")
        trials = search.log.trials
        if all(trial.scores is None for trial in trials):
            raise InvalidDataError(
                f"none of {len(trials)} proxies could be trained; the first: {trials[0].why}"
            )
        answer = replace(search.result(), spread=search.spread())
        about = {"targets": list(targets), **manifest.found_on, "reason": answer.reason}
        mixture = Mixture(answer.mixture.weights, about)
        mixture.save(out / "mixture.json")
        write_json(out / "answer.json", answer.to_json())
        sections = search_sections(directory, answer, trials)
        lead = f"{len(trials)} proxies of {proxy.tokens:,} tokens for {', '.join(targets)}."
        write_bytes(out / "report.html", page("Search", lead, sections))
        return answer
