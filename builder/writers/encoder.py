"""Encoders: turn texts into token ids, with `tokenizers` or the much faster `fastokens`.

The ids that Hugging Face's `tokenizers` returns are the correct ones, and `tokenizers` supports
every tokenizer. `fastokens` is many times as fast, but supports only byte-pair encodings, and not
all of them. Before a build uses `fastokens`, `compare_encoders` tests that both libraries return
the same ids.
"""

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.loader.core.log import get_logger

logger = get_logger(__name__)


SWITCH = "CLIMBSTREAM_FASTOKENS"
"""Environment variable; if its value is ``0``, `fastokens` is not used."""

_BATCH = 128
"""Number of texts that are encoded at a time. It is small, because an encoding of `tokenizers`
takes 20 times as much memory as its ids."""
_SHOWN = 40
"""Maximum number of characters of a text that a message shows."""


class Tokens(NamedTuple):
    """Token ids of some texts, one text after the other."""

    ids: NDArray[np.uint32]
    """The ids of all texts, ``[sum of lengths]``."""
    lengths: NDArray[np.int64]
    """Number of tokens of each text, ``[n]``."""

    @classmethod
    def of(cls, ids: Sequence[NDArray[np.uint32]]) -> "Tokens":
        """Return the tokens of several texts, from one array of ids per text."""
        flat = np.concatenate([np.empty(0, np.uint32), *ids])
        return cls(flat, np.array([len(text) for text in ids], np.int64))

    def split(self) -> list[NDArray[np.uint32]]:
        """Return the ids of the texts, one array per text."""
        return np.split(self.ids, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []

    def end_with(self, end: int) -> "Tokens":
        """Return the tokens with ``end`` added to each text."""
        return Tokens(np.insert(self.ids, np.cumsum(self.lengths), end), self.lengths + 1)


class Encoder(Protocol):
    """Turns texts into token ids.

    An encoder adds no special tokens, and never truncates or pads a text, even if the tokenizer's
    file says so. If a text contains the characters of a special token, such as ``<s>``, an encoder
    treats these characters as ordinary text.
    """

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Encode ``texts``, none of which contains a lone surrogate."""


class ReferenceEncoder:
    """Encodes with `tokenizers` in one thread; accepts any tokenizer.

    This class changes settings of the tokenizer object that it is given.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # There is one encoding process per core. A value that the user has set is not changed.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Encode ``texts``."""
        ids = []
        for first in range(0, len(texts), _BATCH):
            batch = list(texts[first : first + _BATCH])
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids += [np.array(encoding.ids, np.uint32) for encoding in encodings]
        return Tokens.of(ids)


class FastEncoder:
    """Encodes with `fastokens`, in one thread.

    Raises:
        ImportError: `fastokens` is not installed.
        Exception: `fastokens` does not support this tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        os.environ["FASTOKENS_BPE_THREADS"] = "1"  # fastokens reads it when it first encodes
        import fastokens  # noqa: PLC0415 - an optional library

        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer: Any = fastokens.Tokenizer.from_json_str(tokenizer.to_str())

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Encode ``texts``.

        Raises:
            BaseException: The library failed. A panic in Rust is a `BaseException`, but no
                `Exception`.
        """
        ids, offsets = self._tokenizer.encode_batch_flat(list(texts), split_special_tokens=True)
        ends = np.frombuffer(offsets, "<u8").astype(np.int64)
        return Tokens(np.frombuffer(ids, "<u4"), np.diff(ends))


class GuardedEncoder:
    """Encodes with ``fast``; if ``fast`` fails on a text, encodes this text with ``reference``."""

    def __init__(self, fast: Encoder, reference: Encoder) -> None:
        self._fast = fast
        self._reference = reference
        self._told = False

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Encode ``texts``."""
        ids: list[NDArray[np.uint32]] = []
        for first in range(0, len(texts), _BATCH):
            batch = texts[first : first + _BATCH]
            tokens = _attempt(self._fast, batch)
            if isinstance(tokens, str):
                ids += [self._encode_alone(text) for text in batch]
            else:
                ids += tokens.split()
        return Tokens.of(ids)

    def _encode_alone(self, text: str) -> NDArray[np.uint32]:
        tokens = _attempt(self._fast, [text])
        if isinstance(tokens, str):
            if not self._told:  # only once, as there may be millions of such texts
                logger.warning(
                    f"fastokens fails on {_show(text)}, {tokens}; such texts are encoded by "
                    "tokenizers"
                )
                self._told = True
            tokens = self._reference.encode([text])
        return tokens.ids


def installed_version() -> str:
    """Return the installed version of `fastokens`; "" if it is not installed."""
    try:
        return version("fastokens")
    except PackageNotFoundError:
        return ""


def open_encoder(tokenizer: Tokenizer, fastokens: str) -> Encoder:
    """Return the encoder for this process.

    ``fastokens`` is the version of `fastokens` that `compare_encoders` has tested; "": none. If
    this version is installed, the encoder uses it. On a node with another version, or none, the
    encoder uses `tokenizers`, which returns the same ids.
    """
    reference = ReferenceEncoder(tokenizer)
    if not fastokens or installed_version() != fastokens:
        return reference
    fast = _open_fast(tokenizer)
    if isinstance(fast, str):
        logger.warning(
            f"texts are encoded here by tokenizers, not by fastokens {fastokens}, which {fast}"
        )
        return reference
    return GuardedEncoder(fast, reference)


def compare_encoders(tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """Return why `fastokens` cannot replace `tokenizers`; "" if the ids of ``texts`` are equal."""
    fast = _open_fast(tokenizer)
    if isinstance(fast, str):
        return fast
    return find_difference(fast, ReferenceEncoder(tokenizer), texts)


def _open_fast(tokenizer: Tokenizer) -> Encoder | str:
    """Return an encoder with `fastokens`; if that fails, even by a panic in Rust, return why."""
    try:
        return FastEncoder(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return f"does not take this tokenizer: {error}"


def find_difference(fast: Encoder, reference: Encoder, texts: Sequence[str]) -> str:
    """Return where the encoders' ids first differ, or why ``fast`` fails; "" if all are equal."""
    for first in range(0, len(texts), _BATCH):
        batch = texts[first : first + _BATCH]
        tokens = _attempt(fast, batch)
        if isinstance(tokens, str):
            return f"fails on one of {len(batch)} texts that are to be compared, {tokens}"
        both = zip(tokens.split(), reference.encode(batch).split(), strict=True)
        for text, (one, other) in zip(batch, both, strict=True):
            if not np.array_equal(one, other):
                return f"gives other ids for {_show(text)}: {_first_difference(one, other)}"
    return ""


def _attempt(encoder: Encoder, texts: Sequence[str]) -> Tokens | str:
    """Encode ``texts``; if that fails, even by a panic in Rust, return the error as text."""
    try:
        return encoder.encode(texts)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def _first_difference(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> str:
    """Return a text on the first token at which ``one``, of `fastokens`, differs from ``other``."""
    least = min(len(one), len(other))
    differ = np.flatnonzero(one[:least] != other[:least])
    at = int(differ[0]) if len(differ) else least
    ids = (str(ids[at]) if at < len(ids) else "nothing" for ids in (one, other))
    return "at token {}, {} and not {}".format(at, *ids)


def _show(text: str) -> str:
    """Return the beginning and the length of ``text``, for messages."""
    return f"{text[:_SHOWN]!r} ({len(text):,} characters)"
