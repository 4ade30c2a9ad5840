"""Retargeting: a search begins with the kept proxies of another one, scored on its own targets.

Nothing is trained for that. The trials keep number, round, mixture and seed, and count in the
budget, those that confirmed an answer too. Then the search goes on from them like one whose
settings have changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import hash_json, read_lines
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import differences_text, read_plan
from climbstream.loader.formats.outputs import ITEMS, SEARCH, TRIALS
from climbstream.search.optimizer.trials import Trial, TrialLog
from climbstream.search.training.settings import TrainSettings

from .items import append_costs
from .kept_proxies import kept_trials, weights_file
from .proxy import ScoreTask, score_proxy

logger = get_logger(__name__)

OF_PROXIES = ("seed", "final_tokens", "proxy")
"""Settings of a search that decide what its proxies score."""


def proxy_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the plan of a search decides its proxies."""
    settings = plan.get("settings", {})
    return {
        "shards": plan.get("shards"),
        "settings": {name: settings.get(name) for name in OF_PROXIES},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Retarget:
    """The search whose proxies are scored, and what the new search is."""

    old: Path
    out: Path
    directory: Path
    targets: tuple[str, ...]
    proxy: TrainSettings
    header: Mapping[str, Any]
    """Settings of the log of these trials: clusters, targets and seed."""

    def check(self, plan: Mapping[str, Any]) -> None:
        """Check that the new search, of ``plan``, would train the same proxies.

        Raises:
            UsageError: The old folder holds no search, or none whose proxies are kept.
            InvalidDataError: Its proxies were trained otherwise, or the new folder was begun
                without them.
        """
        if not SEARCH.has(self.old):
            raise UsageError(f"{self.old} holds no search; name the folder of one, its --out")
        old = proxy_plan(read_plan(self.old / SEARCH.plan))
        if differences := differences_text(old, proxy_plan(plan)):
            raise InvalidDataError(
                f"--retarget {self.old}: its proxies were trained otherwise: {differences}. Use "
                "the shards and settings of that search, or leave --retarget out"
            )
        kept_trials(self.old)
        begun = self._begun()
        if begun and hash_json(begun.begun_with) != hash_json(self._header()):
            raise InvalidDataError(
                f"the search in {self.out} did not begin with the proxies of {self.old}; name a "
                "new folder, or leave out --retarget"
            )

    @property
    def count(self) -> int:
        """Number of proxies that the old search kept."""
        return len(kept_trials(self.old))

    def score(self, pool: Engine) -> None:
        """Score the kept proxies of the old search, and write them to the log of the new one."""
        header, begun = self._header(), self._begun()
        if begun and begun.config != hash_json(header):
            return  # the search goes on from them already
        log = TrialLog.open(self.out / TRIALS, header)
        done = {trial.number for trial in log.trials}
        kept, every = kept_trials(self.old), TrialLog.open(self.old / TRIALS).trials
        if len(kept) < len(every):
            logger.warning(
                f"{len(kept):,} of {len(every):,} proxies of {self.old} are kept; the others are "
                "left out"
            )
        tasks = [
            ScoreTask(
                directory=self.directory,
                trial=trial,
                weights=weights_file(self.old, trial.number),
                settings=self.proxy,
                targets=self.targets,
            )
            for trial in kept
            if trial.number not in done
        ]
        with Progress("score", len(kept), "proxies", len(kept) - len(tasks)) as bar:
            for task, result in pool.run(score_proxy, tasks):
                trial = task.trial
                # Items first: so each trial in the log has its items in the other file.
                append_costs(self.out / ITEMS, trial.number, result.costs)
                scored = replace(trial, scores=result.scores, why=result.why, config=log.config)
                log.append(scored)
                bar.add(1, f"trial {trial.number}")

    def _begun(self) -> TrialLog | None:
        """Return the log of the new search; None if it has not begun, or its first line was cut."""
        path = self.out / TRIALS
        return TrialLog.open(path) if read_lines(path) else None

    def _header(self) -> dict[str, Any]:
        """Return the settings of the trials that are scored, as JSON values."""
        first = {"version": Trial.version, "settings": TrialLog.open(self.old / TRIALS).begun_with}
        return {**self.header, "retargeted": hash_json(first)}
