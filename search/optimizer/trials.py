"""Trials: a `Trial` is one proxy run, and a `TrialLog` has all trials of a search.

The log is an append-only file of JSON lines. Its first line holds the settings of the search. So if
another search is given the same file by mistake, the error can say which settings differ. There are
four other kinds of lines:

- A trial. It belongs to the nearest line of settings above it.
- Settings. A search that continues with other settings writes them to a new line.
- A trial with the key ``apart``. It was carried over from another search, and its weights are still
  those of the clusters of that search.
- A mixture with the key ``enqueued``, which a user enqueued.

Trials that were carried over from another search come first, and their settings have the key
``from``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError
from climbstream.loader.core.files import append_line, hash_json, read_lines, write_bytes
from climbstream.loader.core.tabular import Tabular
from climbstream.loader.core.typed import Count, Finite, Whole, check_version, convert, located
from climbstream.loader.core.workdir import check_same_config
from climbstream.loader.formats.mixture import Mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One proxy run: a mixture with its scores, or with the reason why it has no scores."""

    number: Count
    """Number of the trial, from 1, in the order in which the search asks for mixtures."""
    round: Count
    """Number of the round, from 1."""
    mixture: Mixture
    seed: Whole
    """Seed of the proxy; repeats of a mixture have different seeds."""
    scores: dict[str, Finite] | None
    """Score by target, a finite number in the unit of the target; None if the trial failed."""
    why: str = ""
    """Reason why the trial has no scores; "" if it has scores."""
    config: str = ""
    """Hash of the settings that the search had when the trial was run."""

    version = 1

    def __post_init__(self) -> None:
        for name, score in (self.scores or {}).items():
            if not math.isfinite(score):
                raise InvalidDataError(
                    f"trial {self.number} has the score {name}={score}; a trial without finite "
                    "scores is a failed one: scores=None"
                )

    @property
    def status(self) -> Literal["ok", "failed"]:
        """``ok`` if the trial has scores, else ``failed``."""
        return "failed" if self.scores is None else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return {
            "version": self.version,
            "number": self.number,
            "round": self.round,
            "status": self.status,
            "scores": self.scores,
            "why": self.why,
            "seed": self.seed,
            "config": self.config,
            "mixture": self.mixture.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the JSON values that `to_json` returns.

        Raises:
            InvalidDataError: ``value`` is no trial, or a trial of a version that cannot be read.
        """
        fields = check_version(value, cls.version, "trial")
        # The status follows from the scores; it is written only for people who read the log.
        fields.pop("status", None)
        if "mixture" in fields:
            fields["mixture"] = Mixture.from_json(fields["mixture"])
        return convert(fields, cls, "trial")


FROM = "from"
"""Key in the settings of trials that were carried over from another search."""


class TrialLog(Tabular):
    """The trials of one search. If ``path`` is given, a file of JSON lines has them too."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        trials: tuple[Trial, ...] = (),
        path: Path | None = None,
    ) -> None:
        self.path = path
        self._written = path is not None
        """Whether what is added to the log is also written to its file."""
        self.enqueued: list[tuple[int, Mixture]] = []
        """For each mixture that a user enqueued, a pair: the first round in which `Search.ask` may
        return it, and the mixture."""
        self.apart: list[Trial] = []
        """Trials over the clusters of an earlier search that correspond to no mixture of the
        present clusters."""
        self._trials: dict[int, Trial] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._begin(settings)
        for trial in trials:
            self._add(trial)

    def _begin(self, settings: Mapping[str, Any]) -> None:
        """Make ``settings`` the present settings; all trials so far become ``earlier`` trials."""
        self.earlier = self.trials
        """Trials that were recorded before the present settings."""
        self.spent = sum(self._is_of_budget(trial) for trial in self.earlier)
        """Number of ``earlier`` trials that count in the budget. The other ``earlier`` trials
        confirmed an answer, or were carried over from another search."""
        self.settings = dict(settings)
        self.config = hash_json(self.settings)
        self._settings[self.config] = self.settings
        for trial in self.earlier:
            self._check_targets(trial)

    def _is_of_budget(self, trial: Trial) -> bool:
        """Return whether ``trial`` counts in the budget.

        Trials that confirm an answer do not count; they have larger seeds than all other trials.
        """
        if self.is_carried(trial):
            return False
        settings = self._settings[trial.config]
        seed, budget = settings.get("seed"), settings.get("budget")
        if not isinstance(seed, int) or not isinstance(budget, int):
            return True
        return trial.seed < seed + budget

    @property
    def origin(self) -> dict[str, Any] | None:
        """Facts about the search from which trials were carried over; None if none were.

        - ``search``: the folder of that search.
        - ``same``: whether cells (the clusters of the shards, before grouping) and targets are the
          same as in that search.
        - ``overlap``: the tokens that the clusters of both searches have in common (`Overlap`).
          Logs of early versions lack this key.
        """
        first: dict[str, Any] | None = self.begun_with.get(FROM)
        return first

    @property
    def begun_with(self) -> dict[str, Any]:
        """Settings in the first line of the log; the present settings are in ``settings``."""
        return next(iter(self._settings.values()))

    def is_carried(self, trial: Trial) -> bool:
        """Return whether ``trial`` was carried over from another search."""
        return FROM in self._settings[trial.config]

    def is_enqueued(self, trial: Trial) -> bool:
        """Return whether a user enqueued the mixture of ``trial``."""
        return any(mixture == trial.mixture for _, mixture in self.enqueued)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the trials as rows of a table: dictionaries from column names to values.

        The columns are ``run`` (the number of the trial), ``round``, ``seed``, ``status``,
        ``enqueued`` (whether a user enqueued the mixture), one ``w_CLUSTER`` for the weight of each
        cluster, and one for the score on each target. If the rows are written to a CSV file, `climb
        fit` can read it.
        """
        trials = self.trials
        clusters = dict.fromkeys(name for t in trials for name in t.mixture.weights)
        targets = dict.fromkeys(name for t in trials for name in t.scores or {})
        return [
            {
                "run": trial.number,
                "round": trial.round,
                "seed": trial.seed,
                "status": trial.status,
                "enqueued": self.is_enqueued(trial),
                **{f"w_{name}": trial.mixture.weights.get(name, 0.0) for name in clusters},
                **{name: (trial.scores or {}).get(name) for name in targets},
            }
            for trial in trials
        ]

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: Mapping[str, Any] | None = None,
        fixed: Sequence[str] | None = None,
    ) -> Self:
        """Read the log at ``path``, or begin it with ``settings`` (plain JSON values).

        Without ``settings``, the log must exist, and it continues with its own settings. ``fixed``
        names the settings that must be equal to those in the log; None means that all settings must
        be equal. Settings that ``fixed`` does not name may differ; the log continues with those in
        ``settings``.

        Raises:
            InvalidDataError: A line is no trial, a setting that must be equal differs, the
                direction (min or max) of a target differs, or the trials lack scores on a target.
            UsageError: The log does not exist, and ``settings`` is None.
        """
        path = Path(path)
        lines = read_lines(path)
        if not lines:
            if settings is None:
                raise UsageError(f"there is no trial log at {path}")
            append_line(path, {"version": Trial.version, "settings": settings})
            return cls(settings, path=path)
        there = lines[0].get("settings") if isinstance(lines[0], dict) else None
        if not isinstance(there, dict):
            raise InvalidDataError(f"{path}, line 1, has no settings of a search")
        log = cls(there, path=path)
        try:
            for number, line in enumerate(lines[1:], start=2):
                located(log._read, line, f"line {number}")
        except (InvalidDataError, UsageError) as error:
            raise InvalidDataError(f"{path}: {error}") from None
        if settings is not None:
            log.continue_with(settings, fixed)
        return log

    @classmethod
    def snapshot(cls, path: Path) -> Self | None:
        """Return the log at ``path`` as it is now; None if there is no log.

        Nothing that is done with this log is written to the file.

        Raises:
            InvalidDataError: A line of the file is no trial.
        """
        if not read_lines(path):
            return None
        log = cls.open(path)
        log._written = False
        return log

    @classmethod
    def begin_with(
        cls,
        path: Path,
        trials: Sequence[Trial],
        settings: Mapping[str, Any],
        origin: Mapping[str, Any],
        apart: Sequence[Trial] = (),
    ) -> None:
        """Write a new log of carried ``trials``, which keep their numbers.

        Args:
            path: File of the log, which must not exist.
            trials: Trials over the clusters of this search.
            settings: Clusters, targets and seed of this search.
            origin: See `TrialLog.origin`.
            apart: See `TrialLog.apart`.
        """
        there = {**settings, FROM: dict(origin)}
        config = hash_json(there)
        lines = [{"version": Trial.version, "settings": there}]
        lines += [replace(trial, config=config).to_json() for trial in trials]
        lines += [
            {"version": Trial.version, "apart": replace(trial, config=config).to_json()}
            for trial in apart
        ]
        write_bytes(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def _read(self, line: Any) -> None:
        """Add the content of one line of the file: settings, a trial, or an enqueued mixture."""
        if isinstance(line, dict) and isinstance(line.get("settings"), dict):
            self._begin(line["settings"])
        elif isinstance(line, dict) and "apart" in line:
            self.apart.append(trial := Trial.from_json(line["apart"]))
            self._check_targets(trial)
        elif isinstance(line, dict) and "enqueued" in line:
            fields = convert(line, _Enqueued, "enqueued mixture")
            self.enqueued.append((fields.round, Mixture.from_json(fields.enqueued)))
        else:
            self._add(Trial.from_json(line))

    def continue_with(self, settings: Mapping[str, Any], fixed: Sequence[str] | None) -> None:
        """Continue with ``settings``; see `open` for ``fixed`` and the errors."""
        place = self.path or "this log"

        def held(values: Mapping[str, Any]) -> Mapping[str, Any]:
            return values if fixed is None else {n: values.get(n, "absent") for n in fixed}

        check_same_config(held(self.settings), held(settings), place)
        before, now = self._directions(), settings.get("targets", {})
        shared = before.keys() & now.keys()
        old, new = ({name: of[name] for name in sorted(shared)} for of in (before, now))
        check_same_config({"targets": old}, {"targets": new}, place)
        if hash_json(settings) == self.config:
            return
        try:
            self._begin(settings)
        except UsageError as error:
            raise InvalidDataError(
                f"{place}: {error}; search for targets without scores in another folder"
            ) from None
        self._write({"version": Trial.version, "settings": settings})

    def _write(self, line: Mapping[str, Any]) -> None:
        """Append ``line`` to the file of the log, if it has one."""
        if self.path is not None and self._written:
            append_line(self.path, line)

    def _directions(self) -> dict[str, str]:
        """Return ``min`` or ``max`` by target, for the targets of all settings in the log."""
        targets = (settings.get("targets") for settings in self._settings.values())
        return {
            name: way for each in targets if isinstance(each, dict) for name, way in each.items()
        }

    @property
    def trials(self) -> list[Trial]:
        """All trials, ordered by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def append(self, trial: Trial) -> None:
        """Append ``trial`` to the log and to its file.

        Raises:
            UsageError: The log has a trial with this number, the trial is of a search with other
                settings, or the trial has scores but lacks the score of a target.
        """
        self._check(trial)
        self._write(trial.to_json())
        self._trials[trial.number] = trial

    def enqueue(self, mixture: Mixture, round_: int) -> None:
        """Record that `Search.ask` is to return ``mixture`` in ``round_`` or in a later round."""
        line = {"version": Trial.version, "enqueued": mixture.to_json(), "round": round_}
        self._write(line)
        self.enqueued.append((round_, mixture))

    def _add(self, trial: Trial) -> None:
        """Add ``trial``, which is already in the file."""
        self._check(trial)
        self._trials[trial.number] = trial

    def _check(self, trial: Trial) -> None:
        """Raise `UsageError` unless ``trial`` can be added."""
        if (before := self._trials.get(trial.number)) is not None:
            raise UsageError(
                f"trial {trial.number} was told already ({before.status}); each is told once"
            )
        if trial.config != self.config:
            raise UsageError(
                f"trial {trial.number} belongs to the search {trial.config or '(none)'}, and this "
                f"log to {self.config}"
            )
        self._check_targets(trial)

    def _check_targets(self, trial: Trial) -> None:
        """Raise `UsageError` if ``trial`` has scores but lacks the score of a target."""
        targets = self.settings.get("targets")
        if trial.scores is None or not isinstance(targets, dict):
            return
        if missing := [name for name in targets if name not in trial.scores]:
            raise UsageError(
                f"the scores {', '.join(trial.scores) or '(none)'} of trial {trial.number} "
                f"lack the targets {', '.join(missing)}"
            )


