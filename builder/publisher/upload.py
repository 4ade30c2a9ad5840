"""Upload files to a data set of the Hugging Face Hub: all of them in one commit, or none.

Files are first sent to a separate branch, some at a time. A file that is on the branch already,
with the same hash, is not sent again. So an upload that was killed continues where it stopped.

When the branch has all files, and the Hub states the same hashes for them as the local files have,
one commit brings all of them to ``main``. So ``main`` never has only a part of a publication. If
somebody else has changed ``main`` meanwhile, an error is raised instead.

If a publication has several data sets, the one with the manifest is the last. Its manifest names
the commits of the others, so a reader sees the new files of all data sets or of none.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from climbstream.builder.dataset_card import CARD, Card
from climbstream.loader.core.console import Progress, counted
from climbstream.loader.core.errors import (
    IntegrityError,
    InvalidDataError,
    RemoteError,
    UsageError,
)
from climbstream.loader.core.files import hash_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.licenses import UNKNOWN
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.storage.hub import check_repo, hub_url, patiently
from climbstream.loader.storage.retry import status_of
from climbstream.loader.storage.service import PATIENCE
from climbstream.loader.storage.store import Store

from .division import PART_OF, further_name
from .repo_files import Publication, check_limits, size_of

logger = get_logger(__name__)

T = TypeVar("T")
_BRANCH = "climbstream-"
"""Beginning of the name of the branch for an upload; a hash of the files follows."""
_STEP = (512, 1 << 28)
"""Maximum numbers of files and bytes that are sent before the progress is updated. The Hub is asked
about many files in one request."""
_THREADS = 8
"""Number of files that are sent at the same time."""
_COMMIT = (1000, 10 << 30)
"""Maximum numbers of files and bytes in a commit to the branch. The Hub allows few commits per
hour, and large commits are slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Result of a publication."""

    repo: str
    data_sets: tuple[str, ...]
    """Names of all data sets of the publication; the first is ``repo``."""
    url: str
    private: bool
    commit: str
    """Hash of the commit that ``main`` of ``repo`` now has."""
    files: int
    bytes: int
    sent: int
    """Number of files that were sent; the branch of the upload had all other files already."""
    tag: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


class Publisher:
    """Publishes files in a data set; logs in with HF_TOKEN or the token of `hf auth login`."""

    def __init__(self, repo: str, *, patience: float = PATIENCE) -> None:
        """Make a publisher for the data set ``repo``, ``OWNER/NAME``.

        Raises:
            UsageError: ``repo`` is no such name.
        """
        check_repo(repo)
        self.repo = repo
        self._api = HfApi()
        disable_progress_bars()  # climbstream shows its own
        self._patience = patience

    @property
    def url(self) -> str:
        """Address of the data set for a browser."""
        return f"{self._api.endpoint}/datasets/{self.repo}"

    def check_login(self) -> None:
        """Check that the Hub accepts the token, before anything is read or written.

        Raises:
            UsageError: There is no token.
            RemoteError: The Hub does not accept the token, or did not answer.
        """
        if get_token() is None:
            raise UsageError(
                "there is no token of the Hub: log in with `hf auth login`, or set HF_TOKEN to a "
                f"token that may write to {self.repo}"
            )
        try:
            patiently("check the token", self._api.whoami, self._patience)
        except RemoteError as error:
            # A mirror may not support this request; `publish` fails at once with a wrong token.
            if not isinstance(error.__context__, Exception) or status_of(error.__context__) != 404:
                raise

    def publish(
        self, publication: Publication, *, private: bool = False, tag: str | None = None
    ) -> Published:
        """Make ``publication`` the content of ``main``, and return its commit and counts.

        Before anything is sent, the number of files is checked against the limits of the Hub.
        Further data sets are published first, each in the same way.

        Args:
            publication: The files, and the folders that they fill.
            private: Whether a data set that does not exist yet is private. Further data sets are
                also private if the first data set is.
            tag: Tag to set on the commit of the first data set.

        Raises:
            RemoteError: The Hub refused, or did not answer in time; or somebody else changed
                ``main`` meanwhile. The same call continues the upload.
            UsageError: There are more files than the Hub accepts. Or ``private`` is true, and the
                data set exists and is public. Or the tag exists on a commit
                with other files. Or the data set has folders of another form, which the card would
                not describe. Or a further data set exists already, and belongs to another
                publication.
            IntegrityError: The Hub has other bytes than were sent.
        """
        for files in publication.each:
            check_limits(files)
        self._create(private=private)
        is_private = self._is_private()
        if private and not is_private:
            raise UsageError(
                f"{self.url} exists, and is public, so --private does not apply; make the data set "
                "private in its settings on the Hub, or publish under another name"
            )
        logger.info(f"{self.url} is a {'private' if is_private else 'public'} data set")
        done: list[Published] = []
        if publication.further:
            self._check_folders(self._list("main"), publication.others)
            for number, files in enumerate(publication.further, start=1):
                publisher = Publisher(further_name(self.repo, number), patience=self._patience)
                publisher._create(private=is_private)
                publisher._check_own(files[PART_OF])
                part = replace(publication, files=files, folders=("clusters",), further=())
                done.append(publisher._publish(part, None, private=is_private))
            publication = publication.with_commits(self.repo, [part.commit for part in done])
        first = self._publish(publication, tag, private=is_private)
        return replace(
            first,
            data_sets=(first.repo, *(part.repo for part in done)),
            files=first.files + sum(part.files for part in done),
            bytes=first.bytes + sum(part.bytes for part in done),
            sent=first.sent + sum(part.sent for part in done),
        )

    def _create(self, *, private: bool) -> None:
        """Create the data set, if it does not exist."""
        self._try(
            "make the data set",
            lambda: self._api.create_repo(
                self.repo, repo_type="dataset", private=private, exist_ok=True
            ),
        )

    def _is_private(self) -> bool:
        info = self._try("find main", lambda: self._api.repo_info(self.repo, repo_type="dataset"))
        return bool(info.private)

    def _check_own(self, part_of: Path | bytes) -> None:
        """Raise `UsageError` if the data set has files, and its `PART_OF` is not ``part_of``."""
        remote = self._list("main")
        if remote.keys() - {".gitattributes"} and _missing({PART_OF: _hashes(part_of)}, remote):
            raise UsageError(
                f"the shards need a further data set {self.repo}, but a data set of this name has "
                "other files; rename that data set, or publish under another name"
            )

    def _publish(self, publication: Publication, tag: str | None, *, private: bool) -> Published:
        """Publish ``publication.files`` in this data set, which must exist."""
        files = publication.files
        hashes = _hash_all(files)
        tags = {} if tag is None else self._refs("tags")
        head = self._head("main")
        remote = self._list("main")
        self._check_folders(remote, publication.others)
        stale = [
            path
            for path in remote
            if path not in files and path.partition("/")[0] in publication.folders
        ]
        missing = _missing(hashes, remote)
        changes = bool(stale or missing)
        if tag in tags and (tags[tag] != head or changes):
            raise UsageError(
                f"the tag {tag} of {self.repo} is set on commit {tags[tag][:12]}, which has other "
                "files; choose another tag, because a tag is never moved"
            )
        branch = _BRANCH + hash_json(sorted(hashes.items()))[:12]
        sent = 0
        if changes:
            if CARD in missing and CARD in remote:
                self._tell_licenses(files[CARD])
            sent = self._stage_unless_there(branch, files, hashes)
            self._commit(head, {path: files[path] for path in missing}, hashes, stale)
        else:
            logger.info(f"{self.repo} has all of these files already")
        self._tidy(branch)
        commit = self._head("main")
        if tag is not None:
            self._set_tag(tag, commit)
        return Published(
            repo=self.repo,
            data_sets=(self.repo,),
            url=self.url,
            private=private,
            commit=commit,
            files=len(files),
            bytes=sum(map(size_of, files.values())),
            sent=sent,
            tag=tag,
        )

    def _tell_licenses(self, card: Path | bytes) -> None:
        """Log a warning if the present card of the data set names other licences than ``card``."""
        present = Store.of(hub_url(self.repo)).read(CARD)
        new = card if isinstance(card, bytes) else card.read_bytes()
        before = after = ""
        with suppress(InvalidDataError):  # a card that cannot be read states no licence
            before, after = (
                ", ".join(Card.parse(data.decode(errors="replace"), CARD).licenses)
                for data in (present, new)
            )
        if before and before != after:
            logger.warning(
                f"the card of {self.url} states the licence {before}; the new card states "
                f"{after or UNKNOWN}"
            )

    def _check_folders(self, remote: Collection[str], others: Collection[str]) -> None:
        """Raise `UsageError` if the data set has one of the folders ``others``."""
        if left := sorted({path.partition("/")[0] for path in remote} & {*others}):
            raise UsageError(
                f"{self.repo} also has {some_names([f'{name}/' for name in left])}, which the new "
                "card would not describe; publish those as well (--what all), or publish to "
                "another data set"
            )

    def _set_tag(self, tag: str, commit: str) -> None:
        self._try(
            f"set the tag {tag}",
            lambda: self._api.create_tag(
                self.repo, tag=tag, revision=commit, repo_type="dataset", exist_ok=True
            ),
        )

    def _stage_unless_there(
        self, branch: str, files: Mapping[str, Path | bytes], hashes: Mapping[str, Any]
    ) -> int:
        """Do `_stage`; return 0 if another process finishes the same publication meanwhile.

        Both processes use the same branch, and the process that ends first removes it.
        """
        try:
            return self._stage(branch, files, hashes)
        except RemoteError as error:
            gone = isinstance(error.__context__, RevisionNotFoundError)
            if not gone or _missing(hashes, self._list("main")):
                raise
            return 0

    def _stage(
        self, branch: str, files: Mapping[str, Path | bytes], hashes: Mapping[str, Any]
    ) -> int:
        """Send the files that ``branch`` lacks; check all its files; return how many were sent."""
        logger.info(
            f"files go to the branch {branch}, which stays there if this command is stopped; the "
            "same command continues, and removes the branch at the end"
        )
        self._try(
            "make a branch",
            lambda: self._api.create_branch(
                self.repo, branch=branch, repo_type="dataset", exist_ok=True
            ),
        )
        missing = _missing(hashes, self._list(branch))
        sizes = {path: size_of(files[path]) for path in files}
        done = sum(sizes.values()) - sum(sizes[path] for path in missing)
        with Progress("publish", sum(sizes.values()), "bytes", done) as progress:
            for part in _parts(missing, sizes, _COMMIT):
                additions = {path: _add(path, files[path]) for path in part}
                for some in _parts(part, sizes, _STEP):
                    size = sum(sizes[path] for path in some)
                    self._send([additions[path] for path in some], branch, size)
                    progress.add(size)
                self._try(
                    f"commit {part[0]} and what follows it",
                    partial(
                        self._api.create_commit,
                        self.repo,
                        list(additions.values()),
                        commit_message=f"sending {counted(len(part), 'file')}",
                        repo_type="dataset",
                        revision=branch,
                    ),
                )
        if wrong := _missing(hashes, self._list(branch)):
            raise IntegrityError(
                f"in {self.repo}, {len(wrong)} of {counted(len(files), 'file')} have other bytes "
                f"than were sent (the first: {wrong[0]}); run the same command again"
            )
        return len(missing)

    def _send(self, additions: Sequence[CommitOperationAdd], branch: str, size: int) -> None:
        """Send the content of those large files in ``additions`` that the Hub lacks.

        Small files are sent with the commit. ``size`` is the number of bytes of ``additions``.
        """
        self._try(
            f"send {additions[0].path_in_repo} and what follows it",
            lambda: self._api.preupload_lfs_files(
                self.repo,
                additions,
                repo_type="dataset",
                revision=branch,
                num_threads=_THREADS,
            ),
            size,
        )

    def _commit(
        self,
        head: str,
        missing: Mapping[str, Path | bytes],
        hashes: Mapping[str, Any],
        stale: Sequence[str],
    ) -> None:
        """Commit the files ``missing`` to ``main``; the same commit deletes the files ``stale``.

        ``head`` is the commit that ``main`` must still have, and that lacks the files; otherwise an
        error is raised.
        """
        operations: list[Any] = [_add(path, content) for path, content in missing.items()]
        operations += [CommitOperationDelete(path_in_repo=path) for path in stale]

        def commit() -> None:
            if (now := self._head("main")) == head:
                self._api.create_commit(
                    self.repo,
                    operations,
                    commit_message=f"{counted(len(hashes), 'file')} of climbstream",
                    repo_type="dataset",
                    revision="main",
                    parent_commit=head,
                    num_threads=_THREADS,
                )
                return
            remote = self._list("main")
            if _missing(hashes, remote) or {*stale} & remote.keys():
                raise RemoteError(
                    f"somebody else changed {self.repo} during this publication: main was at "
                    f"{head[:12]} and is at {now[:12]}; nothing was overwritten. Look at that "
                    "change, and publish again"
                )
            # An earlier try made the commit, and its answer was lost.

        self._try("make the commit", commit)

    def _list(self, revision: str) -> dict[str, tuple[int, str]]:
        """Return size and hash of each file of ``revision``: sha256 (LFS), or git's hash."""

        def tree() -> dict[str, tuple[int, str]]:
            entries = self._api.list_repo_tree(
                self.repo, repo_type="dataset", revision=revision, recursive=True
            )
            return {
                entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
                for entry in entries
                if isinstance(entry, RepoFile)
            }

        return self._try(f"list {revision}", tree)

    def _tidy(self, branch: str) -> None:
        """Delete ``branch``; log which branches of other, unfinished publications exist."""
        left = [name for name in self._refs("branches") if name.startswith(_BRANCH)]
        if branch in left:

            def remove() -> None:
                with suppress(RevisionNotFoundError):  # deleted by a try whose answer was lost
                    self._api.delete_branch(self.repo, branch=branch, repo_type="dataset")

            self._try("remove the branch that it came by", remove)
            left.remove(branch)
        if left:
            logger.warning(
                f"{self.repo} has {counted(len(left), 'branch', 'branches')} of unfinished "
                f"publications: {some_names(left)}; remove what nobody needs with `hf repos branch "
                f"delete {self.repo} BRANCH --type dataset`"
            )

    def _refs(self, kind: Literal["branches", "tags"]) -> dict[str, str]:
        """Return the commit of each branch or tag, by name."""
        refs = self._try(
            f"list the {kind}", lambda: self._api.list_repo_refs(self.repo, repo_type="dataset")
        )
        listed = refs.branches if kind == "branches" else refs.tags
        return {ref.name: ref.target_commit for ref in listed}

    def _head(self, revision: str) -> str:
        info = self._try(
            f"find {revision}",
            lambda: self._api.repo_info(self.repo, repo_type="dataset", revision=revision),
        )
        return str(info.sha)

    def _try(self, what: str, call: Callable[[], T], size: int = 0) -> T:
        return patiently(f"{what} of {self.repo}", call, self._patience, size=size)


