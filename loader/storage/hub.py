"""Hub: data sets of the Hugging Face Hub by name, with retries.

The token comes from the environment (``HF_TOKEN``) or from the Hub's own login, nowhere else.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from climbstream.loader.core.errors import ClimbError, RemoteError, UsageError

from .contact import has_answered
from .retry import AnswerError, describe, is_refusal, status_of
from .service import PATIENCE, Service

T = TypeVar("T")
URL = "hf://datasets/"
_PLACE = "hf://datasets"
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
PLACE = re.compile(rf"hf://(?:datasets/)?({_REPO.pattern})(?:@([^/]+))?(/.*)?")
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What the Hub's client raises for an answer that it cannot read."""
_COMMIT = re.compile("[0-9a-f]{40}")
_XET = "/xet-"
"""What the address of a request for Xet storage contains. The Hub keeps large files there."""


def check_repo(repo: str) -> None:
    """Raise `UsageError` unless ``repo`` is the name of a data set, without a revision."""
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise UsageError(f"{repo!r} is not a data set of the Hub; write OWNER/NAME")


def hub_url(place: str) -> str:
    """Return the full URL of ``OWNER/NAME``, of ``OWNER/NAME@REVISION``, or of a shorter Hub URL.

    >>> hub_url("someone/web@v1"), hub_url("hf://someone/web")
    ('hf://datasets/someone/web@v1', 'hf://datasets/someone/web')

    Raises:
        UsageError: ``place`` is neither a name nor a URL of the Hub.
    """
    named = place.removeprefix(URL).removeprefix("hf://")
    repo, mark, revision = named.partition("@")
    check_repo(repo)
    if mark and not revision:
        raise UsageError(f"{place!r} ends where a revision should be named")
    return URL + named


def pin(place: str) -> str:
    """Return a URL of the Hub with its present commit as revision; return other places unchanged.

    Raises:
        RemoteError: The data set or the revision does not exist, or the Hub did not answer.
    """
    if not (match := PLACE.fullmatch(place)):
        return place
    repo, revision, below = match.groups()
    if not _COMMIT.fullmatch(revision or ""):
        revision = find_commit(repo, revision)
    return f"{URL}{repo}@{revision}{below or ''}"


def check_contact() -> None:
    """Check that the Hub can be reached, before calling a library that would retry for longer.

    No request is sent if the Hub has answered before, or if ``HF_HUB_OFFLINE`` allows only the
    cache.

    Raises:
        RemoteError: The Hub cannot be reached.
    """
    from huggingface_hub import constants, get_session  # an extra

    if not (constants.HF_HUB_OFFLINE or has_answered(_PLACE)):
        patiently("answer", lambda: get_session().head(constants.ENDPOINT))


@contextmanager
def cache_unless_reached() -> Iterator[None]:
    """Let the library `datasets` read only its cache if the Hub cannot be reached.

    Otherwise the library would repeat its requests for a long time.

    Raises:
        RemoteError: The Hub cannot be reached, and the block of the ``with`` raised an error.
    """
    from datasets import config  # an extra
    from huggingface_hub import constants  # an extra

    try:
        check_contact()
    except RemoteError as error:
        unreached = error
    else:
        yield
        return
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:  # the libraries raise errors of many types for data they lack
        raise unreached from error
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def find_commit(repo: str, revision: str | None, patience: float = PATIENCE) -> str:
    """Return the commit that ``revision`` names now; None stands for ``main``.

    Raises:
        RemoteError: There is no such revision, or the Hub did not answer in ``patience`` seconds.
    """
    from huggingface_hub import HfApi  # an extra

    def find() -> str:
        sha = HfApi().repo_info(repo, repo_type="dataset", revision=revision).sha
        if not isinstance(sha, str) or not _COMMIT.fullmatch(sha):
            raise ValueError(f"{sha!r} is no commit")
        return sha

    return patiently(f"find {revision or 'main'} of {repo}", find, patience)


def put_file(repo: str, name: str, data: bytes) -> str:
    """Upload one file to the data set ``repo``, which is created if needed; return the commit.

    Raises:
        RemoteError: The Hub refused, or did not answer.
    """
    from huggingface_hub import HfApi  # an extra

    check_repo(repo)
    api = HfApi()

    def put() -> Any:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        return api.upload_file(
            path_or_fileobj=data, path_in_repo=name, repo_id=repo, repo_type="dataset"
        )

    return str(patiently(f"put {name} into {repo}", put).oid)


def refuse_offline() -> None:
    """Raise `UsageError` if an environment variable forbids the Hub's client to use the network."""
    from huggingface_hub import constants  # an extra

    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            "the Hub is not asked, because HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set; unset "
            "it, or name a folder of this machine"
        )


def patiently(what: str, call: Callable[[], T], patience: float = PATIENCE, *, size: int = 0) -> T:
    """Return what ``call`` returns; repeat it while the Hub fails temporarily (`Service.ask`).

    Raises:
        RemoteError: The Hub refused, did not answer, or failed for ``patience`` seconds.
        UsageError: The Hub's client is told not to ask the Hub.
    """
    refuse_offline()
    return _HUB.ask(what, call, patience, size=size)


def _stumble(error: Exception) -> Exception | None:
    """Return the error of the Hub behind ``error``; None if the Hub did not cause it."""
    if isinstance(error, ClimbError):
        return None
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The HTTP library below the client has changed its name between its versions.
    http = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    # The library for Xet storage raises errors of Python itself.
    stumbles = (HfHubHTTPError, http.TransportError, ConnectionError, TimeoutError)
    if isinstance(error, stumbles):
        return error
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, stumbles):
        return error.__cause__  # so the client reports a failure of one of many files
    # The answer is no JSON, or lacks a field: the client does not check that.
    if isinstance(error, _MALFORMED) and not isinstance(error, HFValidationError):
        return AnswerError(f"the answer cannot be read, {describe(error)}", 0)
    return None


def _check_refusal(what: str, error: Exception, reason: str) -> None:
    """Raise `RemoteError` if the Hub refused, and would refuse another try for the same reason."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        raise RemoteError(f"the Hub refused to {what}: it has no such branch, tag or commit")
    if isinstance(error, ConnectionError) and "404" in reason and _XET in reason:
        raise RemoteError(
            f"the Hub, or a mirror in its place, has no Xet storage, so it could not {what}: "
            "set the environment variable HF_HUB_DISABLE_XET=1, and run the same command again"
        )
    if isinstance(error, RepositoryNotFoundError):
        reason = "it has no such data set, or it is private"
    status = status_of(error)
    if status in (401, 403, 404):
        raise RemoteError(
            f"the Hub refused to {what}: {reason}; check the name, and log in with `hf auth "
            "login`, or set HF_TOKEN to a token that may do so"
        )
    if is_refusal(status) and status != 412:  # Status 412: another commit was made in between
        raise RemoteError(f"the Hub refused to {what}: {reason}")


_HUB = Service(name="the Hub", place=_PLACE, stumble=_stumble, check_refusal=_check_refusal)
