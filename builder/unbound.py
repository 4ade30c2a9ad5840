"""Unbound work: work of a dry run or a failed build; a build with other settings may replace it.

Work in an output folder is unbound if it is from dry runs, or from a build that ended with an error
in data or settings before shards were written. A later build with other settings keeps the
documents and arrays in the folder that are valid with its settings.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from climbstream.builder.corpus.partition import ArrayName, Partition
from climbstream.builder.corpus.sample import SAMPLE
from climbstream.loader.core.files import write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.manifest import CONTAMINATION
from climbstream.loader.formats.outputs import WORK

from .settings import first_change
from .workdir import UNBOUND, remove_work, what_differs

logger = get_logger(__name__)

EXCHANGE = "exchange"
"""Folder of the files that tasks exchange to find duplicates."""
MODEL = "model.npz"
_FITTED: tuple[ArrayName, ...] = ("scores", "text_hashes", "signatures", "micro", "alike", "device")
"""Arrays of a partition that depend on the embedding, or that are written together with such
arrays."""
_DECIDED: tuple[ArrayName, ...] = (
    "why",
    "first",
    "original",
    "copies",
    "clusters",
    "contaminated",
)
"""Arrays of a partition that depend on which documents stay, or on the tasks to decontaminate."""


def change_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Replace the plan in ``out`` by ``plan`` if the work is unbound.

    Files that are not valid with ``plan`` are removed.
    """
    work = out / WORK
    if not (work / UNBOUND).exists() or not (work / "plan.json").exists():
        return
    before = read_plan(work / "plan.json")
    if before == plan:
        return
    if "builder" not in before:  # an import that failed
        remove_work(work)
        return
    change = first_change(before, plan)
    for name in (EXCHANGE, SAMPLE):
        shutil.rmtree(work / name, ignore_errors=True)
    units = [folder for folder in (work / "units").glob("*") if folder.is_dir()]
    if change == "what is read":
        for path in sorted((work / "units").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    for folder in units:
        Partition(folder).remove(
            *_DECIDED, *(_FITTED if change == "the embedding and the centroids" else ())
        )
    if change in ("what is read", "the embedding and the centroids"):
        (out / MODEL).unlink(missing_ok=True)
    (out / CONTAMINATION).unlink(missing_ok=True)
    write_json(work / "plan.json", dict(plan))
    if change:
        logger.info(
            f"the earlier work in {out} had {what_differs(before, plan)}: {change} and all later "
            "stages are done again"
        )
