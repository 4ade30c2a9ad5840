"""Make a shard directory in a scratch folder; then send it to a bucket, the manifest last.

The plan of the work (its settings, and the fingerprints of its sources) is written to the bucket
first. It stays there until the manifest is in the bucket. So a build with other settings, on any
machine, finds the plan and is refused before it begins. A bucket that cannot be written to is also
noticed before the work begins. A plan that exists is never overwritten.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from climbstream.builder.workdir import UNBOUND
from climbstream.loader.core.errors import InvalidDataError, LockedError, RemoteError, UsageError
from climbstream.loader.core.files import default_cache, hash_bytes, json_bytes, lock
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import parse_json
from climbstream.loader.core.workdir import begin_or_resume, check_same_config
from climbstream.loader.formats.manifest import MANIFEST, Manifest
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import WORK
from climbstream.loader.storage.bucket import Bucket
from climbstream.loader.storage.store import Store

from .upload import CLAIM, Upload

logger = get_logger(__name__)

Effect: TypeAlias = Callable[[Any, Any], str]
"""``effect(old, new)`` returns the end of an error message, which says what would change if plan
``old`` became ``new``."""
_NOTE = "scratch.json"
"""File in a scratch folder with the URL for which the folder is used."""


@contextmanager
def open_bucket(url: str, scratch: Path | None) -> Iterator["BucketDestination"]:
    """Yield the destination ``url``; its files are first made in a folder below ``scratch``.

    Without ``scratch``, this folder is in the cache. The folder is removed if an error occurs
    before work is begun in it.

    Raises:
        ClimbError: As in `open_destination`.
    """
    bucket = Bucket(url)
    there = bucket.list()
    if there and MANIFEST not in there and CLAIM not in there:
        raise InvalidDataError(
            f"{bucket} contains {some_names(sorted(there))}, but neither {MANIFEST} nor {CLAIM}, "
            "so climb did not write it; name a new URL"
        )
    place = (scratch or default_cache() / "scratch").resolve() / hash_bytes(bucket.url.encode())
    with lock(place):
        begin_or_resume(place, _NOTE, {"scratch": 1, "url": bucket.url})
        destination = BucketDestination(bucket, place, finished=MANIFEST in there)
        if destination.finished_at() is None:
            logger.info(f"the files of {bucket} are first written to {destination.folder}")
        try:
            yield destination
        except BaseException:
            destination.give_back()
            raise


class BucketDestination:
    """A shard directory at a URL of S3, and the scratch folder in which it is made."""

    def __init__(self, bucket: Bucket, place: Path, *, finished: bool) -> None:
        self._bucket, self._place = bucket, place
        self._finished, self._claimed = finished, False
        self.folder = place / "shards"

    def finished_at(self) -> str | Path | None:
        """Return the URL or the scratch folder, whichever has a manifest; None if none has."""
        if self._finished:
            return self._bucket.url
        return self.folder if (self.folder / MANIFEST).exists() else None

    def claim(self, plan: Mapping[str, Any], effect: Effect) -> None:
        """Write ``plan`` to the bucket; if a plan is there, check that it is equal to ``plan``."""
        data = json_bytes(plan)
        digest = hash_bytes(data)
        if self._bucket.put(CLAIM, data, digest):
            self._claimed = True
            if self._bucket.put(CLAIM, data, digest):
                raise UsageError(
                    f"the store of {self._bucket} ignores If-None-Match: *, so two builds could "
                    "overwrite each other; build in a folder, and copy the folder to the store"
                )
        else:
            old, url = self._read_claim(), self._bucket.url
            remedy = (
                f"name another URL; to discard the unfinished work, remove all objects at {url}"
            )
            check_same_config(old, plan, url, effect(old, plan), remedy)

    def finish(self) -> Manifest:
        """Send missing files, the manifest last; then remove the plan and the scratch folder.

        Returns the manifest.
        """
        if not self._finished:
            Upload(self._bucket, self.folder).send()
        manifest = Manifest.load(self._bucket.url)
        self._remove_claim()
        self._remove_scratch()
        return manifest

    def give_back(self) -> None:
        """Remove, after an error, what would keep other work out.

        The plan is removed from the bucket if this command wrote it, and either no work was begun
        or the work accepts other settings (see `unbound`). The scratch folder is removed unless
        work was begun in it.
        """
        work = self.folder / WORK
        begun = (work / "plan.json", self.folder / MANIFEST)
        has_work = any(path.exists() for path in begun)
        if self._claimed and (not has_work or (work / UNBOUND).exists()):
            self._remove_claim()
        if not has_work:
            self._remove_scratch()

    def _read_claim(self) -> dict[str, Any]:
        """Return the plan that is in the bucket."""
        store = Store.of(self._bucket.url)
        try:
            data = store.read(CLAIM)
        except FileNotFoundError:
            raise LockedError(
                f"another build for {self._bucket} has just ended; run the same command again"
            ) from None
        plan = parse_json(data, str(store / CLAIM))
        if not isinstance(plan, dict):
            raise InvalidDataError(f"climb did not write {store / CLAIM}; name a new URL")
        return plan

    def _remove_claim(self) -> None:
        """Remove the plan from the bucket; if climbstream did not write it, log that it stays."""
        try:
            if (stored := self._bucket.find(CLAIM)) is None:
                return
            if stored.digest is not None:
                self._bucket.remove(CLAIM)
                return
            reason = "it was not written by climbstream"
        except RemoteError as error:
            reason = str(error)
        logger.warning(f"{self._bucket}/{CLAIM} could not be removed, which does no harm: {reason}")

    def _remove_scratch(self) -> None:
        """Remove what was made in the scratch folder; if it has other files, log that they stay."""
        removed = self._place / "removed"
        shutil.rmtree(removed, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(removed)  # after a kill, a half-removed folder is not used
            shutil.rmtree(removed, ignore_errors=True)
        (self._place / _NOTE).unlink(missing_ok=True)
        if others := sorted(path.name for path in self._place.iterdir()):
            logger.warning(
                f"{self._place} is not removed, because it contains {some_names(others)}"
            )
            return
        self._place.rmdir()
