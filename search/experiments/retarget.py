"""Retargeting: begin a search with the kept proxies of an earlier search, scored on new targets.

A proxy is a small model that is trained on one mixture. The kept proxies are not trained again.
Each of their trials keeps its number, round, mixture and seed. All these trials count in the
budget, even trials that confirmed an answer. The new search then proposes mixtures, like a search
that continues with other settings (see `Search`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError
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
"""Settings of a search that decide the scores of its proxies."""


def proxy_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the plan of a search that decides its proxies."""
    settings = plan.get("settings", {})
    return {
        "shards": plan.get("shards"),
        "settings": {name: settings.get(name) for name in OF_PROXIES},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Retarget:
    """An earlier search with kept proxies, and the new search that begins with them."""

    old: Path
    """Folder of the earlier search."""
    out: Path
    """Folder of the new search."""
    directory: Path
    targets: tuple[str, ...]
    proxy: TrainSettings
    header: Mapping[str, Any]
    """Settings for the first line of the log of the new search: clusters, targets and seed."""

    def check(self, plan: Mapping[str, Any]) -> None:
        """Check that the new search, with ``plan``, would train proxies as the earlier search did.

        Raises:
            UsageError: ``old`` holds no search, or a search that kept no proxies.
            InvalidDataError: The earlier proxies were trained differently, or the search in ``out``
                was begun without them.
        """
        kept_trials(self.old)
        old = proxy_plan(read_plan(self.old / SEARCH.plan))
        if differences := differences_text(old, proxy_plan(plan)):
            raise InvalidDataError(
                f"--retarget {self.old}: its proxies were trained with other settings: "
                f"{differences}. Use the shards and settings of that search, or leave out "
                "--retarget"
            )
        begun = self._begun()
        if begun and hash_json(begun.begun_with) != hash_json(self._header()):
            raise InvalidDataError(
                f"the search in {self.out} did not begin with the proxies of {self.old}; name a "
                "new folder, or leave out --retarget"
            )

    @property
    def count(self) -> int:
        """Number of proxies that the earlier search kept."""
        return len(kept_trials(self.old))

    def score(self, pool: Engine) -> None:
        """Score the kept proxies on the new targets; append their trials to the new log.

        Proxies whose trials are already in this log are left out.
        """
        header, begun = self._header(), self._begun()
        if begun and begun.config != hash_json(header):
            return  # the log already has all these trials
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
                # Write the items first, so that no trial in the log lacks its items.
                append_costs(self.out / ITEMS, trial.number, result.costs)
                scored = replace(trial, scores=result.scores, why=result.why, config=log.config)
                log.append(scored)
                bar.add(1, f"trial {trial.number}")

    def _begun(self) -> TrialLog | None:
        """Return the log of the new search; None if the log has no complete line."""
        path = self.out / TRIALS
        return TrialLog.open(path) if read_lines(path) else None

    def _header(self) -> dict[str, Any]:
        """Return the settings in the first line of the new log, as JSON values."""
        first = {"version": Trial.version, "settings": TrialLog.open(self.old / TRIALS).begun_with}
        return {**self.header, "retargeted": hash_json(first)}
