"""Text hashes: equal texts have equal hashes."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray


def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the xxh3-128 hash of each text, as two halves of 64 bits: uint64 ``[n, 2]``.

    All white space between two words counts as one space.
    """
    digests = [xxhash.xxh3_128_digest(" ".join(text.split()).encode()) for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(texts), 2)
