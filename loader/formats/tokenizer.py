"""Tokenizer: read the tokenizer that is stored in a shard directory."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.storage.store import Store

from .grouping import base_of
from .manifest import TOKENIZER


def parse_tokenizer(data: bytes, place: str) -> "Tokenizer":
    """Return the tokenizer in ``data``, the content of a file ``tokenizer.json``.

    ``place`` is the path or URL of the file, for messages.

    Raises:
        InvalidDataError: ``data`` is no tokenizer.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only who reads text needs it

    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise InvalidDataError(f"{place} is not a tokenizer: {error}") from None


def read_tokenizer(folder: str | Path | Store) -> "Tokenizer":
    """Return the tokenizer of ``folder``: a shard directory or a grouping, by path or URL.

    Raises:
        UsageError: There is no tokenizer. For example, an import of tokens has none.
        InvalidDataError: The tokenizer cannot be read.
    """
    store = Store.of(folder)
    for place in (store, base_of(store)):
        with suppress(FileNotFoundError):
            return parse_tokenizer(place.read(TOKENIZER), str(place / TOKENIZER))
    raise no_tokenizer(folder)


def no_tokenizer(folder: object) -> UsageError:
    """Return the error for a ``folder`` without a tokenizer; its message says the remedy."""
    return UsageError(
        f"{folder} has no {TOKENIZER}, so no text can be turned into its tokens, nor tokens into "
        "text; put the one that made them there, or import again with --tokenizer"
    )
