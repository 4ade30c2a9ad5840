"""The tokenizer of a shard directory: what turns text into its tokens."""

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
    """Make a tokenizer from the bytes of a ``tokenizer.json``, which messages call ``place``.

    Raises:
        InvalidDataError: They are none.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only who reads text needs it

    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception
        raise InvalidDataError(f"{place} is no tokenizer: {error}") from None


def read_tokenizer(folder: str | Path | Store) -> "Tokenizer":
    """Read the ``tokenizer.json`` of ``folder``, a path or URL; of a grouping, that of its shards.

    Raises:
        UsageError: There is none, as after an import of tokens alone.
        InvalidDataError: It cannot be read.
    """
    store = Store.of(folder)
    for place in (store, base_of(store)):
        with suppress(FileNotFoundError):
            return parse_tokenizer(place.read(TOKENIZER), str(place / TOKENIZER))
    raise no_tokenizer(folder)


def no_tokenizer(folder: object) -> UsageError:
    """Return the error that ``folder`` has no tokenizer."""
    return UsageError(
        f"{folder} has no {TOKENIZER}, so no text can be turned into its tokens, nor tokens into "
        "text; put the one that made them there, or import again with --tokenizer"
    )
