"""Layouts of clustered corpora: find their files, and the columns or folders that name clusters.

NVIDIA's ClimbLab has one folder per cluster (``cluster_3/cluster_3_017.tokenized.parquet``).
ClimbMix has a column ``cluster_id``. Some mirrors have one configuration per cluster, in a folder
such as ``cluster_id=3/``.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from climbstream.builder.cluster_names import canonical, natural
from climbstream.builder.corpus.read_report import BadFile
from climbstream.builder.corpus.sources import Source, is_table, survey
from climbstream.builder.dataset_card import CARD, Card, read_beside
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.storage.hub import check_contact

logger = get_logger(__name__)

CLUSTER_COLUMNS = ("cluster_id", "cluster")
"""Default columns of the cluster: if the user names none, the first of these that exists is
used."""

_NO_ROWS = {
    "dataset_info.json",
    "dataset_infos.json",
    "export.json",
    "manifest.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
"""Files of a data set that have no rows, though their names end like names of files with rows."""
_NUMBERED = re.compile(r"cluster_([0-9]+)")
_TOP = "hf://datasets/OWNER/NAME"


@dataclass(frozen=True, slots=True)
class ClusteredFile:
    """A file of a clustered corpus."""

    source: Source
    cluster: str | None
    """Label of the cluster of all rows; None: a column names the cluster of each row."""

    @property
    def tokenized(self) -> bool:
        """Whether the file is named like NVIDIA's files of GPT-2 tokens."""
        return ".tokenized." in PurePosixPath(self.source.place).name


def find_files(
    names: Sequence[str], column: str | None = None, *, folders: bool = False
) -> list[ClusteredFile]:
    """Return the files that ``names`` stand for, in natural order of their names.

    Some of the files have no fingerprint yet; `hash_sources` adds it.

    Args:
        names: Files, folders, globs, URLs, ``hub:NAME`` or ``hub:NAME@CONFIG``.
        column: Column that names the cluster; a folder ``COLUMN=LABEL`` names the cluster of all
            files below it. None: one of `CLUSTER_COLUMNS`, or a folder ``cluster_NUMBER``.
        folders: Whether the name of a file's folder is the label of the cluster of all its rows.

    Raises:
        UsageError: A name matches no file of a known format, or all files have names that stand for
            metadata, such as ``manifest.json``.
    """
    found, left_out = survey([place for name in names for place in _places(name)])
    _tell_left_out(left_out)
    sources = [source for source in found if PurePosixPath(source.name).name not in _NO_ROWS]
    if not sources:
        raise UsageError(
            f"{', '.join(names)}: there are no files with rows; name files of parquet or jsonl"
        )
    files = [ClusteredFile(source, _of_folder(source, column, folders)) for source in sources]
    return sorted(files, key=lambda file: natural(file.source.name))


def _tell_left_out(files: Sequence[BadFile]) -> None:
    """Log how many files and folders are left out, by reason, with an example."""
    counts = Counter(bad.reason for bad in files)
    first = {bad.reason: bad.origin for bad in reversed(files)}
    for reason, count in counts.most_common():
        logger.info(f"left out {counted(count, 'file')}: {reason} ({first[reason]})")


def _places(name: str) -> list[str]:
    """Return the URLs of a data set's files if ``name`` is ``hub:NAME``; else ``name`` itself.

    ``hub:NAME@CONFIG`` stands for the files of a configuration on the card of the data set or, if
    the card has no such configuration, for a folder of the data set.
    """
    repository, _, config = name.removeprefix("hub:").partition("@")
    if name.startswith("hub:") and config:
        check_contact()
        top = f"hf://datasets/{repository}"
        card = Card.parse((read_beside(top, CARD) or b"").decode(errors="replace"), f"{top}/{CARD}")
        if config in card.configs:
            return [f"{top}/{pattern}" for pattern in card.configs[config]]
    return [_on_the_hub(name)]


def card_folders(name: str) -> list[str]:
    """Return the folders that may contain the card of the data set ``name``, the nearest first.

    >>> card_folders("hub:nvidia/lab"), card_folders("lab/cluster_3/*.parquet")
    (['hf://datasets/nvidia/lab'], ['lab/cluster_3', 'lab'])
    >>> card_folders("hub:nvidia/lab@some/rows")[1:]
    ['hf://datasets/nvidia/lab/some', 'hf://datasets/nvidia/lab']
    """
    place = _on_the_hub(name).rstrip("/")
    if wild := re.search(r"[*?\[]", place):
        place = place[: wild.start()].rpartition("/")[0]
    elif is_table(place):
        place = place.rpartition("/")[0]
    folders = [place or "."]
    while _lies_below_card(place):
        place = place.rpartition("/")[0]
        folders.append(place or ".")
    return folders


def _lies_below_card(place: str) -> bool:
    """Whether the card may be in the folder above ``place``.

    The card may be there if ``place`` is a cluster's folder, or a folder in a data set on the Hub.
    """
    last = PurePosixPath(place).name
    # On the Hub, the card and the tokenizer are in the top folder of a data set.
    below_top = place.startswith("hf://") and place.count("/") > _TOP.count("/")
    return below_top or "=" in last or _NUMBERED.fullmatch(last) is not None


def _on_the_hub(name: str) -> str:
    """Return the URL of the data set ``hub:NAME``; return any other ``name`` unchanged.

    With the URL, the folders of the data set can be listed, and they may name clusters. The library
    `datasets` does not show them.
    """
    if not name.startswith("hub:") or os.path.lexists(name):
        return name
    repository, _, config = name.removeprefix("hub:").partition("@")
    return f"hf://datasets/{repository}" + (f"/{config}" if config else "")


def _of_folder(source: Source, column: str | None, folders: bool) -> str | None:
    """Return the label in the name of the nearest folder above ``source`` that has one, or None."""
    above = PurePosixPath(source.name).parts[-2::-1]
    if folders:
        if not above:
            raise UsageError(
                f"{source.name} is in no folder that could name its cluster; name the column with "
                "--cluster"
            )
        return canonical(above[0])
    keys = CLUSTER_COLUMNS if column is None else (column,)
    for part in above:
        key, equals, value = part.partition("=")
        if equals and key in keys and value:
            return canonical(value)
        if column is None and (match := _NUMBERED.fullmatch(part)):
            return str(int(match[1]))
    return None
