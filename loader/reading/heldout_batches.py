"""HeldOutBatches: batches of held-out text, which a build kept out of the shards for evaluation.

The text is tokenized as in a build. The documents of each cluster are packed as if they were one
shard, so less than one row of tokens is left out per cluster. Rows do not depend on the seed, the
number of ranks or the weights, so different runs measure their losses on the same rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.permutation import derive_key, shuffled
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.heldout import HeldOutDocument
from climbstream.loader.formats.mds.reader import ShardView
from climbstream.loader.formats.mds.writer import count_lengths
from climbstream.loader.formats.mixture import some_names

from .collator import Batch, Collator
from .gather import ByteSpans, OpenShard
from .packing import count_rows, pack_documents

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = get_logger(__name__)

_KEY = "heldout"
_AT_ONCE = 256
"""Number of documents in one call of the tokenizer."""


@dataclass(frozen=True, slots=True)
class HeldOutChoice:
    """A choice of held-out text: by cluster, by label, and up to a number of tokens."""

    cluster: str | None = None
    """Name of a cluster or, if no cluster has that name, a label; None: all clusters."""
    label: str | None = None
    """Label (known domain) of documents; None: all labels."""
    max_tokens: int | None = None
    """Largest number of tokens in total, over all clusters and ranks; None: no limit."""

    def documents(self, shards: ShardDirectory) -> dict[str, list[HeldOutDocument]]:
        """Return the chosen documents of each cluster of ``shards``, in a fixed random order.

        Raises:
            UsageError: There are no such documents.
        """
        every = [d for d in shards.heldout() if d.cluster in shards.names]
        if not every:
            raise UsageError(
                f"{shards} has no held-out text; build it with --holdout 0.05, and publish it with "
                "--heldout where it is on the Hub"
            )
        labels = sorted({d.label for d in every} - {""})
        cluster, label = self.cluster, self.label
        if cluster not in (None, *shards.names) and cluster in labels and label is None:
            cluster, label = None, cluster
        kept = [d for d in every if cluster in (None, d.cluster) and label in (None, d.label)]
        if not kept:
            either = f"cluster or label {cluster!r}" if label is None else f"cluster {cluster!r}"
            asked = [either] * (cluster is not None) + [f"label {label!r}"] * (label is not None)
            raise UsageError(
                f"no held-out document has {' and '.join(asked)}; the held-out text has the "
                f"clusters {some_names(sorted({d.cluster for d in every}), 50)} and the labels "
                f"{some_names(labels, 50) or 'none'}"
            )
        kept.sort(key=lambda d: (derive_key(_KEY, d.id, d.text), d.id))
        return {name: [d for d in kept if d.cluster == name] for name in shards.names}


class HeldOutBatches:
    """Batches of held-out text for one rank: dicts with the same fields as training batches.

    Each iteration yields every row once, always in the same order. The last batch may have fewer
    rows than the others. All ranks have the same number of batches and rows, so up to
    ``world_size`` - 1 rows are left out.
    """

    def __init__(
        self,
        opened: Sequence[OpenShard],
        rows: NDArray[np.int64],
        make_collator: Callable[[int], Collator],
        rows_each: int,
        seq_len: int,
    ) -> None:
        """Make batches of the given rows of the shards ``opened``.

        Args:
            opened: Shards that contain the rows.
            rows: The rows of this rank in their order, int64 ``[n, 3]``: cluster, index of the
                shard in ``opened``, and number of the row in that shard.
            make_collator: Function that returns the collator for a number of rows.
            rows_each: Number of rows of a batch.
            seq_len: Number of tokens of a row.
        """
        self._opened = opened  # this keeps alive the memory to which addresses point
        self._addresses = np.array([shard.addresses for shard in opened], np.int64)
        self._rows, self._clusters = rows, rows[:, 0].copy()
        self._make_collator, self._rows_each, self._seq_len = make_collator, rows_each, seq_len

    @classmethod
    def of(
        cls,
        shards: ShardDirectory,
        make_collator: Callable[[int], Collator],
        choice: HeldOutChoice,
        *,
        pack: str,
        seq_len: int,
        batch_rows: int,
        rank: int,
        world_size: int,
    ) -> Self:
        """Pack the chosen held-out text of ``shards``; see `MixtureLoader.heldout`.

        Raises:
            UsageError: There is no such text, or too little for one row on each rank.
        """
        most = choice.max_tokens
        if most is not None and most < seq_len * world_size:
            raise UsageError(
                f"max_tokens is {most:,}; it must be {seq_len * world_size:,} or more: a row of "
                f"{seq_len:,} tokens for each rank"
            )
        opened: list[OpenShard] = []
        listed: list[tuple[int, int, int, int]] = []
        small: dict[str, int] = {}
        for cluster, (name, documents) in enumerate(choice.documents(shards).items()):
            tokens = _encode(shards, documents, most)
            lengths = np.array([len(document) for document in tokens], np.int64)
            rows = _count_rows(pack, lengths, seq_len)
            if not rows:
                small |= {name: int(lengths.sum())} if documents else {}
                continue
            # The rows are shuffled, because with max_tokens only the first ones may be used.
            turns = enumerate(shuffled(rows, _KEY, name).tolist())
            listed += [(turn, cluster, len(opened), row) for turn, row in turns]
            opened.append(_open(pack, tokens, lengths, rows, seq_len, name))
        count = len(listed) if most is None else min(len(listed), most // seq_len)
        if (count := count // world_size * world_size) == 0:
            raise UsageError(
                f"the held-out text has too little for a row of {seq_len:,} tokens on each of "
                f"{world_size} ranks: {some_names([f'{n} {k:,} tokens' for n, k in small.items()])}"
                "; take a smaller seq_len, or build with a larger --holdout"
            )
        if small:
            logger.warning(
                f"held-out text of less than a row of {seq_len:,} tokens is left out: "
                f"{some_names(list(small))}"
            )
        rows_of_all = np.array(sorted(listed)[:count], np.int64)[:, 1:]
        return cls(
            opened,
            np.ascontiguousarray(rows_of_all[rank::world_size]),
            make_collator,
            batch_rows // world_size,
            seq_len,
        )

    def __len__(self) -> int:
        """Return the number of batches in an iteration."""
        return -(-len(self._rows) // self._rows_each)

    def __repr__(self) -> str:
        return f"HeldOutBatches({len(self)} batches, {self.tokens:,} tokens on this rank)"

    @property
    def tokens(self) -> int:
        """Number of tokens in all batches of this rank."""
        return len(self._rows) * self._seq_len

    def __iter__(self) -> Iterator[Batch]:
        for begin in range(0, len(self._rows), self._rows_each):
            collator = self._make_collator(min(self._rows_each, len(self._rows) - begin))
            yield collator.make(self._addresses, self._rows, begin, self._clusters)


def _encode(
    shards: ShardDirectory, documents: Sequence[HeldOutDocument], most: int | None
) -> list[NDArray[Any]]:
    """Return the tokens of documents: an array for each document, uint16 or uint32 ``[n]``.

    If ``most`` is not None, later documents are left out once there are ``most`` tokens or more.
    """
    if not documents:
        return []
    tokenizer, end = shards.tokenizer(), shards.manifest.eos_id
    tokens: list[NDArray[Any]] = []
    count = 0
    for first in range(0, len(documents), _AT_ONCE):
        if most is not None and count >= most:
            break
        for ids in _ids(tokenizer, documents[first : first + _AT_ONCE]):
            document = np.array([*ids, *([] if end is None else [end])], shards.manifest.dtype)
            if len(document):
                tokens.append(document)
                count += len(document)
    return tokens


def _ids(tokenizer: "Tokenizer", documents: Sequence[HeldOutDocument]) -> list[list[int]]:
    texts = [document.text for document in documents]
    return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _count_rows(pack: str, lengths: NDArray[np.int64], seq_len: int) -> int:
    if not len(lengths):
        return 0
    return count_rows(pack, int(lengths.sum()), count_lengths(lengths), seq_len)


def _open(
    pack: str,
    tokens: Sequence[NDArray[Any]],
    lengths: NDArray[np.int64],
    rows: int,
    seq_len: int,
    name: str,
) -> OpenShard:
    """Pack the documents of cluster ``name`` into ``rows`` rows; return them as an open shard."""
    size = tokens[0].itemsize
    starts = (np.cumsum(lengths) - lengths) * size
    data = np.concatenate(tokens).view(np.uint8)
    view = ShardView(data, starts.astype(np.uint32), lengths)
    secret = np.uint64(derive_key(_KEY, name, "pack"))
    packed = pack_documents(pack, lengths, rows, seq_len, secret)
    return OpenShard.of(data, ByteSpans.of(view, packed, size))
