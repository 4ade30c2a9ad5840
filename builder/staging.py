"""Stage and commit: files that an append has written and the manifest does not list yet.

New indices lie beside the old ones, other files in a folder of the work in progress. Writing the
manifest is the commit. After it, all files are moved to their places, by the next command if this
one was killed.
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
    """Finish a build or an append of ``out`` that was killed after its manifest was written."""
    work, plan = out / WORK, out / WORK / "plan.json"
    if not is_work(work) or not (out / MANIFEST).exists():
        return
    manifest = Manifest.load(out)
    if read_plan(plan).get(BASE) == manifest.build:
        return  # an append before its commit
    for cluster in manifest.clusters:
        folder = cluster_folder(out, cluster.name)
        new = folder / NEXT_INDEX
        # An append that was given up leaves an index with another hash.
        if new.exists() and hash_file(new) == cluster.index_hash:
            new.replace(folder / INDEX)
    for path in sorted((out / NEXT_FILES).glob("[!.]*")):
        path.replace(out / path.name)
    remove_work(work)
