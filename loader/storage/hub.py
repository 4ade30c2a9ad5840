"""Hub: data sets of the Hugging Face Hub by name, and patience with it.

Who may read or write says the environment (``HF_TOKEN``) or the Hub's own login, nothing else.
"""

import importlib
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from climbstream.loader.core.console import say
from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import RemoteError, UsageError
from climbstream.loader.core.waits import wait_for

from .retry import is_refusal, pause_after, status_of

T = TypeVar("T")
URL = "hf://datasets/"
PATIENCE = 300.0
"""Seconds for which a step is tried again."""
_SLOWEST = 100_000.0
"""Bytes that a connection moves a second, at least."""
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_PLACE = re.compile(rf"hf://(?:datasets/)?({_REPO.pattern})(?:@([^/]+))?(/.*)?")
_COMMIT = re.compile("[0-9a-f]{40}")


def check_repo(repo: str) -> None:
    """Raise `UsageError` unless ``repo`` is the name of a data set, without a revision."""
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise UsageError(f"{repo!r} is no data set of the Hub; say OWNER/NAME")


def hub_url(place: str) -> str:
    """Return the URL of ``OWNER/NAME`` or ``OWNER/NAME@REVISION``, also if it is one already.

    >>> hub_url("someone/web@v1"), hub_url("hf://someone/web")
    ('hf://datasets/someone/web@v1', 'hf://datasets/someone/web')

    Raises:
        UsageError: It is nothing of that.
    """
    named = place.removeprefix(URL).removeprefix("hf://")
    repo, mark, revision = named.partition("@")
    check_repo(repo)
    if mark and not revision:
        raise UsageError(f"{place!r} ends where a revision should be named")
    return URL + named


def pin(place: str) -> str:
    """Return a URL of the Hub with the commit that is now meant; any other place as it is.

    Raises:
        RemoteError: There is no such data set or revision, or the Hub did not say.
    """
    if not (found := _PLACE.fullmatch(place)):
        return place
    repo, revision, below = found.groups()
    if not _COMMIT.fullmatch(revision or ""):
        revision = find_commit(repo, revision)
    return f"{URL}{repo}@{revision}{below or ''}"


def find_commit(repo: str, revision: str | None) -> str:
    """Return the commit that ``revision``, by default ``main``, is now.

    Raises:
        RemoteError: There is none, or the Hub did not say.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - an extra

    info = patiently(
        f"find {revision or 'main'} of {repo}",
        lambda: HfApi().repo_info(repo, repo_type="dataset", revision=revision),
    )
    return str(info.sha)


def put_file(repo: str, name: str, data: bytes) -> str:
    """Put one file into the data set ``repo``, which is made if need be; return the commit.

    Raises:
        RemoteError: The Hub refused, or did not answer.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - an extra

    check_repo(repo)
    api = HfApi()

    def put() -> Any:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        return api.upload_file(
            path_or_fileobj=data, path_in_repo=name, repo_id=repo, repo_type="dataset"
        )

    return str(patiently(f"put {name} into {repo}", put).oid)


def patiently(what: str, call: Callable[[], T], patience: float = PATIENCE, *, size: int = 0) -> T:
    """Return what ``call`` returns; call it again while the Hub stumbles, so it may be done twice.

    A call that moves ``size`` bytes may take as long as they need at 100 kB/s beside the
    `task_timeout`; what takes over 60 s is told of.

    Raises:
        RemoteError: The Hub refused, went on stumbling for ``patience`` seconds, or did not answer.
    """
    tries = Tries(what, patience)
    limit = task_timeout() + size / _SLOWEST
    while True:
        try:
            return wait_for(call, f"the Hub to {what}", limit)
        except stumbles() as error:
            tries.wait(error)
        except RuntimeError as error:  # as the client says what befell one of many files
            if not isinstance(error.__cause__, stumbles()):
                raise
            tries.wait(error.__cause__)


def stumbles() -> tuple[type[Exception], ...]:
    """Errors of the Hub's client that say something of the Hub."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - an extra

    # The HTTP library below the client has changed its name between its versions.
    http = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    return HfHubHTTPError, http.TransportError


class Tries:
    """Counts the tries of one step, and waits between them, as long as the Hub asks for."""

    def __init__(self, what: str, patience: float = PATIENCE) -> None:
        self._what, self._patience = what, patience
        self._begin, self._count = time.monotonic(), 0

    def wait(self, error: Exception) -> None:
        """Wait after ``error``.

        Raises:
            RemoteError: Another try would not help, or there is no time for it.
        """
        self._count += 1
        status, waited = status_of(error), time.monotonic() - self._begin
        said = " ".join(str(error).split())[:300]
        if status in (401, 403, 404):
            raise RemoteError(
                f"the Hub refused to {self._what}: {said}; see that the name is right, and log in "
                "with `hf auth login`, or set HF_TOKEN to a token that may do so"
            ) from None
        if is_refusal(status) and status != 412:  # somebody else's commit came in between
            raise RemoteError(f"the Hub refused to {self._what}: {said}") from None
        pause = pause_after(self._count, error)
        if waited + pause > self._patience:
            raise RemoteError(
                f"the Hub did not {self._what} in {waited:.1f} s: try {self._count} ended with "
                f"{said}; run the same command again later, it goes on where it was"
            ) from None
        say(f"{self._what}: {said}; again in {pause:.1f} s")
        time.sleep(pause)
