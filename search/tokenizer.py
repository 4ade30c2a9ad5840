"""The tokenizer of a shard directory: what turns text into its tokens."""

from pathlib import Path

from tokenizers import Tokenizer

from climbstream.loader.errors import InvalidDataError, UsageError
from climbstream.loader.manifest import TOKENIZER
from climbstream.loader.store import Store


def read_tokenizer(directory: str | Path) -> Tokenizer:
    """Read the tokenizer of ``directory``, a folder or URL.

    Raises:
        UsageError: There is none, as after an import of tokens alone.
        InvalidDataError: It cannot be read.
    """
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
