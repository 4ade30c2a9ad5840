"""Find the token that ends each document: by the user's choice, or by the tokenizer's files.

A ``tokenizer.json`` does not say which of its tokens ends a document. Hugging Face names that token
in another file of the same folder: as ``eos_token`` in ``tokenizer_config.json`` or, for older
models, in ``special_tokens_map.json``.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_regular
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import parse_json, short

logger = get_logger(__name__)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
"""Files beside a tokenizer that may name its end token; of several, the first one decides."""
EOS = "<|endoftext|>"
_USUAL = (
    EOS,
    "</s>",
    "<eos>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|eos|>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001 - so it is written
    "[SEP]",
)
"""Usual names of an end token, for tokenizers whose files name none."""
_REMEDY = "name it with --eos-token NAME or --eos-id N, or use --no-eos for no end token"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndChoice:
    """The user's choice of the end token; if no field is set, the tokenizer's files decide.

    Raises:
        UsageError: More than one field is set.
    """

    eos_token: str | None = None
    eos_id: int | None = None
    no_eos: bool = False

    def __post_init__(self) -> None:
        choices = [self.eos_token is not None, self.eos_id is not None, self.no_eos]
        if sum(choices) > 1:
            raise UsageError("--eos-token, --eos-id and --no-eos exclude each other; give one")


@dataclass(frozen=True, slots=True)
class EndToken:
    """The token that every document ends with."""

    id: int | None
    """Number of the token; None: documents have no end token."""
    name: str
    source: str
    """The option or file that names the token."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def tell(self) -> None:
        """Log which token ends documents, or warn that none does."""
        if self.id is None:
            logger.warning(f"documents have no end token ({self.source})")
        else:
            name = f"{self.name}, " if self.name else ""
            logger.info(f"documents end with {name}token {self.id}, by {self.source}")


def find_end_token(
    tokenizer: "Tokenizer", choice: EndChoice, configs: Mapping[str, Any], what: str
) -> EndToken:
    """Return the end token of ``tokenizer``; messages call this tokenizer ``what``.

    ``configs`` has the content of those files of `CONFIGS` that exist, by name of the file.

    Raises:
        UsageError: The tokenizer lacks the token that the user names.
        InvalidDataError: The tokenizer lacks the token that a file names. Or no file names a token,
            and no token or several tokens of the tokenizer have a usual name.
    """
    if choice.no_eos:
        return EndToken(None, "", "--no-eos")
    if choice.eos_id is not None:
        name = tokenizer.id_to_token(choice.eos_id) if 0 <= choice.eos_id < 1 << 32 else None
        if name is None:
            raise UsageError(
                f"{what} has no token {choice.eos_id}: its {tokenizer.get_vocab_size():,} tokens "
                "are numbered from 0; correct --eos-id"
            )
        return EndToken(choice.eos_id, name, "--eos-id")
    if choice.eos_token is not None:
        number = tokenizer.token_to_id(choice.eos_token)
        if number is None:
            near = difflib.get_close_matches(choice.eos_token, _specials(tokenizer))
            hint = f"; it has {', '.join(near)}" if near else ""
            raise UsageError(f"{what} has no token {choice.eos_token!r}{hint}; correct --eos-token")
        return EndToken(number, choice.eos_token, "--eos-token")
    for file, config in configs.items():
        if (name := _named(config)) is not None:
            if (number := tokenizer.token_to_id(name)) is None:
                raise InvalidDataError(
                    f"{file} says that documents end with {short(name)}, which {what} does not "
                    f"have; {_REMEDY}"
                )
            return EndToken(number, name, file)
    return _usual(tokenizer, what)


def _usual(tokenizer: "Tokenizer", what: str) -> EndToken:
    """Return the token with a usual name: a special token or, if none has such a name, any.

    Raises:
        InvalidDataError: No token has a usual name, or several tokens have one.
    """
    specials = _specials(tokenizer)
    for names in (specials, tokenizer.get_vocab()):
        usual = [name for name in _USUAL if name in names]
        if len(usual) > 1:
            raise InvalidDataError(
                f"any of {', '.join(usual)} may end documents of {what}, and no "
                f"{' or '.join(CONFIGS)} says which; {_REMEDY}"
            )
        if usual:
            return EndToken(tokenizer.token_to_id(usual[0]), usual[0], f"the usual name in {what}")
    listed = f"; its special tokens are {', '.join(specials[:8])}" if specials else ""
    raise InvalidDataError(f"nothing says which token ends documents of {what}{listed}; {_REMEDY}")


def _specials(tokenizer: "Tokenizer") -> list[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def _named(config: Any) -> str | None:
    """Return the end token that ``config``, the JSON of a file, names, or None."""
    token = config.get("eos_token") if isinstance(config, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else None


def read_configs(name: str) -> dict[str, Any]:
    """Return the JSON of each `CONFIGS` file of the tokenizer ``name``, by name of the file.

    ``name`` is a file, a folder or a name on the Hub.

    Raises:
        InvalidDataError: A file is not JSON.
    """
    path = Path(name)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        return parse_configs(lambda file: _local(folder / file), str(folder))
    return parse_configs(lambda file: _of_hub(name, file), name)


def parse_configs(read: Callable[[str], bytes | None], place: str) -> dict[str, Any]:
    """Return the JSON of each `CONFIGS` file that exists, by name of the file.

    ``read`` returns the content of a file, or None for a file that does not exist.
    """
    contents = {file: read(file) for file in CONFIGS}
    return {f: parse_json(data, f"{place}/{f}") for f, data in contents.items() if data is not None}


def _local(path: Path) -> bytes | None:
    return read_regular(path) if path.exists() else None


def _of_hub(name: str, file: str) -> bytes | None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - only a tokenizer of the Hub
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    try:
        return Path(hf_hub_download(name, file)).read_bytes()
    except EntryNotFoundError:
        return None


def trained_end_token(choice: EndChoice) -> EndToken:
    """Return the end token of a tokenizer that a build trains: `EOS`, which has the number 0.

    Raises:
        UsageError: The user names another token.
    """
    if choice.no_eos:
        return EndToken(None, "", "--no-eos")
    if choice.eos_token not in (None, EOS) or choice.eos_id not in (None, 0):
        raise UsageError(
            f"a tokenizer that is trained ends documents with {EOS}, its token 0; leave out "
            "--eos-token and --eos-id, or name a --tokenizer"
        )
    return EndToken(0, EOS, "the tokenizer that is trained")