@dataclass(frozen=True, slots=True)
class _Enqueued:
    """A line of the log with a mixture that a user enqueued, and the first round for it."""

    enqueued: dict[str, Any]
    round: Count
    version: Count = 1


def read_outcome(
    outcome: Mapping[str, float | None] | BaseException | None, targets: Sequence[str]
) -> tuple[dict[str, float] | None, str]:
    """Return the finite scores in ``outcome`` and ""; for a failed trial, None and the reason.

    See `Search.tell` for ``outcome``.

    Raises:
        UsageError: The score of a target is missing. This is a mistake of the caller, not a failure
            of the proxy.
    """
    if outcome is None:
        return None, "no scores"
    if isinstance(outcome, ClimbError):
        return None, str(outcome)
    if isinstance(outcome, BaseException):
        return None, f"{type(outcome).__name__}: {outcome}"
    if missing := [name for name in targets if name not in outcome]:
        raise UsageError(
            f"the scores {', '.join(outcome) or '(none)'} lack the targets {', '.join(missing)}; "
            "give each a number, or None if there is none"
        )
    scores = {name: math.nan if s is None else float(s) for name, s in outcome.items()}
    if bad := [f"{name} is {outcome[name]}" for name in targets if not math.isfinite(scores[name])]:
        return None, ", ".join(bad)
    return {name: score for name, score in scores.items() if math.isfinite(score)}, ""
