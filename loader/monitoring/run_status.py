"""RunStatus: the state of a running job, read from the files in its folder as they grow.

Each call of `RunStatus.look` reads only those lines of ``metrics.jsonl`` that were added since the
last call. The first call reads only the end of a long file. So the time and memory of a call do not
grow with the length of the run.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from climbstream.loader.audit.ledger import LEDGER
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import open_regular
from climbstream.loader.core.typed import parse_json
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.formats.outputs import TRAIN, has_ended
from climbstream.loader.weights.log import WeightsLog, WeightsRecord
from climbstream.loader.weights.request import LOG, open_weights_log
from climbstream.loader.weights.sources import waiting_change

from .metrics import METRICS
from .run_facts import RunFacts

_MOST_READ = 1 << 24
"""Number of bytes at the end of ``metrics.jsonl`` that the first look reads."""
_POINTS = 500
"""Largest number of points of a curve."""
_CLUSTER_POINTS, _CLUSTER_CURVES = 60, 24
"""Largest number of points of the loss curve of a cluster, and largest number of clusters that have
a loss curve: those with the largest weights."""
_RECENT = 32
"""Number of lines of metrics that count as recent; see `RunStatus._recent`."""
_BY_CLUSTER = ("target", "served", "epochs", "used_up_at", "cluster_loss", "heldout_loss")
"""Fields of a line of metrics that hold one number per cluster, by name of the cluster."""
_MOST_STEP = 1 << 53
"""Largest step that a JSON number holds exactly."""
_RECORDS = 50
"""Largest number of records of the weights log that a look returns: the latest ones."""
LONG_SILENCE = 120.0
"""Time without metrics after which users are told that the job may have stopped, in seconds."""
_CHANGED = 4
"""Largest number of clusters whose weights a look returns for a record: those that changed most."""


class RunStatus:
    """The state of the run in a folder; each call of `look` returns the present state.

    The state is read from ``metrics.jsonl``, to which `append_metrics` writes. A line of this file
    has the values of `MixtureLoader.metrics`, the ``time`` in seconds as `time.time` returns it,
    and values that the job adds: ``loss``, and ``cluster_loss`` and ``heldout_loss`` by name of
    cluster. All fields except ``step``, ``tokens`` and ``served`` are optional; without ``time``,
    no throughput is shown. Several threads may call `look` at the same time.
    """

    def __init__(self, run: Path) -> None:
        """Watch the run in the folder ``run``.

        Raises:
            UsageError: ``run`` is not the folder of a run.
        """
        self.run = run
        self._lock = threading.RLock()
        self._log, self._log_seen = open_weights_log(run), self._stamp(LOG)
        self._offset: int | None = None
        self._file = 0
        self._last: Mapping[str, Any] | None = None
        self._before: deque[Mapping[str, Any]] = deque(maxlen=_RECENT)
        self._losses: dict[str, float] = {}
        self._loss_steps: dict[str, int] = {}
        self._heldout_losses: dict[str, float] = {}
        self._loss_curves: dict[str, deque[tuple[int, float]]] = {}
        self._facts = RunFacts()
        self._facts_seen: tuple[tuple[int, ...], ...] = ()
        self._bad = 0
        self._curves: dict[str, deque[tuple[int, float]]] = {
            name: deque(maxlen=_POINTS) for name in ("loss", "tokens_per_second", "waiting")
        }

    @property
    def log(self) -> WeightsLog:
        """The present weights log; the file is read again only if it has changed.

        Raises:
            ClimbError: The weights log cannot be read.
        """
        with self._lock:
            if (stamp := self._stamp(LOG)) != self._log_seen:
                self._log, self._log_seen = open_weights_log(self.run), stamp
            return self._log

    def look(self) -> dict[str, Any]:
        """Return the state of the run as JSON values.

        Raises:
            ClimbError: The weights log cannot be read.
        """
        with self._lock:
            self._read_metrics()
            seen = self._stamp(LEDGER)[:1], self._stamp(TRAIN.plan)[:1]
            if seen != self._facts_seen:
                self._facts, self._facts_seen = RunFacts.read(self.run), seen
            return self._tell(self.log)

    def _tell(self, log: WeightsLog) -> dict[str, Any]:
        metrics = self._last or {}
        step = int(metrics.get("step", 0))
        last = log.records[-1]
        goal = log.mixture(max(step, last.at_step + last.steps)).weights
        now = log.mixture(step).weights
        recent = self._recent()
        names = list(dict.fromkeys([*metrics.get("served", {}), *goal]))
        fields = {
            "served": metrics.get("served", {}),
            "epochs": metrics.get("epochs", {}),
            "used_up_at": metrics.get("used_up_at", {}),
            "max_epochs": self._facts.max_epochs,
            "words": self._facts.words,
            "loss": self._losses,
            "loss_step": self._loss_steps,
            "heldout_loss": self._heldout_losses,
        }
        return {
            "run": self.run.name,
            "step": step,
            "tokens": int(metrics.get("tokens", 0)),
            "end_tokens": self._facts.tokens,
            "ended": has_ended(self.run),
            "silent_seconds": silent_seconds(self.run),
            "unreadable_lines": self._bad,
            "clusters": [
                {
                    "name": name,
                    "target": now.get(name, 0.0),
                    "goal": goal.get(name, 0.0),
                    "recent": recent.get(name),
                    **{field: values.get(name) for field, values in fields.items()},
                }
                for name in names
            ],
            "capped": list(last.capped),
            "curves": {name: list(curve) for name, curve in self._curves.items()},
            "loss_curves": {
                name: list(self._loss_curves[name])
                for name in sorted(goal, key=lambda name: -goal[name])[:_CLUSTER_CURVES]
                if name in self._loss_curves
            },
            "records": [
                {
                    **{name: getattr(r, name) for name in ("v", "at_step", "kind", "steps", "why")},
                    **_changes(_reached(log.records[r.v - 1]) if r.v else {}, _reached(r)),
                }
                for r in log.records[: -_RECORDS - 1 : -1]
            ],
            "head": log.head,
            "asked": waiting.to_json() if (waiting := waiting_change(self.run, log)) else None,
        }

    def _recent(self) -> dict[str, float]:
        """Return each cluster's share of the rows that were served recently, by name.

        Recently means: within the last 32 lines of metrics, and since the weights last changed.
        The result is empty if no rows were served in that time. Several lines are counted together,
        because the few rows between two lines may be fewer than the clusters.
        """
        if self._last is None or not self._before:
            return {}
        target = self._last["target"]
        same = (line for line in self._before if line["target"] == target)
        first = next(same, self._before[-1])
        tokens = self._last["tokens"] - first["tokens"]
        if tokens <= 0:
            return {}
        return {
            name: max(
                0.0, share * self._last["tokens"] - first["served"].get(name, 0.0) * first["tokens"]
            )
            / tokens
            for name, share in self._last["served"].items()
        }

    def _read_metrics(self) -> None:
        """Read the complete lines that were added since the last look."""
        path = self.run / METRICS
        try:
            with open_regular(path) as file:
                found = os.fstat(file.fileno())
                size, anew = found.st_size, found.st_ino != self._file
                if self._offset is None or anew or size < self._offset:  # a new or cut file
                    self._file = found.st_ino
                    self._offset = max(0, size - _MOST_READ)
                    file.seek(self._offset)
                    if self._offset:
                        self._offset += len(file.readline())  # skip the rest of a line
                file.seek(self._offset)
                data = file.read(2 * _MOST_READ)
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == 2 * _MOST_READ:  # too long for a line of metrics
            whole = data
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                self._take(parse_json(line, METRICS))
            except (InvalidDataError, ValueError, TypeError, KeyError, OverflowError):
                self._bad += 1

    def _take(self, line: Mapping[str, Any]) -> None:
        step, tokens = int(line["step"]), int(line["tokens"])
        if not (0 <= step < _MOST_STEP and tokens >= 0):
            raise ValueError("there is no such step")
        line = {
            **line,
            "step": step,
            "tokens": tokens,
            **{name: _numbers(line.get(name) or {}) for name in _BY_CLUSTER},
        }
        if not line["served"]:
            raise ValueError("the line does not say what was served")
        before = self._last
        if before is not None and step <= before["step"]:
            # The job went back to a checkpoint, so points at this step or later no longer count.
            for curve in (*self._curves.values(), *self._loss_curves.values()):
                while curve and curve[-1][0] >= step:
                    curve.pop()
            for name in [name for name, at in self._loss_steps.items() if at >= step]:
                del self._losses[name], self._loss_steps[name]
            before = None
            self._before.clear()
        if loss := _numbers({"loss": line.get("loss")}):
            self._curves["loss"].append((step, loss["loss"]))
        if before is not None and "time" in line and "time" in before:
            seconds = float(line["time"]) - float(before["time"])
            waited = float(line.get("wait_seconds", 0)) - float(before.get("wait_seconds", 0))
            # There is no throughput if the job was started again between the two lines.
            if seconds > 0 and waited >= 0 and line.get("since") == before.get("since"):
                rate = (tokens - before["tokens"]) / seconds
                self._curves["tokens_per_second"].append((step, rate))
                self._curves["waiting"].append((step, min(1.0, waited / seconds)))
        # Update, not replace: a line has no loss of a cluster without rows since the line before,
        # and most lines have no held-out losses.
        self._losses |= line["cluster_loss"]
        self._loss_steps |= dict.fromkeys(line["cluster_loss"], step)
        self._heldout_losses |= line["heldout_loss"]
        for name, mean in line["cluster_loss"].items():
            curve = self._loss_curves.setdefault(name, deque(maxlen=_CLUSTER_POINTS))
            curve.append((step, mean))
        if before is not None:
            self._before.append({name: before[name] for name in ("tokens", "served", "target")})
        self._last = line

    def _stamp(self, name: str) -> tuple[int, ...]:
        """Return numbers that change when the file changes; empty if there is no file."""
        try:
            status = (self.run / name).stat()
        except FileNotFoundError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns


def silent_seconds(run: Path) -> float | None:
    """Return the seconds since the job in ``run`` last wrote metrics; None if it never did."""
    try:
        return max(0.0, time.time() - (run / METRICS).stat().st_mtime)
    except FileNotFoundError:
        return None


def _reached(record: WeightsRecord) -> Mapping[str, float]:
    """Return the weights at the end of ``record``, by name; those of capped clusters are 0."""
    if not record.capped:
        return record.weights
    return {name: n / ONE for name, n in record.units(record.at_step + record.steps).items()}


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """Return the largest changes of the weights, and how many more clusters changed.

    ``changed`` has (cluster, weight before, weight after); the weight before is None for the first
    record, which has no weights before it. ``more_changed`` is the number of other clusters.
    """
    apart = {
        name: after.get(name, 0.0) - before.get(name, 0.0)
        for name in dict.fromkeys([*after, *before])
    }
    most = sorted((name for name in apart if apart[name]), key=lambda name: -abs(apart[name]))
    changed = [
        (name, before.get(name, 0.0) if before else None, after.get(name, 0.0))
        for name in most[:_CHANGED]
    ]
    return {"changed": changed, "more_changed": len(most) - len(changed)}


def _numbers(value: Any) -> dict[str, float]:
    """Return the finite numbers in ``value``, by name.

    A value of null is left out like NaN, because some programs write null for NaN.

    Raises:
        TypeError: ``value`` is no object of numbers.
    """
    numbers = ((str(name), number) for name, number in dict(value).items() if number is not None)
    return {name: number for name, number in numbers if math.isfinite(number)}
