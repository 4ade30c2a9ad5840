"""Collator: the tensors that a step gives to the trainer.

Fields that were not asked for are not computed: ``input_ids`` and ``cluster_ids`` alone are one
compiled copy.
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
"""Number of batches whose memory is used again."""
DTYPES = {torch.int64: np.int64, torch.int32: np.int32}

Batch = dict[str, torch.Tensor]


class Collator:
    """Makes batches of ``rows`` rows of ``seq_len`` tokens.

    - ``input_ids``, ``[rows, seq_len]``: the tokens.
    - ``cluster_ids``, int64 ``[rows]``: the cluster of each row.
    - ``labels``, like ``input_ids``: the tokens again, with `IGNORED` in padding and at the first
      token of each document that follows another one. They are not shifted: the model does that.
    - ``position_ids``, int64 ``[rows, seq_len]``: the place of a token in its document, from 0.
    - ``cu_seqlens``, int32 ``[rows * max_segments + 1]``: where documents end, counted through all
      rows. A row with fewer documents than ``max_segments`` repeats its last end.

    Args:
        rows: Rows of this rank.
        seq_len: Tokens of a row.
        size: Bytes of a token in the shards.
        padding: Token that fills the rest of a row.
        fields: Names from `FIELDS` that a batch holds beside ``input_ids`` and ``cluster_ids``.
        max_segments: Largest number of documents of a row in ``cu_seqlens``.
        dtype: Type of ``input_ids`` and ``labels``: `torch.int64` or `torch.int32`.
        pin_memory: Whether tensors lie in page-locked memory, which a GPU copies without waiting.

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
        """Memory of the last batches."""
        for array in self._arrays:
            self._unused = sys.getrefcount(array)
            """Value of `sys.getrefcount` for an array that only this collator holds."""
        self.joined = 0
        """Documents for which `cu_seqlens` had no room; each was joined to the one before it."""

    def make(
        self, addresses: NDArray[np.int64], rows: NDArray[np.int64], begin: int, clusters: Any
    ) -> Batch:
        """Make the batch that begins at row ``begin``; the arguments are those of `gather`.

        ``clusters`` is int64 ``[n]``, the cluster of each of ``rows``.
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
        """Return memory for a batch: that of an earlier batch if nobody uses it any more.

        Used memory is in the processor's caches, and needs no new pages of the system, which can
        cost ten times the copy. A batch, or a view of it, holds a reference to its array.
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
        """Add the fields that the trainer asked for to ``batch``."""
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
            # `cu_seqlens` counts through all rows: each row begins where the one before ends.
            ends = bounds[:, 1:] + seq_len * np.arange(n, dtype=np.int32)[:, None]
            ends[:, -1] = seq_len * (1 + np.arange(n, dtype=np.int32))
            batch["cu_seqlens"] = self._tensor(np.append(np.int32(0), ends))

    def _pinned(self) -> Any:
        return torch.empty(self._shape, dtype=self._dtype, pin_memory=True).numpy()

    def _tensor(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._pin else tensor
