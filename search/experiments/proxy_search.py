"""A search over trained proxies: `Search` proposes mixtures, and proxies measure their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from climbstream.loader import Mixture
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine, open_engine
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError
from climbstream.loader.core.files import (
    hash_json,
    lock,
    read_json,
    write_bytes,
    write_json,
)
from climbstream.loader.core.html_page import page
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import located
from climbstream.loader.core.workdir import check_same_config, read_plan
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import BEST_OTHER, CELLS, ITEMS, PROXIES, SEARCH, TRIALS
from climbstream.loader.monitoring.metrics import Writer, write_metrics
from climbstream.search.evaluation.ngrams import ngram_losses
from climbstream.search.evaluation.targets import target_hashes
from climbstream.search.optimizer.answer import BASE, Answer
from climbstream.search.optimizer.outcome import contender
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.optimizer.search import FEWEST, Search
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.predictors.gaussian_process import Feature
from climbstream.search.training.base_model import check_base
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import default_mixture

from .cost import MEASURED_FROM, CostPlan, plan_search
from .evidence import Evidence, read_earlier, save_cells
from .items import append_costs, read_evidence
from .kept_proxies import kept_files, prune, weights_file
from .prior_runs import PriorRuns
from .proxy import PRELOAD, ProxyTask, hung_proxy, run_proxy
from .report import search_sections, skills_text
from .retarget import Retarget, proxy_plan
from .settings import SearchSettings

logger = get_logger(__name__)

_RESULTS = ("mixture.json", "answer.json", "report.html")
"""Files that a search writes at its end."""
_UNTRAINED = (
    "no model was trained on this mixture: run the command again with --confirm 3, which trains it "
    "and the token shares with 3 new seeds"
)


def run_search(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: SearchSettings,
    *,
    workers: int | None = None,
    engine: str = "local",
    writers: Sequence[Writer] = (),
    check: Callable[[], Sequence[str]] | None = None,
    earlier: Path | None = None,
    keep_proxies: int = 0,
    retarget: Path | None = None,
    prior_runs: Sequence[Path] = (),
    enqueue: Sequence[Mixture] = (),
) -> Answer:
    """Search for the mixture of ``directory`` that is best for ``targets``; return the answer.

    If a search was begun in ``out``, it continues, and its proxies are not trained again. Budget,
    preset, prior, limits, importance and confirmation may differ from those of the begun search,
    and targets may be left out. The settings that decide the scores of a proxy must be the same:
    the shards, the text of the targets, the seed, ``final_tokens``, and the settings of proxies.

    The files ``trials.jsonl``, ``items.jsonl``, ``cells.json``, ``answer.json``, ``mixture.json``
    and ``report.html`` are written to ``out``.

    Args:
        directory: Folder of the shards.
        targets: Targets, as `load_target` reads them.
        out: Folder of the search.
        settings: Settings of the search and of its proxies.
        workers: Number of proxies that are trained at the same time. None lets the engine choose
            this number, except ``slurm``, which needs it.
        engine: ``local`` (processes of this machine, one per GPU if it has GPUs), ``ray`` or
            ``slurm``.
        writers: Writers that receive three kinds of numbers for each proxy: its scores, the weights
            of its mixture, and the out-of-fold errors of the predictors when its round began. The
            step of these numbers is the number of finished proxies.
        check: Function that is called before an unfinished search begins or continues. It returns
            warnings for the answer. It can stop the search by raising an error.
        earlier: Folder of a search whose trials are used from the start. These trials do not count
            in the budget: see `read_earlier`.
        keep_proxies: Largest number of bytes, in total, of the model parameters of proxies that are
            kept in ``out``. The proxies that were trained first are kept (see `prune`).
        retarget: Folder of another search that kept its proxies. This search then begins with these
            proxies, scored on its own ``targets``, and they count in the budget. The settings that
            decide the scores of a proxy must be the same in both searches.
        prior_runs: Tables of runs of other models, or folders of searches on these shards, the
            cheapest models first. These runs guide the search, and do not count in the budget: see
            `PriorRuns`.
        enqueue: Mixtures of the user, which are tried in the next rounds, within the budget: see
            `Search.enqueue`.

    Raises:
        UsageError: A target does not exist, a setting is impossible, a mixture of ``enqueue`` is
            outside the limits or has no place in the budget, ``earlier`` has no usable
            trials, ``retarget`` keeps no proxies, ``earlier`` and ``retarget`` are both given, or
            ``prior_runs`` have no scores of a target.
        InvalidDataError: ``out`` holds another search, the proxies of ``retarget`` were trained
            differently, or no proxy could be trained.
        LockedError: Another process works on ``out``.
    """
    task = _SearchTask.of(directory, targets, settings, out, keep_proxies, prior_runs)
    text_hashes = target_hashes(directory, targets)
    check_base(settings.proxy.base, directory, settings.proxy.seq_len)
    plan = task.plan(text_hashes)
    kept = task.check_start(earlier, retarget, plan)
    # Check before anything is written: a refused setting must not leave a folder or a search.
    task.check_begun(plan)
    dry = task.begin_dry(enqueue, kept)
    evidence = task.read_earlier(earlier, plan, dry.base)
    task.warn_of_few(evidence)
    with lock(out):
        task.adopt(plan)
        resumed = SEARCH.begin(out, plan, folders=(PROXIES,))
        if not (out / CELLS).exists():
            save_cells(task.shards, out)
        if evidence is not None:
            evidence.begin(out, task.shared_settings())
        if resumed:
            if all((out / name).exists() for name in _RESULTS):
                logger.info(f"the search in {out} has already ended; this is its answer")
                path = out / "answer.json"
                return located(Answer.from_json, read_json(path), str(path))
            logger.info(f"continuing the search in {out}")
        warnings = check() if check is not None else ()
        with open_engine(engine, workers, out, gpus=True, preload=PRELOAD) as pool:
            if kept:
                kept.score(pool)
            search = task.open_search()
            for _, mixture in dry.log.enqueued[len(search.log.enqueued) :]:
                search.enqueue(mixture)
            if settings.budget * task.proxy.steps >= MEASURED_FROM:
                count = kept.count if kept else 0
                cost = plan_search(directory, targets, settings, search, pool, keep_proxies, count)
                logger.info(f"{cost.text(out)}\n")
            while mixtures := search.ask():
                _run_round(search, task, mixtures, pool, writers)
            task.tell_kept(search)
        return _write_results(search, task, warnings)


def dry_search(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: SearchSettings,
    *,
    workers: int | None = None,
    earlier: Path | None = None,
    keep_proxies: int = 0,
    retarget: Path | None = None,
    prior_runs: Sequence[Path] = (),
    enqueue: Sequence[Mixture] = (),
) -> CostPlan:
    """Return what `run_search` would cost on this machine; write nothing.

    The time of a training step is measured. Proxies in ``out`` count as finished. Errors that
    `run_search` raises before the search begins are raised here too.

    Raises:
        UsageError: A target does not exist, or a setting is impossible.
    """
    task = _SearchTask.of(directory, targets, settings, out, prior_runs=prior_runs)
    text_hashes = target_hashes(directory, targets)
    check_base(settings.proxy.base, directory, settings.proxy.seq_len)
    plan = task.plan(text_hashes)
    kept = task.check_start(earlier, retarget, plan)
    task.check_begun(plan)
    search = task.begin_dry(enqueue, kept)
    if evidence := task.read_earlier(earlier, plan, search.base):
        logger.info(evidence.text())
    task.warn_of_few(evidence)
    with LocalEngine(workers, gpus=True, preload=PRELOAD) as pool:
        count = kept.count if kept else 0
        return plan_search(directory, targets, settings, search, pool, keep_proxies, count)


@dataclass(frozen=True, slots=True)
class _SearchTask:
    """The shards, the targets and the folder of a search."""

    directory: Path
    shards: ShardDirectory
    targets: tuple[str, ...]
    settings: SearchSettings
    out: Path
    keep: int = 0
    """Largest number of bytes of kept model parameters of proxies in ``out``."""
    prior: PriorRuns = field(default_factory=lambda: PriorRuns({}, {}))

    @classmethod
    def of(
        cls,
        directory: Path,
        targets: Sequence[str],
        settings: SearchSettings,
        out: Path,
        keep: int = 0,
        prior_runs: Sequence[Path] = (),
    ) -> Self:
        """Open the shards, and read ``prior_runs``.

        Raises:
            UsageError: The preset cannot use runs of other models, or `PriorRuns.read` raises it.
            InvalidDataError: `PriorRuns.read` raises it.
        """
        shards = ShardDirectory(directory)
        preset = PRESETS.get(settings.preset)
        if prior_runs and preset and not preset.features:
            able = ", ".join(name for name, each in PRESETS.items() if each.features)
            raise UsageError(
                f"the preset {settings.preset} learns from its own proxies alone; leave out "
                f"--prior-runs, or use {able}"
            )
        fingerprint = shards.manifest.fingerprint
        prior = PriorRuns.read(prior_runs, shards.names, targets, fingerprint)
        return cls(directory, shards, tuple(targets), settings, out, keep, prior)

    @property
    def proxy(self) -> TrainSettings:
        """Settings of each proxy."""
        return self.settings.rehearsal()

    def plan(self, text_hashes: Mapping[str, str]) -> dict[str, Any]:
        """Return the plan of the search as JSON values: its shards, targets and settings."""
        return {
            "search": 1,
            "shards": self.shards.manifest.fingerprint,
            "targets": text_hashes,
            "settings": self.settings.to_json(),
            **({"prior_runs": self.prior.hashes} if self.prior.hashes else {}),
        }

    def check_start(
        self, earlier: Path | None, old: Path | None, plan: Mapping[str, Any]
    ) -> Retarget | None:
        """Check the folders of earlier searches; return the `Retarget` of ``old`` if it is given.

        Raises:
            UsageError: Both ``earlier`` and ``old`` are given, one of them is the folder of this
                search, or `Retarget.check` raises it.
            InvalidDataError: `Retarget.check` raises it.
        """
        if earlier and old:
            raise UsageError(
                "--from and --retarget are two ways to begin from an earlier search; give one of "
                "them"
            )
        if old and old.resolve() == self.out.resolve():
            raise UsageError(
                f"--retarget {old} is the folder of this search; give the new search a new --out"
            )
        if earlier and earlier.resolve() == self.out.resolve():
            raise UsageError(
                f"--from {earlier} is the folder of this search; name another one with --out, or "
                "leave out --from to continue it"
            )
        if old is None:
            return None
        kept = self.retarget(old)
        kept.check(plan)
        return kept

    def check_begun(self, plan: Mapping[str, Any]) -> None:
        """Check that a search that was begun in ``out`` trains the same proxies as ``plan``.

        Raises:
            InvalidDataError: The proxies in ``out`` were trained with other settings.
        """
        if SEARCH.has(self.out):
            there = read_plan(self.out / SEARCH.plan)
            old, new = (_proxy_plan(each, self.targets) for each in (there, plan))
            check_same_config(old, new, self.out, remedy=self._other_start(old, new))

    def _other_start(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
        """Return the way from the search in ``out`` to one with the proxy plan ``new``, as text.

        ``old`` is the proxy plan of the search in ``out``.
        """
        other = "name another folder with --out"
        if old["shards"] != new["shards"]:
            return (
                f"{other}; if the shards come from climb regroup or climb build --append, add "
                f"--from {self.out}, to use the trials of this search as well"
            )
        if old["settings"]["target"] == new["settings"]["target"]:
            return other
        if kept_files(self.out):
            return (
                f"{other} and add --retarget {self.out}, which scores the kept proxies of this "
                "search on the present targets"
            )
        return (
            f"{other}. A search with --keep-proxies keeps its proxies, so that --retarget can "
            "score them on other targets"
        )

    def adopt(self, plan: Mapping[str, Any]) -> None:
        """Replace the plan of the search in ``out`` by ``plan``, if that search has another plan.

        Raises:
            InvalidDataError: The proxies in ``out`` were trained with other settings.
        """
        path = self.out / SEARCH.plan
        if not SEARCH.has(self.out) or hash_json(there := read_plan(path)) == hash_json(plan):
            return
        self.check_begun(plan)
        old, new = (
            {**each["settings"], "prior runs": each.get("prior_runs", {})} for each in (there, plan)
        )
        changed = [name for name in new if hash_json(old.get(name)) != hash_json(new[name])]
        logger.info(
            f"the search in {self.out} continues from its trials with other "
            f"{', '.join(changed) or 'targets'}"
        )
        # Without a report, the search counts as unfinished; answer and mixture stay until the end.
        (self.out / "report.html").unlink(missing_ok=True)
        write_json(path, plan)

    def read_earlier(
        self, folder: Path | None, plan: Mapping[str, Any], base: Mixture
    ) -> Evidence | None:
        """Read the trials of the search in ``folder``; return None if ``folder`` is None.

        ``base`` is the token shares, moved within the limits of this search.

        Raises:
            UsageError: `read_earlier` raises it.
            InvalidDataError: `read_earlier` raises it.
        """
        if folder is None:
            return None
        return read_earlier(folder, self.shards, plan, self.targets, base)

    def warn_of_few(self, evidence: Evidence | None) -> None:
        """Warn if the budget is too small for predictions, and there are no earlier trials."""
        if evidence is None and self.settings.budget < FEWEST:
            logger.warning(
                f"--budget {self.settings.budget} is too small for a search: scores are predicted "
                f"from {FEWEST} proxies or more, and fewer are only compared with each other"
            )

    def shared_settings(self) -> dict[str, Any]:
        """Return the settings of this search that begin a log with trials of another search."""
        return {
            "clusters": self.shards.names,
            "targets": dict.fromkeys(sorted(self.targets), "min"),
            "seed": self.settings.seed,
        }

    def open_search(self, *, dry: bool = False) -> Search:
        """Open the search on its log of trials, or begin a new search.

        With ``dry``, nothing is written to the log, and n-grams are not counted.
        """
        settings, manifest = self.settings, self.shards.manifest
        features: dict[str, Feature] = {}
        if (preset := PRESETS.get(settings.preset)) and preset.features and not dry:
            features = {**ngram_losses(self.directory, self.targets, self.proxy.seq_len)}
        return Search(
            manifest.names,
            dict.fromkeys(self.targets, "min"),
            **settings.search_arguments(manifest),
            prior=settings.prior or default_mixture(self.shards, self.proxy),
            features=features,
            earlier_runs={} if dry else self.prior.by_target(features),
            log=TrialLog.snapshot(self.out / TRIALS) if dry else self.out / TRIALS,
        )

    def begin_dry(self, enqueue: Sequence[Mixture], kept: Retarget | None) -> Search:
        """Return the search as it would begin, with the mixtures ``enqueue``; write nothing.

        Raises:
            UsageError: A setting of the search is impossible, a mixture is outside the limits, or
                the budget has no place for it.
            InvalidDataError: A mixture names other clusters.
        """
        search = self.open_search(dry=True)
        for mixture in enqueue:
            search.enqueue(mixture)
        places = self.settings.budget - (kept.count if kept else 0)
        if kept and search.waiting > places:
            raise UsageError(
                f"--enqueue needs a place in the budget for each of {search.waiting} mixtures, and "
                f"{kept.count} of the {self.settings.budget} places are taken by the proxies of "
                f"--retarget; give --budget {kept.count + search.waiting} or more"
            )
        return search

    def proxy_task(self, mixture: Mixture) -> ProxyTask:
        """Return the task to train and score a proxy on ``mixture``."""
        return ProxyTask(
            directory=self.directory,
            mixture=mixture,
            seed=mixture.about["seed"],
            settings=self.proxy,
            targets=self.targets,
            keep=weights_file(self.out, mixture.about["trial"]) if self.keep else None,
        )

    def retarget(self, old: Path) -> Retarget:
        """Return the `Retarget` that scores the kept proxies of the search in ``old``."""
        return Retarget(
            old=old,
            out=self.out,
            directory=self.directory,
            targets=self.targets,
            proxy=self.proxy,
            header=self.shared_settings(),
        )

    def tell_kept(self, search: Search) -> None:
        """Warn if proxies should be kept, but some of their model parameters are missing."""
        own = (trial for trial in search.log.trials if not search.log.is_carried(trial))
        scored = {trial.number for trial in own if trial.scores is not None}
        kept = scored & kept_files(self.out).keys()
        if self.keep and len(kept) < len(scored):
            logger.warning(
                f"the parameters of {len(kept):,} of {len(scored):,} proxies are kept in "
                f"{self.out / PROXIES}; a larger --keep-proxies keeps more of those that "
                "are trained from now on"
            )


def _proxy_plan(plan: Mapping[str, Any], targets: Sequence[str]) -> dict[str, Any]:
    """Return the part of ``plan`` that decides the scores of a proxy on ``targets``."""
    hashes, proxies = plan.get("targets", {}), proxy_plan(plan)
    here = {name: hashes[name] for name in targets if name in hashes}
    return {**proxies, "settings": {**proxies["settings"], "target": here}}


def _run_round(
    search: Search,
    task: _SearchTask,
    mixtures: Sequence[Mixture],
    pool: Engine,
    writers: Sequence[Writer],
) -> None:
    """Train and score one proxy per mixture; tell the scores to the search."""
    if search.table:
        logger.info(
            "how well the predictors predict each proxy from the other proxies so far:\n"
            f"{skills_text(search.table)}"
        )
    errors = {f"{skill.target}/{skill.predictor}": skill.nmse for skill in search.table}
    proxies = [task.proxy_task(mixture) for mixture in mixtures]
    with _progress(search, mixtures) as bar:
        for proxy, result in pool.run(run_proxy, proxies, hung_proxy):
            failed = result.scores is None
            # Write the items first, so that no trial in the log lacks its items.
            append_costs(task.out / ITEMS, proxy.mixture.about["trial"], result.costs)
            search.tell(proxy.mixture, ClimbError(result.why) if failed else result.scores)
            numbers = {
                "step": len(search.log.trials),
                "score": result.scores or {},
                "weight": proxy.mixture.weights,
                "nmse": errors,
            }
            write_metrics(numbers, *writers)
            if task.keep:
                prune(task.out, task.keep)
            bar.add(1)


def _progress(search: Search, mixtures: Sequence[Mixture]) -> Progress:
    """Return the progress of a search that trains on ``mixtures`` now: a round, or new runs."""
    done, total = search.done, search.planned
    if done >= total:
        return Progress("confirm", done - total + len(mixtures), "proxies", done - total)
    part = f"round {mixtures[0].about['round']}"
    return Progress("search", total, "proxies", done, part=part, later=search.to_confirm)


def _save_best_other(answer: Answer, path: Path) -> None:
    """Write the best other mixture to ``path`` if the answer is the token shares, else no file."""
    best = contender(answer)
    if answer.choice == BASE and best is not None:
        Mixture(best.mixture.weights, {"choice": best.choice}).save(path)
    else:
        path.unlink(missing_ok=True)


def _write_results(search: Search, task: _SearchTask, found: Sequence[str]) -> Answer:
    """Choose the mixture; write the mixture, the answer and the report; return the answer.

    ``found`` are the warnings about the targets, which come first in the answer.

    Raises:
        InvalidDataError: No proxy could be trained.
    """
    out, manifest, trials = task.out, task.shards.manifest, search.log.trials
    if all(trial.scores is None for trial in trials):
        raise InvalidDataError(
            f"none of {len(trials)} proxies could be trained; the first: {trials[0].why}"
        )
    evidence = read_evidence(task.directory, task.targets, out / ITEMS)
    answer = replace(
        search.result(evidence),
        spread=search.spread(),
        dependence=search.dependence(),
        words=task.shards.words(),
    )
    told, warnings = task.prior.told(search.earlier_runs, trials, search.clusters, search.table)
    for line in told:
        logger.info(line)
    warnings += [_UNTRAINED] * answer.predicted_only
    answer = replace(answer, warnings=[*found, *answer.warnings, *warnings])
    about = {
        "targets": list(task.targets),
        **manifest.found_on,
        "reason": answer.reason,
        **({"warnings": answer.warnings} if answer.warnings else {}),
    }
    Mixture(answer.mixture.weights, about).save(out / "mixture.json")
    _save_best_other(answer, out / BEST_OTHER)
    write_json(out / "answer.json", answer.to_json())
    own = {t.number: f"proxy {t.number}, enqueued" for t in trials if search.log.is_enqueued(t)}
    sections = search_sections(task.directory, answer, trials, own)
    names = ", ".join(task.targets)
    lead = f"{len(trials)} proxies of {task.proxy.tokens:,} tokens for {names}."
    if (origin := search.log.origin) is not None:
        carried = sum(map(search.log.is_carried, trials))
        lead += f" {carried} of them were trained by an earlier search, {origin['search']}."
        if more := len(search.log.apart):
            lead += f" Predictors also learnt from {more:,} of its proxies on other mixtures."
    lead = " ".join([lead, *told])
    write_bytes(out / "report.html", page("Search", lead, sections))
    return answer
