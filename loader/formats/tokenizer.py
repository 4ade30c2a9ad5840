"""Tokenizer: read the tokenizer of a shard directory, which turns text into tokens."""

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
    """Return the tokenizer in ``data``, the bytes of a ``tokenizer.json``.

    ``place`` is the path or URL of the file, for messages.

    Raises:
        InvalidDataError: ``data`` is no tokenizer.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only who reads text needs it

    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise InvalidDataError(f"{place} is no tokenizer: {error}") from None


def read_tokenizer(folder: str | Path | Store) -> "Tokenizer":
    """Read the tokenizer of the shard directory or grouping ``folder``, a path or URL.

    Raises:
        UsageError: There is no tokenizer, as after an import of tokens alone.
        InvalidDataError: The tokenizer cannot be read.
    """
    store = Store.of(folder)
    for place in (store, base_of(store)):
        with suppress(FileNotFoundError):
            return parse_tokenizer(place.read(TOKENIZER), str(place / TOKENIZER))
    raise no_tokenizer(folder)


def no_tokenizer(folder: object) -> UsageError:
    """Return an error that says that ``folder`` has no tokenizer, and the remedy."""
    return UsageError(
        f"{folder} has no {TOKENIZER}, so no text can be turned into its tokens, nor tokens into "
        "text; put the one that made them there, or import again with --tokenizer"
    )
