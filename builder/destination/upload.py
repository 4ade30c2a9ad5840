"""Upload the files of a finished shard directory to a bucket, the manifest last.

Because the manifest is last, a reader of the bucket finds no shard directory until the upload ends,
and a complete one after that. An object that is already in the bucket is compared with its file,
and never replaced.
"""

from collections.abc import Mapping
from pathlib import Path

from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.core.files import hash_file
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.threads import in_threads
from climbstream.loader.formats.listing import list_files
from climbstream.loader.formats.manifest import MANIFEST, Manifest
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import WORK
from climbstream.loader.storage.bucket import Bucket, Stored

logger = get_logger(__name__)

CLAIM = f"{WORK}/plan.json"
"""Name of the object with the plan of the work; it exists until the manifest is in the bucket."""
_THREADS = 16


class Upload:
    """The upload of a finished shard directory to a bucket."""

    def __init__(self, bucket: Bucket, directory: Path) -> None:
        self._bucket, self._directory = bucket, directory
        self._hashes = list_files(directory, Manifest.load(directory))
        self._sizes = {name: (directory / name).stat().st_size for name in self._hashes}

    def send(self) -> None:
        """Send the files that the bucket lacks, and then the manifest.

        Raises:
            InvalidDataError: Other objects are at the URL; the message names some of them.
            IntegrityError: The hash of a file differs from its hash in the manifest, or the size of
                an object differs from the size of its file.
            RemoteError: S3 refused, or failed.
        """
        found = self._bucket.list()
        if others := sorted(found.keys() - self._hashes.keys() - {CLAIM}):
            raise InvalidDataError(
                f"{self._bucket} contains {some_names(others)}, which does not belong to this "
                f"directory; remove it, or name a new URL. {self._directory} keeps the finished "
                "files"
            )
        names = [name for name in self._hashes if name != MANIFEST]
        there = [name for name in names if name in found]
        missing = [name for name in names if name not in found]
        if there:
            with Progress("compare", len(there), "files") as progress:
                for _ in in_threads(self._compare, there, _THREADS):
                    progress.add(1)
            logger.info(
                f"{self._bucket}: {len(there)} of {len(self._hashes)} files are already there"
            )
        size, done = sum(self._sizes.values()), sum(self._sizes[name] for name in there)
        with Progress("upload", size, "bytes", done) as progress:
            for name in in_threads(self._send, missing, _THREADS):
                progress.add(self._sizes[name])
            self._check_sizes(self._bucket.list())
            progress.add(self._sizes[self._send(MANIFEST)])
        sent = len(missing) + (MANIFEST not in found)
        logger.info(f"{self._bucket}: {len(self._hashes)} files, {size:,} bytes; sent now: {sent}")

    def _send(self, name: str) -> str:
        """Send the file ``name``, unless the bucket has the same file by now; return ``name``."""
        path = self._directory / name
        if not self._bucket.put(name, path, self._digest(name)):
            self._compare(name)
        return name

    def _compare(self, name: str) -> str:
        """Check that the object ``name`` has the bytes of the file ``name``; return ``name``."""
        stored = self._bucket.find(name)
        if stored != Stored(self._sizes[name], self._digest(name)):
            raise InvalidDataError(
                f"{self._bucket}/{name} exists, and differs from {self._directory / name}; it is "
                "not replaced. Remove it and run the same command again, or name a new URL"
            )
        return name

    def _digest(self, name: str) -> str:
        """Return the hash of the file ``name``; check that the manifest has the same hash."""
        expected, got = self._hashes[name], hash_file(self._directory / name)
        if expected not in (None, got):
            raise IntegrityError(
                f"{self._directory / name}: expected hash {expected}, got {got}; remove "
                f"{self._directory}, and run the same command again"
            )
        return got

    def _check_sizes(self, found: Mapping[str, int]) -> None:
        """Check that the bucket has all files except the manifest, each with the right size."""
        wrong = [
            name
            for name, size in self._sizes.items()
            if name != MANIFEST and found.get(name) != size
        ]
        if wrong:
            raise IntegrityError(
                f"in {self._bucket}, {len(wrong)} of {len(self._sizes)} files are missing or have "
                f"a wrong size, {wrong[0]} among them; run the same command again"
            )
