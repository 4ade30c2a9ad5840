"""ExportJob: what is exported, and to where; every format takes it."""

from dataclasses import dataclass
from pathlib import Path

from climbstream.loader.formats.directory import ShardDirectory


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
    """Processes, by default one a core."""
