"""ExportJob: what is exported, in which layout, and to which folder."""

from dataclasses import dataclass
from pathlib import Path

from climbstream.loader.formats.directory import ShardDirectory


def done_file(out: Path, name: str) -> Path:
    """Return the file in ``out`` that exists if the export is complete.

    The ``name`` of the file begins with a dot, so that nobody takes it for data. An early version
    wrote it without the dot; such a file is returned if it is the only one.
    """
    early = out / name.removeprefix(".")
    return early if early.exists() and not (out / name).exists() else out / name


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An export of one shard directory to one folder."""

    shards: ShardDirectory
    out: Path
    """Folder for the files."""
    to: str
    """Layout of the files."""
    text: bool = False
    """Whether rows contain text instead of tokens."""
    workers: int | None = None
    """Number of processes; None: one per core."""
