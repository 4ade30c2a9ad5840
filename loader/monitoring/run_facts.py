"""RunFacts: facts of a run that do not change: its end, its limits on epochs, and cluster words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from climbstream.loader.audit.ledger import LEDGER
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import open_regular, read_json
from climbstream.loader.core.typed import parse_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.outputs import TRAIN

_LONGEST = 1 << 22
"""Number of bytes of a ledger's first line that are read; a longer line counts as missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts that do not change during a run; a fact that is unknown is None or empty."""

    tokens: int | None = None
    """Number of tokens after which the run ends; None: unknown."""
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    """Largest number of epochs, by name of the cluster; a cluster without a limit is left out."""
    words: Mapping[str, str] = field(default_factory=dict)
    """For each cluster, by name, a few words that distinguish it from the other clusters."""

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read the facts of the run in the folder ``run``; facts that cannot be read are unknown.

        The words are unknown if the shards are at a URL, because nothing is fetched.
        """
        # The ledger may be missing: a short run writes it only when the run ends.
        opening = _opening(run)
        shards, caps = opening.get("shards"), opening.get("max_epochs")
        return cls(
            tokens=_end(run),
            max_epochs={
                name: float(cap)
                for name, cap in (caps if isinstance(caps, dict) else {}).items()
                if isinstance(cap, int | float)
            },
            words=_words(shards) if isinstance(shards, str) else {},
        )


def _end(run: Path) -> int | None:
    """Return the number of tokens after which a run of ``climb train`` ends; None: unknown."""
    try:
        settings = read_json(run / TRAIN.plan)["settings"]
        tokens, row, rows = (settings[name] for name in ("tokens", "seq_len", "batch_rows"))
        return int(tokens // (row * rows) * row * rows)
    except (ClimbError, OSError, LookupError, TypeError, ValueError, ArithmeticError):
        return None


def _opening(run: Path) -> dict[str, Any]:
    """Return the first line of the ledger as JSON values; {} if there is none."""
    try:
        with open_regular(run / LEDGER) as file:
            line = parse_json(file.readline(_LONGEST), LEDGER)
    except (ClimbError, OSError):
        return {}
    return line if isinstance(line, dict) else {}


def _words(shards: str) -> dict[str, str]:
    """Return the words of each cluster in a local folder of shards; {} if they cannot be read."""
    if "://" in shards or not Path(shards).is_dir():
        return {}
    try:
        return {info.name: info.words for info in load_clusters(shards) if info.words}
    except (InvalidDataError, OSError):
        return {}
