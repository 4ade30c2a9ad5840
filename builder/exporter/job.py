"""What is exported where, as all exports are told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An export of one shard directory to one folder."""

    directory: str
    """The shard directory, as a folder or URL."""
    out: Path
    """Folder for the files."""
    to: str
    """Layout of the files."""
    text: bool = False
    """Whether rows hold text in place of tokens."""
    workers: int | None = None
    """Processes, by default one a core."""
