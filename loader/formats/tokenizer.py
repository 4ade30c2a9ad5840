"""The tokenizer of a shard directory: what turns text into its tokens."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.storage.store import Store

from .manifest import TOKENIZER


def read_tokenizer(directory: str | Path) -> "Tokenizer":
    """Read the tokenizer of ``directory``, a folder or URL.

    Raises:
        UsageError: There is none, as after an import of tokens alone.
        InvalidDataError: It cannot be read.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only who reads text needs it

    try:
        data = Store.of(directory).read(TOKENIZER)
    except FileNotFoundError:
        raise UsageError(
            f"{directory} has no {TOKENIZER}, so no text can be turned into its tokens; put the "
            "one that made them there, or import again with --tokenizer"
        ) from None
    try:
        return Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises nothing more special
        raise InvalidDataError(f"{directory}/{TOKENIZER} is no tokenizer: {error}") from None
