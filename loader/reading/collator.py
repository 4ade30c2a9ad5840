"""Collator: makes the tensors of a batch.

Only the fields that the user asks for are computed. A batch with only ``input_ids`` and
``cluster_ids`` needs one call of compiled code, which copies the tokens.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError

from .gather import gather, mark_pieces

FIELDS = ("labels", "position_ids", "cu_seqlens")
_KEPT = 4
"""Largest number of batches whose memory is kept to be reused."""
DTYPES = {torch.int64: np.int64, torch.int32: np.int32}

Batch = dict[str, torch.Tensor]


class Collator:
    """Makes batches of ``rows`` rows of ``seq_len`` tokens, as dicts of tensors.

    - ``input_ids``, ``[rows, seq_len]``: the tokens.
    - ``cluster_ids``, int64 ``[rows]``: the index of each row's cluster.
    - ``labels``, ``[rows, seq_len]``: the tokens, with `IGNORED` in place of padding and of the
      first token of each document except the first document of a row. Labels are not shifted,
      because models shift them.
    - ``position_ids``, int64 ``[rows, seq_len]``: the position of a token in its document, from 0.
      If the row has only a part of the document, positions count within that part.
    - ``cu_seqlens``, int32 ``[rows * max_segments + 1]``: 0, then ``max_segments`` numbers for each
      row. These are the ends of the row's documents, counted in tokens from the first token of the
      batch. If a row has fewer documents, the end of the row is repeated.

    Args:
        rows: Number of rows of a batch on this rank.
        seq_len: Number of tokens of a row.
        size: Number of bytes of a token in the shards.
        padding: Token that fills the part of a row that has no document.
        fields: Names of further tensors in a batch, from `FIELDS`.
        max_segments: Largest number of documents that a row can have in ``cu_seqlens``. Further
            documents of a row count as a part of the last of these documents.
        dtype: Type of ``input_ids`` and ``labels``: `torch.int64` or `torch.int32`.
        pin_memory: Whether tensors are in page-locked memory, from which copies to a GPU can be
            asynchronous.

    Raises:
        UsageError: A field or the type is unknown, ``max_segments`` is below 1, or ``pin_memory``
            is set on a machine without a GPU.
    """

    def __init__(
        self,
        rows: int,
        seq_len: int,
        size: int,
        padding: int,
        *,
        fields: Sequence[str] = (),
        max_segments: int = 64,
        dtype: torch.dtype = torch.int64,
        pin_memory: bool = False,
    ) -> None:
        if unknown := set(fields) - set(FIELDS):
            raise UsageError(
                f"a batch has no field {', '.join(sorted(unknown))}; beside input_ids and "
                f"cluster_ids it may have {', '.join(FIELDS)}"
            )
        if dtype not in DTYPES:
            raise UsageError(f"tokens are torch.int64 or torch.int32, not {dtype}")
        if pin_memory and not torch.cuda.is_available():
            raise UsageError("pin_memory needs a GPU, and this machine has none; leave it out")
        if max_segments < 1:
            raise UsageError(f"max_segments is {max_segments}; it must be 1 or more")
        self._shape = (rows, seq_len)
        self._size, self._padding = size, padding
        self._fields, self._max_segments = frozenset(fields), max_segments
        self._dtype, self._kind, self._pin = dtype, DTYPES[dtype], pin_memory
        self._arrays: list[Any] = [np.empty(self._shape, self._kind)]
        """Arrays of the last 4 or fewer batches. An array is used again when no batch needs it."""
        for array in self._arrays:
            self._unused = sys.getrefcount(array)
            """Value of `sys.getrefcount` for an array to which only this collator refers."""
        self.joined = 0
        """Number of documents in all batches so far for which ``cu_seqlens`` had no room; each
        counts there as a part of the document before it."""

    def make(
        self, addresses: NDArray[np.int64], rows: NDArray[np.int64], begin: int, clusters: Any
    ) -> Batch:
        """Return the batch that begins with row number ``begin`` of ``rows``.

        ``addresses`` and ``rows`` are as in `gather`. ``clusters``, int64 ``[n]``, is the cluster
        of each of the n ``rows``.
        """
        tokens = self._pinned() if self._pin else self._memory()
        gather(addresses, rows, begin, self._size, self._padding, tokens)
        batch = {
            "input_ids": torch.from_numpy(tokens),
            "cluster_ids": torch.from_numpy(clusters[begin : begin + len(tokens)]),
        }
        if self._fields:
            self._add_fields(batch, tokens, addresses, rows, begin)
        return batch

    def _memory(self) -> Any:
        """Return an array for the tokens of a batch: that of an earlier batch if it is not in use.

        Copying into an array that was used before is fast, because the array is in the processor's
        caches. A new array needs memory pages, and getting them can take ten times as long as the
        copy. An array is in use as long as its batch, or a view of its batch, exists.
        """
        arrays = self._arrays
        for array in arrays:
            if sys.getrefcount(array) == self._unused:
                return array
        arrays.insert(0, np.empty(self._shape, self._kind))
        del arrays[_KEPT:]
        return arrays[0]

    def _add_fields(
        self, batch: Batch, tokens: Any, addresses: NDArray[np.int64], rows: Any, begin: int
    ) -> None:
        """Add to ``batch`` the fields that the user asked for."""
        n, seq_len = self._shape
        labels = tokens.copy() if "labels" in self._fields else tokens[:0]
        positions = np.empty((n if "position_ids" in self._fields else 0, seq_len), np.int64)
        bounds = np.empty(
            (n if "cu_seqlens" in self._fields else 0, self._max_segments + 1), np.int32
        )
        self.joined += mark_pieces(addresses, rows, begin, labels, positions, bounds)
        if "labels" in self._fields:
            batch["labels"] = self._tensor(labels)
        if "position_ids" in self._fields:
            batch["position_ids"] = self._tensor(positions)
        if "cu_seqlens" in self._fields:
            # `cu_seqlens` counts tokens from the start of the batch, `bounds` from that of the row.
            ends = bounds[:, 1:] + seq_len * np.arange(n, dtype=np.int32)[:, None]
            ends[:, -1] = seq_len * (1 + np.arange(n, dtype=np.int32))
            batch["cu_seqlens"] = self._tensor(np.append(np.int32(0), ends))

    def _pinned(self) -> Any:
        return torch.empty(self._shape, dtype=self._dtype, pin_memory=True).numpy()

    def _tensor(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._pin else tensor
