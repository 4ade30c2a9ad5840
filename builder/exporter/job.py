"""ExportJob: what is exported, and to where; every format takes it."""

from dataclasses import dataclass
from pathlib import Path

from climbstream.loader.formats.directory import ShardDirectory


def done_file(out: Path, name: str) -> Path:
    """Return the file in ``out`` that says that an export is whole.

    Its ``name`` begins with a dot, so that nobody takes it for data; that of an early export lacks
    the dot.
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
    """Whether rows hold text in place of tokens."""
    workers: int | None = None
    """Processes, by default one per core."""
