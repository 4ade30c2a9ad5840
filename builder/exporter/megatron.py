r"""Megatron's indexed data sets: ``NAME.bin`` with all tokens, ``NAME.idx`` with document offsets.

The index of n documents is little-endian. Its format is that of
``megatron/core/datasets/indexed_dataset.py``::

    MMIDIDX\0\0 | u64 version 1 | u8 type of a token | u64 n | u64 n + 1
    | i32 number of tokens of each document [n] | i64 first byte of each document in the .bin [n]
    | i64 the numbers 0 to n [n + 1]

A document is one sequence, and its last token is the end token, as in the files that Megatron
itself writes with ``--append-eod``. A sample of Megatron may have several documents, and only the
end token shows where each of them ends.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.cluster_names import make_unique
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import atomic_path
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import Mixture

_MAGIC = b"MMIDIDX\x00\x00"
_TYPES = {"uint16": (8, "<u2"), "uint32": (4, "<i4")}
"""For each type of the tokens in shards: Megatron's code and the type in Megatron's files. Megatron
has no uint32; int32 is enough, because no id needs the 32nd bit."""


def write_indexed(
    prefix: Path, parts: Iterable[list[NDArray[Any]]], dtype: str, end: int | None
) -> int:
    """Write ``prefix.bin`` and ``prefix.idx``; return the number of tokens.

    Args:
        prefix: Path of both files, without their endings.
        parts: Lists of documents; one list at a time is in memory.
        dtype: Type of the tokens, ``uint16`` or ``uint32``.
        end: Token that ends every document; None: documents have no end token.

    Raises:
        IntegrityError: A document does not end with ``end``.
    """
    code, kind = _TYPES[dtype]
    counts: list[NDArray[np.int32]] = []
    with atomic_path(prefix.with_name(f"{prefix.name}.bin")) as path, path.open("wb") as file:
        for documents in parts:
            for document in documents:
                if end is not None and document[-1] != end:
                    raise IntegrityError(
                        f"a document of {prefix.name} does not end with token {end}, but the "
                        "manifest says that all documents do; run climb verify"
                    )
                file.write(document.astype(kind).tobytes())
            counts.append(np.array([len(document) for document in documents], "<i4"))
    lengths = np.concatenate([np.empty(0, "<i4"), *counts])
    ends = np.cumsum(lengths, dtype="<i8") * np.dtype(kind).itemsize
    with atomic_path(prefix.with_name(f"{prefix.name}.idx")) as path, path.open("wb") as file:
        file.write(_MAGIC + np.array([1], "<u8").tobytes() + bytes([code]))
        file.write(np.array([len(lengths), len(lengths) + 1], "<u8").tobytes())
        file.write(lengths.tobytes())
        file.write(np.concatenate([[0], ends[:-1]]).astype("<i8")[: len(lengths)].tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
    return int(lengths.sum())


def prefixes(names: Sequence[str]) -> list[str]:
    """Return the prefix of each cluster's files: the cluster's name with ``_`` for each space."""
    return [*make_unique({name: name.replace(" ", "_") for name in names}).values()]


def blend_words(manifest: Manifest, mixture: Mixture, folder: Path) -> str:
    """Return the value of ``--data-path``: weights and prefixes of the clusters with a weight.

    Clusters with a weight of 0 are left out. Megatron's weights mean the same as those of a
    mixture: shares of samples of equal length.

    Raises:
        UsageError: The path of ``folder`` has a space, at which Megatron would split it.
        InvalidDataError: The mixture is for other clusters, or a cluster without documents has a
            weight above 0.
    """
    if len(str(folder).split()) != 1:
        raise UsageError(
            f"the path {str(folder)!r} contains a space, and Megatron splits the value of "
            "--data-path at spaces; export to a folder whose path has no space"
        )
    words = []
    weights = mixture.array(manifest.names).tolist()
    paths = prefixes(manifest.names)
    for cluster, weight, prefix in zip(manifest.clusters, weights, paths, strict=True):
        if not weight:
            continue  # Megatron refuses a weight of 0
        if not cluster.documents:
            raise InvalidDataError(
                f"cluster {cluster.name} has weight {weight:.3g} but no document; give it weight 0"
            )
        words.append(f"{weight:.12g} {folder / prefix}")
    return " ".join(words)