def _add(path: str, content: Path | bytes) -> CommitOperationAdd:
    source = content if isinstance(content, bytes) else str(content)
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)


def _hash_all(files: Mapping[str, Path | bytes]) -> dict[str, tuple[int, str, str]]:
    """Return the `_hashes` of each file, by path."""
    hashes = {}
    with Progress("hash", sum(map(size_of, files.values())), "bytes") as progress:
        for path, content in files.items():
            hashes[path] = _hashes(content)
            progress.add(hashes[path][0])
    return hashes


def _hashes(content: Path | bytes) -> tuple[int, str, str]:
    """Return size in bytes, sha256 and git's hash of the content of a file."""
    size = size_of(content)
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(content, bytes):
        sha256.update(content)
        git.update(content)
    else:
        with content.open("rb") as file:
            while data := file.read(1 << 20):
                sha256.update(data)
                git.update(data)
    return size, sha256.hexdigest(), git.hexdigest()


def _missing(hashes: Mapping[str, Any], remote: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return the files that ``remote`` lacks, or has with another size or another hash.

    The Hub states either the sha256 or git's hash of a file; ``hashes`` has both for each file.
    """
    return [
        path
        for path, (size, *both) in hashes.items()
        if path not in remote or remote[path][0] != size or remote[path][1] not in both
    ]


def _parts(
    paths: Sequence[str], sizes: Mapping[str, int], most: tuple[int, int]
) -> list[list[str]]:
    """Cut ``paths`` into parts of at most ``most`` files and bytes; a larger file is alone."""
    parts: list[list[str]] = []
    room = 0
    for path in paths:
        if not parts or len(parts[-1]) == most[0] or sizes[path] > room:
            parts.append([])
            room = most[1]
        parts[-1].append(path)
        room -= sizes[path]
    return parts
