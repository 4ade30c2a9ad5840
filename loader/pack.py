"""Documents to rows of a fixed number of tokens.

``concat``: the documents of a shard stand one after the other and are cut anywhere, every
``seq_len`` tokens. What is left over at the end of a shard (fewer than ``seq_len`` tokens) is not
served in that epoch; where the first row begins moves by epoch, so that in time all is served.
"""

from typing import Any

from numba import njit


def concat_rows(tokens: int, seq_len: int) -> int:
    """Rows that ``tokens`` tokens of one shard give."""
    return tokens // seq_len


@njit(cache=True)
def copy_tokens(data: Any, starts: Any, ends: Any, first: Any, size: Any, out: Any) -> None:
    """Copy ``len(out)`` tokens of a shard, from token ``first`` on, across documents.

    ``data`` is the raw shard, uint8; ``starts`` the first byte and ``ends`` the running total of
    tokens of each document, int64 ``[n]``; ``size`` the bytes of a token; ``out`` int64 ``[T]``.
    """
    # First document that ends after the token.
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if ends[middle] <= first:
            low = middle + 1
        else:
            high = middle
    document, token = low, first
    done = 0
    while done < len(out):
        before = ends[document - 1] if document else 0
        byte = starts[document] + (token - before) * size
        count = min(ends[document] - token, len(out) - done)
        # Values lie at odd addresses too, so they are put together byte by byte.
        for i in range(count):
            value = 0
            for b in range(size):
                value |= int(data[byte + i * size + b]) << (8 * b)
            out[done + i] = value
        done += count
        token += count
        document += 1
