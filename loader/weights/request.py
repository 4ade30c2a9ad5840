"""UpdateRequest: a change of weights that a user asks a running job for, through a file.

The file is in the folder of the run; the job reads it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_json, write_json
from climbstream.loader.core.typed import convert, located
from climbstream.loader.formats.mixture import Mixture, check_weights, share_rest, some_names
from climbstream.loader.formats.outputs import TRAIN, contents_of, has_ended

from .log import WeightsLog, WeightsRecord
from .update import WeightsUpdate

LOG = "weights.jsonl"
REQUEST = "weights.request.json"
CLUSTERS = "weights.clusters.json"
"""Names of files in the folder of a run: of the weights log, of the request, and of a list of the
clusters to which a request may give weights."""

_NAMED = 30
"""Number of clusters that a message lists."""


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """A change of weights, and the record of the weights log that the user saw when asking for it.

    If the log has got further records since, the change is not applied.
    """

    change: WeightsUpdate
    after: str | None = None
    """Hash of the record that the user saw as the last one. None: the change applies after any
    record."""

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON values: the fields of its change, and ``after`` if set."""
        return {**self.change.to_json(), **({} if self.after is None else {"after": self.after})}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned, or the JSON value of a mixture.

        Raises:
            InvalidDataError: ``value`` is neither a request nor a mixture, or has an unknown field.
        """
        if not isinstance(value, dict) or "weights" not in value:
            return cls(WeightsUpdate.from_json(value))
        fields = dict(value)
        after = fields.pop("after", None)
        if not isinstance(after, str | None):
            raise InvalidDataError("'after' must be text: the hash of a record of the weights log")
        return cls(WeightsUpdate.from_json(fields), after)

    def record(self, log: WeightsLog) -> WeightsRecord | None:
        """Return the record of ``log`` that this request led to; None if there is none.

        If ``after`` is set, this is the first record that has the requested change and is later
        than the record with the hash ``after``. If ``after`` is None, only the last change in
        ``log`` is compared with the request.
        """
        changes = [record for record in log.records[1:] if record.kind != "cap"]
        if self.after is None:
            changes = changes[-1:]
        else:
            seen = next((r.v for r in log.records if r.hash == self.after), len(log.records))
            changes = [record for record in changes if record.v > seen]
        asked = _positive(self.change.mixture.weights), self.change.ramp, self.change.why
        return next(
            (r for r in changes if (_positive(r.weights), r.steps, r.why) == asked),
            None,
        )


def _positive(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight > 0}


def open_weights_log(run: Path) -> WeightsLog:
    """Read the weights log of the run in the folder ``run``.

    Raises:
        UsageError: ``run`` is not the folder of a run.
        InvalidDataError: The log cannot be read.
        IntegrityError: The chain of hashes in the log is broken.
    """
    log = WeightsLog.open(run / LOG, write=False)
    if not log.records:
        what = "" if TRAIN.has(run) else contents_of(run)
        why = f", but {what}. Name" if what else f": it has no {LOG} with weights; name"
        raise UsageError(
            f"{run} is not a run{why} the folder in which the log of a running job lies, as climb "
            "train --out made it"
        )
    return log


def has_begun(run: Path) -> bool:
    """Whether the folder ``run`` contains a weights log that is not empty."""
    path = run / LOG
    return path.exists() and path.stat().st_size > 0


def write_clusters(request: Path, names: Sequence[str]) -> None:
    """Write a file beside ``request`` that lists the clusters to which a request may give weights.

    `climb weights` reads this file. Nothing is written if the file of requests is not named
    `REQUEST`, or if the list already has exactly these names.
    """
    path = request.with_name(CLUSTERS)
    if request.name == REQUEST and (not path.exists() or read_clusters(path.parent) != [*names]):
        write_json(path, [*names])


def read_clusters(run: Path) -> list[str]:
    """Return the names that `write_clusters` wrote; [] if the file is missing.

    Raises:
        InvalidDataError: The file holds no list of names.
    """
    path = run / CLUSTERS
    if not path.exists():
        return []
    return located(_names, read_json(path), str(path))


def _names(value: Any) -> list[str]:
    return convert(value, list[str], "list of clusters")


def with_named_weights(
    log: WeightsLog,
    named: Mapping[str, float],
    *,
    only: bool = False,
    clusters: Collection[str] = (),
    waiting: WeightsUpdate | None = None,
) -> Mixture:
    """Return the weights of all clusters after the weights ``named`` were changed.

    Args:
        log: The weights log of the run.
        named: New weights, by name of cluster. The other clusters share the rest in proportion to
            their weights in ``waiting`` or, if it is None, in the last record of ``log``.
        only: Whether other clusters get no weight; ``named`` is then scaled to sum 1.
        clusters: Names of the clusters of the shards, which are needed because the log does not
            name a cluster that never had weight. Empty: they are unknown.
        waiting: The change that was requested before and is not in ``log`` yet, if there is one.

    Raises:
        UsageError: A named cluster does not exist or is used up. Or the weights sum to more than 1.
            Or they sum to less than 1, and no other cluster can take the rest.
        InvalidDataError: A weight is negative, infinite or no number.
    """
    choices = sorted({*clusters, *(name for record in log.records for name in record.weights)})
    if unknown := [name for name in named if name not in choices]:
        raise UsageError(_no_cluster(unknown, choices, complete=bool(clusters)))
    last = log.records[-1]
    before = waiting.mixture.weights if waiting else last.weights
    check_weights({**before, **named})
    if capped := [name for name, weight in named.items() if weight > 0 and name in last.capped]:
        raise UsageError(
            f"no epochs are left of {some_names(capped)}, so this weight would have no effect; "
            "leave it out, or allow more epochs"
        )
    if only:
        return Mixture.of(named)
    now = {name: w for name, w in before.items() if name not in last.capped}
    return share_rest(named, now, "use --only")


def _no_cluster(unknown: Sequence[str], choices: Sequence[str], *, complete: bool) -> str:
    """Return the message for clusters that do not exist.

    ``complete`` says whether ``choices`` are all clusters of the shards, or only those in the log.
    """
    more = f"; a loader with weights_file={REQUEST} lets any be named"
    return (
        f"there is no cluster {some_names(unknown)} in the weights log; its clusters are "
        f"{some_names(choices, _NAMED)}{'' if complete else more}"
    )


def write_request(run: Path, change: WeightsUpdate, after: str) -> Path:
    """Write a request to the folder ``run``, and return the path of its file.

    A job that reads the file never sees half of it. ``after`` is as in `UpdateRequest`.

    Raises:
        UsageError: The run has ended, so it would never apply the change.
    """
    if has_ended(run):
        raise UsageError(
            f"the run in {run} has ended, so its weights cannot change any more; give a new run "
            "its weights with climb train --mixture FILE or --schedule FILE, and another --out"
        )
    path = run / REQUEST
    write_json(path, UpdateRequest(change, after).to_json())
    return path
