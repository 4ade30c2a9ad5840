"""Settings of an import: all that decides the result, apart from the corpus."""

from dataclasses import asdict, dataclass
from typing import Any

from climbstream.builder.end_token import EndChoice
from climbstream.loader.core.errors import InvalidDataError, UsageError

NO_TOKEN = -1
"""Value of `ImportSettings.eos_id` that means: documents have no end token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """Settings of an import; equal settings and sources give equal bytes.

    >>> ImportSettings(cluster="topic", vocab_size=32_000).tokens
    'tokens'

    Raises:
        InvalidDataError: A value is out of its range.
        UsageError: Both a column and folders name the cluster, or there is more than one end token.
    """

    cluster: str | None = None
    """Column that names the cluster; default: ``cluster_id`` or ``cluster``. If there is no such
    column, the name of a folder names the cluster."""
    folders: bool = False
    """Whether the name of a file's folder is the label of the cluster of all rows in the file."""
    use: str | None = None
    """What is imported, ``tokens`` or ``text``; default: tokens if the rows have tokens."""
    tokens: str = "tokens"
    """Column of token ids."""
    text: str = "text"
    """Column of text."""
    id: str = "id"
    """Column of the identifier. The identifier of a row without one is its place in the corpus."""
    license: str | None = None
    """A licence in addition to those that the corpus itself states."""
    tokenizer: str | None = None
    """Hugging Face tokenizer. If the rows have tokens, it is the tokenizer that made them; if they
    have text, it encodes the text."""
    vocab_size: int | None = None
    """If the rows have tokens: number of possible token ids. If they have text: vocabulary size of
    the tokenizer that is trained."""
    eos_id: int | None = None
    """Number of the end token, which is added to rows that lack it; `NO_TOKEN`: documents have no
    end token."""
    eos_token: str | None = None
    """Name of the end token, instead of its number."""
    no_eos: bool = False
    """Whether documents have no end token; this means the same as ``eos_id=NO_TOKEN``."""
    seed: int = 17
    """Decides the sample that a tokenizer is trained on, and the samples that describe clusters."""

    def __post_init__(self) -> None:
        if self.use not in (None, "tokens", "text"):
            raise InvalidDataError(f"use is {self.use!r}; it must be 'tokens' or 'text'")
        if self.folders and self.cluster is not None:
            raise UsageError(
                "the cluster is named both by folders and by the column "
                f"{self.cluster!r}; choose one of --folders and --cluster"
            )
        if self.vocab_size is not None and not 2 <= self.vocab_size <= 1 << 31:
            raise InvalidDataError(
                f"vocab_size is {self.vocab_size}; it must be from 2 to {1 << 31:,}"
            )
        if self.eos_id is not None and self.eos_id < NO_TOKEN:
            raise InvalidDataError(
                f"eos_id is {self.eos_id}; it must be the number of a token, or {NO_TOKEN} for none"
            )

        _ = self.end  # raises an error if more than one of its three settings is given

    @property
    def end(self) -> EndChoice:
        """The user's choice of the end token."""
        if self.eos_id == NO_TOKEN and not self.no_eos:
            return EndChoice(eos_token=self.eos_token, no_eos=True)
        return EndChoice(eos_token=self.eos_token, eos_id=self.eos_id, no_eos=self.no_eos)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Size and end token of a vocabulary."""

    size: int
    """Number of possible token ids; the ids of all tokens are below this number."""
    eos_id: int | None
    """Token that ends a document; None: documents have no end token."""

    def __post_init__(self) -> None:
        if self.eos_id is not None and not 0 <= self.eos_id < self.size:
            raise InvalidDataError(
                f"token {self.eos_id}, which should end documents, is not below the size of the "
                f"vocabulary, {self.size:,}; correct --eos-id or --vocab-size"
            )


GPT2 = Vocabulary(size=50_257, eos_id=50_256)
"""GPT-2's vocabulary, which NVIDIA's ClimbLab and ClimbMix use."""
