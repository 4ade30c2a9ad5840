"""Stage and commit: how the files that an append has written get to their places.

An append writes each new index beside the old index, and other files to a folder in the working
folder. Writing the new manifest is the commit. After the commit, the files are moved to their
places. If the append is killed before all of them are moved, the next command moves the rest.
"""

from pathlib import Path

from climbstream.loader.core.files import hash_file
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.manifest import (
    INDEX,
    MANIFEST,
    NEXT_FILES,
    NEXT_INDEX,
    Manifest,
    cluster_folder,
)
from climbstream.loader.formats.outputs import BASE, WORK

from .workdir import is_work, remove_work


def finish_commit(out: Path) -> None:
    """Move the files of a build or an append of ``out`` that was killed after its commit."""
    work, plan = out / WORK, out / WORK / "plan.json"
    if not is_work(work) or not (out / MANIFEST).exists():
        return
    manifest = Manifest.load(out)
    if read_plan(plan).get(BASE) == manifest.build:
        return  # an append that is not committed yet
    for cluster in manifest.clusters:
        folder = cluster_folder(out, cluster.name)
        new = folder / NEXT_INDEX
        # An abandoned append leaves an index whose hash is not the one in the manifest.
        if new.exists() and hash_file(new) == cluster.index_hash:
            new.replace(folder / INDEX)
    for path in sorted((out / NEXT_FILES).glob("[!.]*")):
        path.replace(out / path.name)
    remove_work(work)
